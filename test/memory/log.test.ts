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
