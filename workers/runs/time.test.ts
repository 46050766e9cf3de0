/** Time that passes and clocks that jump: retention of keys, timestamps of a log, deadlines. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { ensureBuckets, ensureStreams } from "../../bus/streams.ts";
import { foldEntry } from "../../contracts/openwop/fold.ts";
import type { NewEvent, RunRecord } from "../../contracts/openwop/log.ts";
import { runRecord } from "../../test/kit/runrecord.ts";
import type { RunState } from "../../contracts/openwop/state.ts";
import { buckets, streams } from "../../contracts/streams.ts";
import { systemClock, type Clock } from "../../runtime/clock.ts";
import { systemIds } from "../../runtime/ids.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import type { Answer, Asker } from "./caller.ts";
import { breach, dueAt, expireInterrupts } from "./engine/due.ts";
import { Idempotency, type IdempotencyRecord } from "./idempotency.ts";
import { RunLog } from "./log.ts";
import { Records } from "./records.ts";
import { Session } from "./engine/session.ts";

const HOUR = 3_600_000;

/** A clock whose wall time is set by hand; waiting goes on as ever. */
class SetClock implements Clock {
  at = Date.UTC(2026, 5, 1);
  now = (): number => this.at;
  micros = (): number => this.at * 1_000;
  monotonic = (): number => systemClock.monotonic();
  sleep = (ms: number, signal?: AbortSignal): Promise<void> => systemClock.sleep(ms, signal);
}

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  bus = await nats.connect("worker-runs");
  await ensureStreams(bus, [streams.runs]);
  await ensureBuckets(bus, [buckets.runIdempotency]);
}, 60_000);
afterAll(() => nats.stop());

const asker: Asker = {
  tenant: "acme",
  principal: "tester",
  scopes: ["*"],
  traceparent: "",
  base: "",
  idempotencyKey: "key",
};

test("a key is remembered for its retention and not a moment longer", async () => {
  const clock = new SetClock();
  const records = new Records<IdempotencyRecord>(bus, buckets.runIdempotency);
  const idempotency = new Idempotency(records, "w", clock, systemIds, 24 * HOUR);
  let runs = 0;
  const call = (body: object): Promise<Answer> =>
    idempotency.once(asker, "runs.create", body, (id) => Promise.resolve({ status: 201, body: { id, run: ++runs } }));
  const first = await call({ a: 1 });
  clock.at += 23 * HOUR;
  const again = await call({ a: 1 });
  expect([again.body, again.headers?.["openwop-Idempotent-Replay"], runs]).toEqual([first.body, "true", 1]);
  await expect(call({ a: 2 })).rejects.toMatchObject({ code: "idempotency_key_mismatch" });
  clock.at -= 48 * HOUR;
  expect((await call({ a: 1 })).body).toEqual(first.body);
  clock.at += 49 * HOUR;
  const later = await call({ a: 2 });
  expect([runs, later.headers?.["openwop-Idempotent-Replay"]]).toEqual([2, "false"]);
  expect(later.body).not.toEqual(first.body);
});

const event = (type: string, nodeId?: string): NewEvent => ({
  type,
  payload: {},
  ...(nodeId !== undefined && { nodeId }),
});

test("the times of a log never go back, whoever writes with whatever clock", async () => {
  const clock = new SetClock();
  const log = new RunLog(bus, clock, systemIds);
  const runId = systemIds.v7();
  await log.create(runRecord(runId), [event("run.started")]);
  const session = await Session.open(log, "acme", runId);
  clock.at += HOUR;
  session?.emit(event("node.started", "a"));
  await session?.flush();
  clock.at -= 5 * HOUR;
  await log.extend(await log.get("acme", runId), [event("node.suspended", "a")]);
  session?.emit(event("node.started", "b"));
  await session?.flush();
  const taken = await Session.open(new RunLog(bus, clock, systemIds), "acme", runId);
  taken?.emit(event("run.resuming"));
  await taken?.flush();
  const times = (await log.events("acme", runId)).map(({ timestamp }) => timestamp);
  expect(times).toHaveLength(5);
  expect(times).toEqual(times.toSorted());
});

describe("deadlines", () => {
  const start = Date.UTC(2026, 5, 1);
  const iso = (ms: number): string => new Date(ms).toISOString();
  const asks = (fork?: Pick<RunRecord, "fork">): RunState => {
    const base = { eventId: "e", runId: "r", schemaVersion: 2, engineVersion: "1", timestamp: iso(start) };
    const data = { kind: "approval", key: "k", data: {}, timeoutMs: HOUR };
    return foldEntry(undefined, {
      run: { ...runRecord("r"), ...fork },
      events: [
        { ...base, type: "run.started", sequence: 0, payload: {} },
        { ...base, type: "node.started", nodeId: "gate", sequence: 1, payload: { nodeId: "gate" } },
        { ...base, type: "node.suspended", nodeId: "gate", sequence: 2, payload: { ...data, interruptId: "i" } },
        { ...base, type: "interrupt.requested", nodeId: "gate", sequence: 3, payload: { ...data, interruptId: "i" } },
      ],
    });
  };
  const limits = { nodeExecutions: 10, durationMs: 2 * HOUR, loopIterations: 10, loopbacks: 5 };

  test("a clock that goes back ends nothing, and waits for the same moment", () => {
    const state = asks();
    for (const now of [start, start - 24 * HOUR]) {
      expect(expireInterrupts(state, now)).toEqual([]);
      expect(breach(state, limits, now)).toBeUndefined();
    }
    expect(dueAt(state, limits, [])).toBe(start + HOUR);
  });

  test("a fork has its source's time to answer and to run, from its own beginning on", () => {
    const made = start + 365 * 24 * HOUR;
    const state = asks({
      fork: { sourceRunId: "s", fromSeq: 4, mode: "branch", effectsOf: "s", at: iso(made) },
    });
    expect(expireInterrupts(state, made)).toEqual([]);
    expect(breach(state, limits, made)).toBeUndefined();
    expect(dueAt(state, limits, [])).toBe(made + HOUR);
    expect(expireInterrupts(state, made + HOUR)).toHaveLength(3);
    expect(breach(state, limits, made + 3 * HOUR)?.event.payload).toMatchObject({ observed: 3 * HOUR });
  });

  test("a clock that jumps ahead fails closed: a refusal, never an approval, and a run that took too long", () => {
    const state = asks();
    const events = expireInterrupts(state, start + 365 * 24 * HOUR);
    expect(events.map(({ type }) => type)).toEqual(["approval.received", "interrupt.resolved", "node.resumed"]);
    expect(events[0]?.payload).toMatchObject({ action: "timeout" });
    expect(breach(state, limits, start + 365 * 24 * HOUR)?.error.code).toBe("run_timeout");
  });
});
