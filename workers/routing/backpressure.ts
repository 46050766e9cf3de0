/** Backpressure status (BeamLine, backpressure): how loaded an intake subject is, and what a refused client should do. */
import type { Load, LoadFigures } from "./ports.ts";

/** Beyond these a figure counts as overload. */
export const thresholds = { queue_overload: 1_000, latency_overload_ms: 5_000, inflight_overload: 500 } as const;
const advice = { retry_after_seconds: 30, max_retry_attempts: 3 } as const;

export type LoadStatus = "active" | "warning" | "inactive" | "unknown";

/** Two figures beyond their threshold are `active`, one is `warning`, none `inactive`; nothing measured is `unknown`. */
export function statusOf(figures: LoadFigures | undefined): LoadStatus {
  if (figures === undefined) return "unknown";
  const over = [
    figures.pendingMessages > thresholds.queue_overload,
    figures.latencyP95Ms > thresholds.latency_overload_ms,
    figures.inflightMessages > thresholds.inflight_overload,
  ].filter(Boolean).length;
  return over >= 2 ? "active" : over === 1 ? "warning" : "inactive";
}

export async function backpressureStatus(asked: unknown, load: Load, timestamp: number): Promise<object> {
  if (asked !== undefined && asked !== null && typeof asked !== "string")
    return { success: false, error: "subject must be a string" };
  const subject = asked === undefined || asked === null || asked === "" ? "beamline.router.v1.decide" : asked;
  const figures = await load.measure(subject);
  const metrics = {
    pending_messages: figures?.pendingMessages ?? 0,
    latency_p95_ms: figures?.latencyP95Ms ?? 0,
    inflight_messages: figures?.inflightMessages ?? 0,
  };
  return {
    success: true,
    data: { subject, status: statusOf(figures), metrics, thresholds, policy: advice, timestamp },
  };
}
