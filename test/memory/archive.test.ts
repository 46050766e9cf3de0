/** Filling the search index while it is emptied under whoever fills it, or when it belongs to another log. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import { Archive } from "../../workers/memory/archive.ts";
import { openEmbedded } from "../../workers/memory/index/index.embedded.ts";
import { MemoryLog } from "../../workers/memory/log.ts";
import type { Index } from "../../workers/memory/ports.ts";
import { archiveProjection } from "../../workers/memory/rebuild.ts";
import { follow } from "../../workers/memory/tail.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { startTestNats, type TestNats } from "../kit/servers.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";

let nats: TestNats;
let log: MemoryLog;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "beamline-archive-"));
  nats = await startTestNats({ syncInterval: "10s" });
  const bus = await nats.connect("archive test");
  await ensureStreams(bus, memoryWorker.streams ?? []);
  await ensureObjects(bus, memoryWorker.objects ?? []);
  log = new MemoryLog(bus);
  for (const id of ids) await append(id);
}, 60_000);

afterAll(async () => {
  await nats.stop();
  await rm(directory, { recursive: true, force: true });
});

/** More than are stored at once. */
const ids = Array.from({ length: 50 }, (_, n) => `doc${n}`).sort();

const append = (id: string) =>
  log.append({
    tenant: "t",
    kind: "knowledge",
    id,
    by: "",
    task: "",
    trace: "",
    at: 1,
    born: 1,
    state: { title: id, content: "text" },
  });

/** An archive on an index of its own, followed; `hold` keeps the index from saying that it has stored something. */
async function followed(name: string, shared = false) {
  const own = await openEmbedded({ file: join(directory, `${name}.sqlite`), model: "m", dimensions: 2 });
  const stop = new AbortController();
  let gate = Promise.withResolvers<void>();
  let waiting = 0;
  let broken = false;
  gate.resolve();
  const index: Index = {
    ...own,
    shared,
    async put(docs) {
      if (broken) throw new BeamlineError("unavailable", "the index is away");
      await own.put(docs);
      waiting++;
      await gate.promise;
      waiting--;
    },
  };
  const embedder = {
    model: "m",
    dimensions: 2,
    embed: (texts: readonly string[]) => Promise.resolve(texts.map(() => Float32Array.of(1, 0))),
    close: () => Promise.resolve(),
  };
  const shelf = Promise.resolve({ embedder, index });
  const archive = new Archive(() => shelf, systemClock, silentLogger, { indexWaitMs: 1_000 });
  const parts = { log, clock: systemClock, logger: silentLogger, bury: () => Promise.resolve() };
  let running: Promise<void> | undefined;
  return {
    archive,
    index: own,
    start(): void {
      running = follow(archiveProjection(archive, parts), parts, stop.signal);
    },
    hold: () => (gate = Promise.withResolvers()),
    release: () => gate.resolve(),
    break: (now: boolean) => (broken = now),
    held: () => until(() => waiting > 0, "something to be stored"),
    async [Symbol.asyncDispose]() {
      gate.resolve();
      stop.abort();
      await running;
      await archive.close();
    },
  };
}

const search = { query: "anything", collections: ["knowledge"], limit: 100, minRelevance: 0 };
const found = async (archive: Archive): Promise<string[]> =>
  (await archive.search("t", { ...search, deadline: systemClock.now() + 20_000 })).map(({ id }) => id).sort();

verifies(
  "log-is-truth",
  "memory: an index emptied by hand while it is being filled is filled again from the beginning",
  async () => {
    await using world = await followed("filling");
    world.hold();
    world.start();
    await world.held();
    const rebuilt = world.archive.rebuild(() => undefined);
    await until(async () => (await world.index.count()) === 0, "the index to be emptied");
    world.release();
    await rebuilt;
    expect(await found(world.archive)).toEqual(ids);
    expect(await world.index.count()).toBe(ids.length);
  },
);

verifies(
  "log-is-truth",
  "memory: an index emptied by hand while it follows the log is filled again from the beginning",
  async () => {
    await using world = await followed("following");
    world.start();
    expect(await found(world.archive)).toEqual(ids);
    world.hold();
    await append("later");
    await world.held();
    const rebuilt = world.archive.rebuild(() => undefined);
    await until(async () => (await world.index.count()) === 0, "the index to be emptied");
    world.release();
    await rebuilt;
    expect(await found(world.archive)).toEqual([...ids, "later"].sort());
    expect(await world.index.count()).toBe(ids.length + 1);
  },
);

verifies("log-is-truth", "memory: an index of another log, whose end is beyond this one's, is made anew", async () => {
  await using world = await followed("other");
  const stranger = { tenant: "t", collection: "knowledge", id: "stranger", seq: 900, at: 1, content: "", text: "" };
  const stale = { ...stranger, id: "doc0", content: "of the other log" };
  const vector = Float32Array.of(1, 0);
  await world.index.put([stranger, stale].map((doc) => ({ ...doc, metadata: {}, vector })));
  await world.index.begin(1_000);
  world.start();
  expect(await found(world.archive)).toEqual([...ids, "later"].sort());
});

verifies(
  "log-is-truth",
  "memory: a shared index that was away while something was written: a search waits for it",
  async () => {
    await using world = await followed("late", true);
    world.start();
    const before = await found(world.archive);
    world.break(true);
    expect(await world.archive.put(await append("kept for later"))).toBe(false);
    const searching = found(world.archive);
    world.break(false);
    expect(await searching).toEqual([...before, "kept for later"].sort());
  },
);
