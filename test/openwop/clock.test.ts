/** Timers while the clock of a worker's machine is set forward and back: the server that keeps them decides when their time has come. */
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startHost, type Host } from "./host.ts";
import { node, workflow } from "./workflow.kit.ts";

const HOUR = 3_600_000;
/** Longer than a worker waits by itself: what comes after is a timer of the server. */
const PARKED_MS = 3_000;

let host: Host;
beforeAll(async () => {
  host = await startHost();
  const nodes = {
    delayed: node("wait", "core.delay", { ms: PARKED_MS }),
    gated: node("gate", "core.approvalGate", { title: "?", timeoutMs: PARKED_MS }),
    quick: node("wait", "core.delay", { ms: 700 }),
  };
  for (const [id, only] of Object.entries(nodes))
    expect((await host.rest("PUT", `/v1/workflows/${id}`, workflow(id, [only]))).status).toBe(201);
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());
afterEach(() => vi.restoreAllMocks());

/** The clock of this process, which workers and edge share here, from now on off by so much. The server has its own. */
function setClock(byMs: number): void {
  vi.restoreAllMocks();
  const real = Date.now.bind(Date);
  vi.spyOn(Date, "now").mockImplementation(() => real() + byMs);
}

/** Starts a run and waits until the server has its timer. */
async function parked(workflowId: string): Promise<string> {
  const runId = await host.start(workflowId);
  await until(async () => (await timersOf(runId)) > 0, "the timer");
  return runId;
}

/** Timers that are set for a run, or have fired. */
async function timersOf(runId: string): Promise<number> {
  const { state } = await host.bed.bus.jsm.streams.info("RUNS", { subjects_filter: "sched.runs.timer.>" });
  const fired = await host.bed.bus.jsm.streams.info("RUNS", { subjects_filter: `log.run_nudge.acme.${runId}` });
  const counts = [...Object.values(state.subjects ?? {}), ...Object.values(fired.state.subjects ?? {})];
  return counts.reduce((sum, count) => sum + count, 0);
}

function orderly(events: readonly RunEvent[]): void {
  const times = events.map(({ timestamp }) => timestamp);
  expect(times).toEqual(times.toSorted());
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, at) => at));
}

for (const [how, byMs] of [
  ["back", -HOUR],
  ["forward", HOUR],
] as const) {
  test(`a delay ends at its time when the clock is set ${how} meanwhile, and nobody runs in circles`, async () => {
    const began = performance.now();
    const runId = await parked("delayed");
    setClock(byMs);
    await host.reaches(runId, "completed");
    expect(performance.now() - began).toBeGreaterThanOrEqual(PARKED_MS - 100);
    expect(await timersOf(runId)).toBeLessThanOrEqual(2);
    orderly(await host.events(runId));
  });

  verifies("clear-failure", `an approval fails closed when the clock is set ${how} meanwhile`, async () => {
    const runId = await parked("gated");
    setClock(byMs);
    const { error } = await host.reaches(runId, "failed");
    expect(error).toMatchObject({ code: "approval_rejected", details: { reason: "timeout" } });
    orderly(await host.events(runId));
    const late = await host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: { action: "accept" } });
    expect([late.status, late.body.error]).toEqual([409, "interrupt_already_resolved"]);
  });

  test(`a short wait ends when the clock is set ${how} meanwhile`, async () => {
    const runId = await host.start("quick");
    await until(async () => (await host.events(runId)).some(({ type }) => type === "node.started"), "the wait");
    setClock(byMs);
    await host.reaches(runId, "completed");
    orderly(await host.events(runId));
  });
}

verifies(
  "clear-failure",
  "an answer after the deadline is none, also before anybody has noticed that it is over",
  async () => {
    const runId = await parked("gated");
    setClock(PARKED_MS);
    const late = await host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: { action: "accept" } });
    expect([late.status, late.body.error]).toEqual([410, "interrupt_expired"]);
    const { error } = await host.reaches(runId, "failed");
    expect(error.code).toBe("approval_rejected");
  },
);
