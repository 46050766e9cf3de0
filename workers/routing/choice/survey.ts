/** Which candidates can be used for a request, what each is expected to take and cost, and why the others cannot. */
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Candidate, Policy } from "../policies/compile.ts";
import { fact, numberFact, numberOf, type Facts } from "../policies/match.ts";
import type { ProviderHealth } from "../ports.ts";

/** Expected figures of a provider nobody knows anything about (BeamLine, reason vocabulary). */
export const UNKNOWN = { latencyMs: 500, cost: 0.01 } as const;

export interface Expected {
  /** Whole milliseconds. */
  readonly latencyMs: number;
  /** US dollars. */
  readonly cost: number;
}

export interface Survey {
  /** By candidate; undefined when all can be used. */
  readonly usable: readonly boolean[] | undefined;
  /** By candidate: why it cannot be used. */
  readonly losses: readonly (string | undefined)[];
}

/** What the caller will put up with, from `constraints` or the context. Throws `invalid_request` for something that is not a limit. */
export interface Constraints {
  readonly maxLatencyMs: number;
  readonly maxCost: number;
}

export function constraintsOf(facts: Facts): Constraints {
  return { maxLatencyMs: limit(facts, "max_latency_ms"), maxCost: limit(facts, "max_cost") };
}

function limit(facts: Facts, name: string): number {
  const value = fact(facts, name);
  if (value === undefined || value === "") return Infinity;
  const number = numberOf(value);
  if (number !== undefined && number >= 0) return number;
  throw new BeamlineError("invalid_request", `Schema validation failed: ${name} must be a number of at least 0`, {
    field: name,
    details: { type: "invalid_value" },
    intakeErrorCode: "SCHEMA_VALIDATION_FAILED",
  });
}

/**
 * Looks at every candidate. One that was never measured and of which the policy says nothing is within any limit: nothing is known against it.
 * With a circuit breaker in the policy only providers whose circuit lets a call through can be used; no trial call is taken here.
 */
export function survey(policy: Policy, facts: Facts, health: ProviderHealth): Survey {
  const { maxLatencyMs, maxCost } = constraintsOf(facts);
  const free = maxLatencyMs === Infinity && maxCost === Infinity && policy.breaker === undefined;
  const losses = policy.candidates.map((candidate) => {
    if (!isUsable(policy, candidate.id, facts, health)) return "circuit open";
    if (free) return undefined;
    const measured = health.estimate(facts.tenant, candidate.id);
    const latencyMs = measured?.latencyMs ?? candidate.latencyMs;
    if (latencyMs !== undefined && latencyMs > maxLatencyMs)
      return `expected latency ${Math.round(latencyMs)} ms is over ${maxLatencyMs} ms`;
    const cost = measured?.cost ?? candidate.cost;
    if (cost !== undefined && cost > maxCost) return `expected cost ${cost} is over ${maxCost}`;
    return undefined;
  });
  return {
    losses,
    usable: losses.every((loss) => loss === undefined) ? undefined : losses.map((loss) => loss === undefined),
  };
}

/** Whether the provider's circuit, when the policy has a breaker, lets a call through. */
export function isUsable({ breaker }: Policy, provider: string, { tenant }: Facts, health: ProviderHealth): boolean {
  return breaker === undefined || health.admit(tenant, provider, breaker, true);
}

/** Tells the provider's circuit, when the policy has a breaker, that a call is about to be made. */
export function claim({ breaker }: Policy, provider: string, { tenant }: Facts, health: ProviderHealth): void {
  if (breaker !== undefined) health.admit(tenant, provider, breaker, false);
}

/**
 * What a call is expected to take and cost: what the caller says, else what was measured, else what the policy says, else the defaults. A time that
 * the contract's number cannot hold is the largest it can.
 */
export function expectedOf(policy: Policy, provider: string, facts: Facts, health: ProviderHealth): Expected {
  const measured = health.estimate(facts.tenant, provider);
  const candidate: Candidate | undefined = policy.candidates.find(({ id }) => id === provider);
  const latencyMs =
    hint(facts, "expected_latency_ms") ?? measured?.latencyMs ?? candidate?.latencyMs ?? UNKNOWN.latencyMs;
  return {
    latencyMs: Math.min(Math.round(latencyMs), Number.MAX_SAFE_INTEGER),
    cost: hint(facts, "expected_cost") ?? measured?.cost ?? candidate?.cost ?? UNKNOWN.cost,
  };
}

function hint(facts: Facts, name: string): number | undefined {
  const value = numberFact(facts, name);
  return value !== undefined && value >= 0 && value <= Number.MAX_SAFE_INTEGER ? value : undefined;
}
