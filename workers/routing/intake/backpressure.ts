/** Backpressure status (BeamLine, backpressure): how loaded an intake subject is, and what a refused client should do. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { isObject } from "../policies/fields.ts";
import type { Load, LoadFigures } from "../ports.ts";

/** Beyond these a figure counts as overload. */
export const thresholds = { queue_overload: 1_000, latency_overload_ms: 5_000, inflight_overload: 500 } as const;
const advice = { retry_after_seconds: 30, max_retry_attempts: 3 } as const;

export type LoadStatus = "active" | "warning" | "inactive" | "unknown";

/** Two figures beyond their threshold are `active`, one is `warning`, none `inactive`; nothing measured is `unknown`. */
export function statusOf(figures: LoadFigures | undefined): LoadStatus {
  if (figures === undefined) return "unknown";
  const over = overIn(figures).length;
  return over >= 2 ? "active" : over === 1 ? "warning" : "inactive";
}

/** Names of the figures beyond their threshold. */
export function overIn({ pendingMessages, latencyP95Ms, inflightMessages }: LoadFigures): string[] {
  return [
    pendingMessages > thresholds.queue_overload ? "queue" : "",
    latencyP95Ms > thresholds.latency_overload_ms ? "latency" : "",
    inflightMessages > thresholds.inflight_overload ? "inflight" : "",
  ].filter((name) => name !== "");
}

/** What a request is told while backpressure is active (BeamLine, status mapping; choice 16). */
export function overloaded(): BeamlineError {
  return new BeamlineError("rate_limit_exceeded", "the router is overloaded: backpressure is active", {
    retryAfterSeconds: advice.retry_after_seconds,
    details: { scope: "backpressure" },
  });
}

/** How a question that cannot be answered is answered. */
export function noStatus(error: string): object {
  return { success: false, error };
}

/** The answer to a parsed request. */
export async function backpressureStatus(request: unknown, load: Load, timestamp: number): Promise<object> {
  if (!isObject(request)) return noStatus("the request must be a JSON object");
  const asked = request["subject"] ?? "";
  if (typeof asked !== "string") return noStatus("subject must be a string");
  const subject = asked === "" ? "beamline.router.v1.decide" : asked;
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
