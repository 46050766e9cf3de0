/**
 * What results say about providers, in the key-value bucket `provider_health`: key `<tenant>.<provider>` (as bus/keys writes it), value the
 * JSON below. Written by the usage workers a few times a second while results come in, watched by the routing workers, which decide
 * about circuits by the thresholds of their policies (BeamLine, circuit breaker).
 *
 * The counters only grow, so that a reader can look at any window by taking differences.
 */
import type { HealthOutcome } from "./catalogue.ts";

export interface ProviderHealth {
  readonly tenant_id: string;
  readonly provider_id: string;
  /** Moving average of the latency of successes and failures, milliseconds. */
  readonly latency_ms: number;
  /** Moving average of failure, 0 to 1. */
  readonly error_rate: number;
  /** Moving average of the cost of a success, US dollars. */
  readonly cost: number;
  /** Results counted since the record was made; ignored ones are not among them. */
  readonly successes: number;
  readonly failures: number;
  /** Failures since the last success, and the other way round. */
  readonly consecutive_failures: number;
  readonly consecutive_successes: number;
  /** Epoch milliseconds; 0 for never. */
  readonly last_success_ms: number;
  readonly last_failure_ms: number;
  /** Of the last failure. */
  readonly last_error_code: string;
  readonly updated_at_ms: number;
}

export interface Observation {
  readonly outcome: Exclude<HealthOutcome, "ignored">;
  readonly latency_ms: number;
  /** US dollars. */
  readonly cost: number;
  readonly error_code: string;
  /** Epoch milliseconds. */
  readonly at_ms: number;
}

/** Weight of a new observation in the averages. */
export const ALPHA = 0.2;

/** The record after one more result; `undefined` before the first. */
export function observe(
  health: ProviderHealth | undefined,
  tenant_id: string,
  provider_id: string,
  seen: Observation,
): ProviderHealth {
  const before = health ?? { ...nothing, tenant_id, provider_id };
  const failed = seen.outcome === "failure";
  const samples = before.successes + before.failures;
  const mean = (old: number, now: number, count: number): number => (count === 0 ? now : old + ALPHA * (now - old));
  return {
    tenant_id,
    provider_id,
    latency_ms: mean(before.latency_ms, seen.latency_ms, samples),
    error_rate: mean(before.error_rate, failed ? 1 : 0, samples),
    cost: failed ? before.cost : mean(before.cost, seen.cost, before.successes),
    successes: before.successes + (failed ? 0 : 1),
    failures: before.failures + (failed ? 1 : 0),
    consecutive_failures: failed ? before.consecutive_failures + 1 : 0,
    consecutive_successes: failed ? 0 : before.consecutive_successes + 1,
    last_success_ms: failed ? before.last_success_ms : seen.at_ms,
    last_failure_ms: failed ? seen.at_ms : before.last_failure_ms,
    last_error_code: failed ? seen.error_code : before.last_error_code,
    updated_at_ms: seen.at_ms,
  };
}

const nothing = {
  latency_ms: 0,
  error_rate: 0,
  cost: 0,
  successes: 0,
  failures: 0,
  consecutive_failures: 0,
  consecutive_successes: 0,
  last_success_ms: 0,
  last_failure_ms: 0,
  last_error_code: "",
  updated_at_ms: 0,
};
