/** What time does to a run: limits, deadlines, and when to look next. Pure. */
import { numberOr } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import type { ErrorData, RunState } from "../../../contracts/openwop/state.ts";
import type { WorkflowDefinition } from "../../../contracts/openwop/workflow.ts";
import { TIMED_OUT } from "../nodes/gates.ts";
import { isUnsettled } from "./plan.ts";
import { firesAt } from "./triggers.ts";

/** Limits of the host (OpenWOP, discovery `limits`). */
export interface Limits {
  readonly maxNodeExecutions: number;
  /** Milliseconds; 0 is none. */
  readonly maxRunDurationMs: number;
  readonly maxLoopIterations: number;
}

/** Limits of one run: the host's, tightened by its workflow and its caller. */
export interface RunLimits {
  readonly nodeExecutions: number;
  /** Milliseconds; Infinity is none. */
  readonly durationMs: number;
  /** Turns of a loop that a supervisor or a `core.loop` leads. */
  readonly loopIterations: number;
  /** How often an edge with a condition may lead back: a loop of changes asked for. */
  readonly loopbacks: number;
}

/** The contract's default of `settings.maxLoopbackIterations`. */
const DEFAULT_LOOPBACKS = 5;

export function limitsOf({ record }: RunState, { settings }: WorkflowDefinition, host: Limits): RunLimits {
  const { recursionLimit, runTimeoutMs, maxLoopIterations } = record.configurable;
  const positive = (value: unknown): number => (typeof value === "number" && value > 0 ? value : Infinity);
  return {
    nodeExecutions: Math.min(host.maxNodeExecutions, positive(recursionLimit)),
    durationMs: Math.min(positive(host.maxRunDurationMs), positive(runTimeoutMs), positive(settings.timeout)),
    loopIterations: Math.min(host.maxLoopIterations, positive(maxLoopIterations)),
    loopbacks: settings.maxLoopbackIterations ?? DEFAULT_LOOPBACKS,
  };
}

/** The end of a run that took too long. */
export function breach(
  state: RunState,
  { durationMs }: RunLimits,
  now: number,
): { event: NewEvent; error: ErrorData } | undefined {
  if (state.startedAt === "" || durationMs === Infinity) return undefined;
  const observed = now - beganAt(state);
  if (observed <= durationMs) return undefined;
  return {
    event: { type: "cap.breached", payload: { kind: "run-duration", limit: durationMs, observed } },
    error: { code: "run_timeout", message: `the run took longer than ${durationMs} ms` },
  };
}

/** Epoch milliseconds its duration counts from: a fork's own beginning, not that of the run whose history it has. */
function beganAt({ startedAt, record }: RunState): number {
  return Date.parse(record.fork?.at ?? startedAt);
}

/** Answers questions nobody answered in time: they fail closed (OpenWOP, resolution). */
export function expireInterrupts(state: RunState, now: number): NewEvent[] {
  const events: NewEvent[] = [];
  for (const interrupt of state.interrupts.values()) {
    const { status, timeoutMs, requestedAt, nodeId, interruptId, kind } = interrupt;
    if (status !== "pending" || timeoutMs === undefined || Date.parse(requestedAt) + timeoutMs > now) continue;
    const decidedAt = new Date(now).toISOString();
    if (kind === "approval")
      events.push({
        type: "approval.received",
        nodeId,
        payload: { nodeId, interruptId, action: "timeout", decidedBy: TIMED_OUT.decidedBy, decidedAt },
      });
    events.push(
      {
        type: "interrupt.resolved",
        nodeId,
        payload: {
          nodeId,
          interruptId,
          kind,
          resumeValue: TIMED_OUT,
          resolvedBy: TIMED_OUT.decidedBy,
          resolvedAt: decidedAt,
        },
      },
      { type: "node.resumed", nodeId, payload: { nodeId, interruptId, resumeValue: TIMED_OUT } },
    );
  }
  return events;
}

/** The next time something comes due, epoch milliseconds. `others` are times nodes asked for. */
export function dueAt(state: RunState, limits: RunLimits, others: Iterable<number>): number | undefined {
  if (state.status !== "running") return undefined;
  let due = Math.min(...others);
  // A run that is being paused starts nothing any more.
  if (state.pausing === undefined) {
    for (const { status, retryAt } of state.nodes.values())
      if (status === "retrying" && retryAt !== undefined) due = Math.min(due, Date.parse(retryAt));
    for (const nodeId of state.fires.keys())
      if (!isUnsettled(state.nodes.get(nodeId))) due = Math.min(due, firesAt(state, nodeId));
  }
  for (const { status, timeoutMs, requestedAt } of state.interrupts.values()) {
    if (status === "pending" && timeoutMs !== undefined) due = Math.min(due, Date.parse(requestedAt) + timeoutMs);
  }
  if (limits.durationMs !== Infinity) due = Math.min(due, beganAt(state) + limits.durationMs + 1);
  return Number.isFinite(due) ? due : undefined;
}

/** How long a node may run, milliseconds; Infinity is for ever. */
export function nodeTimeout(settings: Readonly<Record<string, unknown>> | undefined): number {
  const ms = numberOr(settings?.["timeoutMs"], numberOr(settings?.["timeout"], 0));
  return ms > 0 ? ms : Infinity;
}
