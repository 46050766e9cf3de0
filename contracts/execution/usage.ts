/** What a job used, for billing (BeamLine, usage event). */
import type { JsonObject } from "../codec.ts";
import { largest, type Result } from "./result.ts";

/** A usage event as plain data, keys as they go over the wire. */
export interface Usage {
  readonly version: "1";
  readonly tenant_id: string;
  readonly provider_id: string;
  /** Type of the job. */
  readonly event_type: string;
  readonly latency_ms: number;
  /** US dollars. */
  readonly cost: number;
  readonly status: string;
  /** Epoch milliseconds. */
  readonly timestamp: number;
  readonly trace_id?: string;
  readonly assignment_id?: string;
  readonly request_id?: string;
}

/** The usage of a result, whatever its status. */
export function usageOf(result: Result): Usage {
  const { tenant_id, provider_id, job, latency_ms, cost, status, timestamp, trace_id, assignment_id, request_id } =
    result;
  return {
    version: "1",
    tenant_id,
    provider_id,
    event_type: job.type,
    latency_ms,
    cost,
    status,
    timestamp,
    ...(trace_id !== "" && { trace_id }),
    ...(assignment_id !== "" && { assignment_id }),
    ...(request_id !== "" && { request_id }),
  };
}

/** Integer micro-dollars of an amount in dollars, half up. */
export function microsOf(dollars: number): number {
  return Math.round(dollars * 1_000_000);
}

/** Dollars of integer micro-dollars. */
export function dollarsOf(micros: number): number {
  return micros / 1_000_000;
}

/**
 * What of a parsed event the totals are made of; undefined when it is not a usage event. A figure below nothing counts as nothing, one beyond the
 * largest as that: one event that no sum can hold must not stop all that come after it.
 */
export function meteredIn(
  body: JsonObject,
): { tenant: string; provider: string; day: string; status: string; latencyMs: number; micros: number } | undefined {
  const { tenant_id, provider_id, status, timestamp, cost, latency_ms } = body;
  if (typeof tenant_id !== "string" || typeof provider_id !== "string" || typeof timestamp !== "number")
    return undefined;
  const day = new Date(timestamp);
  if (Number.isNaN(day.getTime())) return undefined;
  return {
    tenant: tenant_id,
    provider: provider_id,
    day: day.toISOString().slice(0, 10),
    status: typeof status === "string" ? status : "unknown",
    latencyMs: Math.round(within(latency_ms, largest.latency_ms)),
    micros: microsOf(within(cost, largest.cost)),
  };
}

function within(given: unknown, most: number): number {
  return typeof given === "number" ? Math.max(0, Math.min(given, most)) : 0;
}
