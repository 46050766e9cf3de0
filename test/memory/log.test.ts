/** The memory log as its readers use it. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureStreams } from "../../bus/streams.ts";
import { MemoryLog } from "../../workers/memory/log.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { startTestNats, type TestNats } from "../kit/servers.ts";

let nats: TestNats;
let log: MemoryLog;

beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  const bus = await nats.connect("memory log test");
  await ensureStreams(bus, memoryWorker.streams ?? []);
  log = new MemoryLog(bus);
});
afterAll(() => nats?.stop());

test("reading that is told to end while it begins ends: a worker stopped right after its start does not wait for it", async () => {
  const stop = new AbortController();
  const entries = log.read({ stream: "MEMORY", subjects: ["log.memory.>"], follow: true, signal: stop.signal });
  const first = entries.next();
  stop.abort();
  expect(await first).toEqual({ done: true, value: undefined });
});

test("a reader asks the server for a sign of life each second, since one that was restarted has forgotten it", async () => {
  const operator = await nats.connect("memory log watch", "operator");
  const asked = operator.nc.subscribe("$JS.API.CONSUMER.MSG.NEXT.MEMORY.>", { max: 1 });
  await operator.nc.flush();
  const stop = new AbortController();
  const entries = log.read({ stream: "MEMORY", subjects: ["log.memory.>"], follow: true, signal: stop.signal });
  const first = entries.next();
  // With the client's own 15 seconds searches waited for three quarters of a minute after the bus had come back.
  for await (const request of asked) expect(request.json()).toMatchObject({ idle_heartbeat: 1_000_000_000 });
  stop.abort();
  expect(await first).toEqual({ done: true, value: undefined });
});
