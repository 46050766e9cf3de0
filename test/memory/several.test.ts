/** Two memory workers, each with an embedded index of its own: whoever is asked has what the other one acknowledged. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { openStream } from "../../bus/stream.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { REBUILD_SUBJECT } from "../../workers/memory/rebuild.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

let world: World;
const children: ChildProcess[] = [];

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await ensureStreams(world.bus, memoryWorker.streams ?? []);
  await ensureBuckets(world.bus, memoryWorker.buckets ?? []);
  await ensureObjects(world.bus, memoryWorker.objects ?? []);
  for (const name of ["one", "two"]) await start(join(world.dataDir, name));
}, 120_000);

afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await world[Symbol.asyncDispose]();
});

async function start(dataDir: string): Promise<void> {
  const { user, password, inboxPrefix } = world.nats.credentials.worker;
  const env = {
    ...world.env(),
    BEAMLINE_DATA_DIR: dataDir,
    BEAMLINE_MEMORY_BEHIND_MS: "1000", // so that a rebuild surely comes between an acknowledgement and the log
    NATS_URL: world.nats.server.url,
    NATS_USER: user,
    NATS_PASSWORD: password,
    NATS_INBOX_PREFIX: inboxPrefix,
  };
  const child = spawn(process.execPath, [fileURLToPath(new URL("worker.process.ts", import.meta.url))], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  children.push(child);
  await once(child, "message");
}

interface Stats {
  readonly id: string;
  readonly endpoints: readonly { readonly name: string; readonly num_requests: number }[];
}

/** Calls of a method that each of the two workers has answered. */
async function answered(method: string): Promise<number[]> {
  const found = new Map<string, number>();
  await until(async () => {
    const { endpoints, id } = (await world.caller.request("$SRV.STATS.memory", {}, { timeoutMs: 5_000 })) as Stats;
    found.set(id, endpoints.find(({ name }) => name.endsWith(method))?.num_requests ?? 0);
    return found.size === 2;
  }, "both workers to be seen");
  return [...found.values()];
}

verifies(
  "log-is-truth",
  "memory: with an index each, two workers find what either of them has just acknowledged, and what is replaced is gone",
  async () => {
    for (let n = 0; n < 40; n++) {
      const title = `lamp ${n % 8}`;
      await world.call("addKnowledge", { title, content: `It burns since day ${n}.`, source: "test" });
      const { results } = await world.call("searchKnowledge", { query: title, n_results: 50 });
      const found = results.map(({ content }) => content).filter((content) => content.includes(`${title}:`));
      expect(found).toEqual([`[test] ${title}: It burns since day ${n}.`]);
    }
    // It was a test only when both were asked for both.
    for (const method of ["add_knowledge", "search_knowledge"])
      expect((await answered(method)).every((calls) => calls > 0)).toBe(true);
  },
  { timeout: 120_000 },
);

verifies("log-is-truth", "memory: working memory is one, whichever worker is asked", async () => {
  await world.call("storePattern", { id: "p", trigger: "two workers", success_rate: 0, uses: 0 });
  await Promise.all(
    Array.from({ length: 60 }, (_, n) => world.call("updatePatternStats", { id: "p", success: n % 2 === 0 })),
  );
  const { pattern } = await world.call("findPattern", { trigger: "two workers" });
  expect(pattern).toMatchObject({ uses: 60 });
  expect(pattern?.success_rate).toBeCloseTo(0.5, 9);
  expect((await answered("update_pattern_stats")).every((calls) => calls > 0)).toBe(true);
});

verifies(
  "log-is-truth",
  "memory: a rebuild by one worker brings back what the other one had not logged yet",
  async () => {
    const ids = Array.from({ length: 40 }, (_, n) => `unlogged-${n}`);
    for (const id of ids) await world.call("pushEvent", { id, category: "unlogged" });
    await world.call("updateMetric", { key: "unlogged", value: 7 });
    const request = JSON.stringify({ what: ["hot"] });
    for await (const _ of openStream(world.caller, REBUILD_SUBJECT, request, { timeoutMs: 60_000 }));
    await until(async () => {
      const { events } = await world.call("getRecentEvents", { count: -1, category: "unlogged" });
      return new Set(events.map(({ id }) => id)).size === ids.length && events.length === ids.length;
    }, "every event");
    expect((await answered("push_event")).every((calls) => calls > 0)).toBe(true);
    await until(() => world.call("getMetric", { key: "unlogged" }).then(({ value }) => value === 7), "the metric");
  },
);
