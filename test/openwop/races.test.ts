/** Answers, cancels and pauses racing over the same runs, on two workers: whatever the order, a log is whole and ends once. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { header } from "../../contracts/headers.ts";
import { TERMINAL_EVENTS } from "../../contracts/openwop/log.ts";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { readLog } from "../../edge/openwop/log.ts";
import { createSeededRandom } from "../../runtime/ids.ts";
import { startRunsBed, type RunsBed } from "../../workers/runs/testbed.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";

const seed = Number(process.env["RACES_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const RACES = Number(process.env["RACES"] ?? 1_000);
const headers = { [header.tenantId]: "acme", [header.principal]: "tester", [header.scopes]: "*" };

let bed: RunsBed;
beforeAll(async () => {
  bed = await startRunsBed({ OPENWOP_EGRESS_ALLOW: "127.0.0.1" }, 2);
}, 60_000);
afterAll(async () => bed[Symbol.asyncDispose]());

interface Told {
  readonly ok: boolean;
  readonly body: Record<string, unknown>;
}

async function ask(operation: string, params: object, body?: object): Promise<Told> {
  try {
    const reply = await bed.caller.request(
      `openwop.rest.v1.${operation}`,
      { params, body },
      { headers, timeoutMs: 15_000 },
    );
    return { ok: true, body: (reply as Told).body };
  } catch (thrown) {
    return { ok: false, body: { error: (thrown as { code: string }).code } };
  }
}

const eventsOf = async (runId: string): Promise<RunEvent[]> =>
  (await readLog(bed.bus, "acme", runId, 1)).entries.flatMap((entry) => entry.events);

test(`racing answers, cancels and pauses (seed ${seed}, ${RACES} runs)`, { timeout: 120_000 }, async () => {
  const random = createSeededRandom(seed);
  const one = async (): Promise<void> => {
    const runId = String((await ask("create_run", {}, { workflowId: "conformance-approval" })).body["runId"]);
    const answer = (action: string): Promise<Told> =>
      ask("resolve_interrupt", { runId, nodeId: "gate" }, { resumeValue: { action } });
    const moves: (() => Promise<Told>)[] = [
      () => answer("accept"),
      () => answer("reject"),
      () => answer("accept"),
      () => ask("cancel_run", { runId }),
      () => ask("pause_run", { runId }, { drainPolicy: "immediate" }),
      () => ask("resume_run", { runId }, {}),
    ];
    const picked = moves.filter(() => random.float() < 0.6).toSorted(() => random.float() - 0.5);
    if (random.float() < 0.7)
      await until(async () => (await eventsOf(runId)).some(({ type }) => type === "interrupt.requested"), "the gate");
    await Promise.all(picked.map((move) => move()));
    // Whatever is left open is closed now.
    await until(async () => {
      await ask("resume_run", { runId }, {});
      return (await ask("cancel_run", { runId })).ok;
    }, "a way out");
    const events = await until(async () => {
      const all = await eventsOf(runId);
      return all.some(({ type }) => TERMINAL_EVENTS.has(type)) && all;
    }, "the end");
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, at) => at));
    expect(events.filter(({ type }) => TERMINAL_EVENTS.has(type))).toHaveLength(1);
    expect(TERMINAL_EVENTS.has(events.at(-1)?.type ?? "")).toBe(true);
    expect(events.filter(({ type }) => type === "interrupt.resolved").length).toBeLessThanOrEqual(1);
    for (const [at, { type }] of events.entries())
      if (type === "run.paused")
        expect(["run.resumed", "node.cancelled", "run.cancelled"]).toContain(events[at + 1]?.type);
  };
  for (let at = 0; at < RACES; at += 20) await Promise.all(Array.from({ length: Math.min(20, RACES - at) }, one));
});

verifies("effect-once", "an effect whose outcome is not known is reported, not repeated", async () => {
  const { Invocations } = await import("../../workers/runs/engine/invocations.ts");
  const { Records } = await import("../../workers/runs/records.ts");
  const { buckets } = await import("../../contracts/streams.ts");
  const { systemClock } = await import("../../runtime/clock.ts");
  const bus = await bed.nats.connect("invocations");
  const make = (worker: string): InstanceType<typeof Invocations> =>
    new Invocations(new Records(bus, buckets.runInvocations), worker, systemClock, () => undefined);
  const record = { runId: "r1", owner: { tenant: "acme" } } as never;
  const never = new AbortController().signal;
  let calls = 0;
  const call = (
    by: InstanceType<typeof Invocations>,
    ordinal: number,
    idempotent: boolean,
    perform: () => Promise<number>,
  ): Promise<number> => by.once(record, "n", ordinal, 1, { provider: "p", idempotent }, perform, never);
  const counted = async (): Promise<number> => ++calls;
  expect(await call(make("a"), 0, false, counted)).toBe(1);
  expect(await call(make("b"), 0, false, counted)).toBe(1);
  // A worker that was cut off in the middle of it, and comes back under its own name.
  const cutOff = (): Promise<number> => Promise.reject(Object.assign(new Error("gone"), { name: "AbortError" }));
  await expect(call(make("a"), 1, false, cutOff)).rejects.toThrow();
  await expect(call(make("a"), 1, false, counted)).rejects.toThrow(/not known/);
  await expect(call(make("a"), 2, true, cutOff)).rejects.toThrow();
  expect(await call(make("a"), 2, true, counted)).toBe(2);
  expect(calls).toBe(2);
});

verifies("crash-safe", "a drained worker's runs go on elsewhere, and hot state may be lost", async () => {
  const third = await bed.startWorker();
  const ids = await Promise.all(
    Array.from({ length: 20 }, async () =>
      String(
        (await ask("create_run", {}, { workflowId: "conformance-delay", inputs: { delayMs: 600 } })).body["runId"],
      ),
    ),
  );
  await third.close();
  const { Redis } = await import("ioredis");
  const redis = new Redis(bed.redisUrl);
  await redis.flushall();
  await redis.quit();
  for (const runId of ids)
    await until(async () => (await ask("get_run", { runId })).body["status"] === "completed", "the end", 20_000);
});
