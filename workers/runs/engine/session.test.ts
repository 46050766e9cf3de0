/** Two engines on one run: the log tells who has it. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Bus } from "../../../bus/connect.ts";
import { ensureStreams } from "../../../bus/streams.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import { runRecord } from "../../../test/kit/runrecord.ts";
import { streams } from "../../../contracts/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { systemIds } from "../../../runtime/ids.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { RunLog } from "../log.ts";
import { RunLost, Session } from "./session.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  bus = await nats.connect("worker-runs");
  await ensureStreams(bus, [streams.runs]);
}, 60_000);
afterAll(() => nats.stop());

const started = (nodeId: string): NewEvent => ({ type: "node.started", nodeId, payload: { attempt: 0 } });

/** A run that was begun, as two engines that know only its beginning hold it. */
async function twice(): Promise<{ log: RunLog; runId: string; one: Session; other: Session }> {
  const log = new RunLog(bus, systemClock, systemIds);
  const record = runRecord(systemIds.v7());
  const first = await log.create(record, [{ type: "run.started", payload: {} }]);
  const open = async (): Promise<Session> => {
    const session = await Session.open(log, "acme", record.runId, first);
    if (session === undefined) throw new Error("no run");
    return session;
  };
  return { log, runId: record.runId, one: await open(), other: await open() };
}

const typesOf = async (log: RunLog, runId: string): Promise<string[]> =>
  (await log.events("acme", runId)).map(({ type, nodeId }) => `${type}:${nodeId ?? ""}`);

verifies("effect-once", "S4: what was planned on a log that another engine has moved on is not written", async () => {
  const { log, runId, one, other } = await twice();
  one.emit(started("effect"));
  await one.flush();
  other.emit(started("effect"));
  await expect(other.flush()).rejects.toBeInstanceOf(RunLost);
  await other.flush();
  expect(await typesOf(log, runId)).toEqual(["run.started:", "node.started:effect"]);
});

verifies("effect-once", "S3: nothing is put behind a pause; it is planned anew when the run goes on", async () => {
  const { log, runId, one } = await twice();
  one.emit(started("a"));
  await log.extend(await log.get("acme", runId), [{ type: "run.paused", payload: {} }]);
  await one.flush();
  expect([one.state.status, one.state.nodes.size, one.unwritten]).toEqual(["paused", 0, 0]);
  await log.extend(await log.get("acme", runId), [{ type: "run.resumed", payload: {} }]);
  expect(await typesOf(log, runId)).toEqual(["run.started:", "run.paused:", "run.resumed:"]);
});

test("S3: what others wrote in between comes first", async () => {
  const { log, runId, one } = await twice();
  one.emit(started("a"));
  await log.extend(await log.get("acme", runId), [{ type: "log.appended", payload: {} }]);
  await one.flush();
  expect(await typesOf(log, runId)).toEqual(["run.started:", "log.appended:", "node.started:a"]);
  expect(one.state.sequence).toBe(2);
});

test("S2: what is too large for one append becomes several, and what was emitted together is in one", async () => {
  const { log, runId, one } = await twice();
  const large = (nodeId: string): NewEvent[] => [
    { type: "variable.changed", nodeId, payload: { name: nodeId, next: "x".repeat(3_000_000), nodeId } },
    { type: "node.completed", nodeId, payload: { nodeId, outputs: {} } },
  ];
  const names = ["a", "b", "c", "d", "e"];
  for (const name of names) one.emit(...large(name));
  expect(one.unwritten).toBe(5);
  await one.flush();
  expect(one.unwritten).toBe(0);
  const stored = await log.read("acme", runId, 1);
  expect(stored.flatMap(({ entry }) => entry.events).map(({ sequence }) => sequence)).toEqual(
    Array.from({ length: 11 }, (_, sequence) => sequence),
  );
  expect(stored.length).toBeGreaterThan(2);
  for (const { entry } of stored.slice(1)) expect(entry.events.length % 2).toBe(0);
  await expect(async () => {
    one.emit(...large("f"), ...large("g"), ...large("h"));
    await one.flush();
  }).rejects.toMatchObject({ code: "message_too_large" });
});
