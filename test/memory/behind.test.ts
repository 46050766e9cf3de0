/** The log written behind, when the log cannot be written for a while. */
import { afterAll, beforeAll, expect } from "vitest";
import { ensureBuckets, ensureStreams } from "../../bus/streams.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import type { Arrival } from "../../workers/memory/arrival.ts";
import { Behind } from "../../workers/memory/hot/behind.ts";
import { MemoryLog } from "../../workers/memory/log.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { startTestNats, type TestNats } from "../kit/servers.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";

let nats: TestNats;
let log: Slow;

/** A log whose first write of a tenant's events is under way until it is let go. */
class Slow extends MemoryLog {
  held: { readonly tenant: string; readonly begun: () => void; readonly end: Promise<void> } | undefined;

  override async appendRecent(tenant: string, events: readonly Arrival[]): Promise<number> {
    const { held } = this;
    if (held?.tenant === tenant) {
      this.held = undefined;
      held.begun();
      await held.end;
    }
    return super.appendRecent(tenant, events);
  }
}

beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  const bus = await nats.connect("memory behind test");
  await ensureStreams(bus, memoryWorker.streams ?? []);
  await ensureBuckets(bus, memoryWorker.buckets ?? []);
  log = new Slow(bus);
}, 60_000);
afterAll(() => nats?.stop());

const never = new AbortController().signal;

function behind(): Behind {
  return new Behind(log, systemClock, silentLogger, { everyMs: 1 });
}

function event(tenant: string): Arrival {
  const at = systemClock.micros();
  return { tenant, at, critical: false, entry: `{"id":"${at}","timestamp":1}` };
}

/** The next write of a tenant's events is held; `end` lets it go, or makes it fail. */
function hold(tenant: string): { readonly begun: Promise<void>; readonly end: PromiseWithResolvers<void> } {
  const [begun, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  end.promise.catch(() => undefined);
  log.held = { tenant, begun: begun.resolve, end: end.promise };
  return { begun: begun.promise, end };
}

async function logged(tenant: string): Promise<number> {
  let count = 0;
  for await (const { text } of log.read({ stream: "MEMORY_RECENT", subjects: [`log.memory.recent.${tenant}`] }))
    count += (JSON.parse(text) as { events: unknown[] }).events.length;
  return count;
}

verifies("acked-is-durable", "memory W3: flushed is what was under way, too", async () => {
  const written = behind();
  const { begun, end } = hold("under-way");
  written.add([event("under-way")], []);
  await begun;
  let flushed = false;
  const flushing = written.flush().then(() => (flushed = true));
  await log.bounds("MEMORY_RECENT"); // a round trip later
  expect(flushed).toBe(false);
  end.resolve();
  await flushing;
  expect(await logged("under-way")).toBe(1);
  await written.close(never);
});

verifies(
  "acked-is-durable",
  "memory W3: events whose write fails while others are flushed are logged later, and no flush waits for ever",
  async () => {
    const written = behind();
    const { begun, end } = hold("first");
    written.add([event("first")], []);
    await begun;
    written.add([event("second")], []);
    const flushing = written.flush().catch(() => undefined);
    await log.bounds("MEMORY_RECENT");
    end.reject(new BeamlineError("unavailable", "the connection was lost"));
    await flushing;
    await until(() => written.size === 0, "everything to be logged");
    expect([await logged("first"), await logged("second")]).toEqual([1, 1]);
    await written.close(never);
  },
);

verifies(
  "crash-safe",
  "memory W2: a worker that stops while the bus is away logs what is left once it is back",
  async () => {
    const written = behind();
    await nats.server.kill();
    written.add([event("last")], []);
    await Promise.all([written.close(never), nats.server.restart()]);
    expect(await logged("last")).toBe(1);
  },
);

verifies("crash-safe", "memory W2: a worker that stops while the bus stays away stops in time", async () => {
  const written = behind();
  await nats.server.kill();
  written.add([event("lost")], []);
  const late = new AbortController();
  const closing = expect(written.close(late.signal)).rejects.toMatchObject({ code: "unavailable" });
  late.abort();
  await closing;
  await nats.server.restart();
});
