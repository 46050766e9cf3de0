/** A policy document made ready for deciding: defaults filled in, weights on one scale, conditions as functions. Done once per stored revision. */
import { createHash } from "node:crypto";
import type { JsonObject } from "../../../contracts/codec.ts";
import { compileWhen, type Condition } from "./match.ts";
import type { Algorithm, Backoff, BreakerEntry, FallbackEntry, PolicyDocument, StickyEntry } from "./policy.ts";
import { Recent } from "../shared/recent.ts";
import { RoundRobin } from "../choice/select.ts";

export interface Candidate {
  readonly id: string;
  /** 0 to 1; relative to the others, never normalised. */
  readonly weight: number;
  readonly priority: number;
  /** What the policy says the provider takes and costs; undefined when it says nothing. */
  readonly latencyMs: number | undefined;
  readonly cost: number | undefined;
}

export interface Rule {
  /** The same for the same rule on every worker and after every restart. */
  readonly id: string;
  readonly matches: Condition;
  readonly prefer: readonly string[];
  readonly to: string | undefined;
  readonly retry: number;
  readonly backoff: Required<Backoff>;
}

export interface Sticky {
  readonly sessionKey: string;
  readonly ttlMs: number;
}

export interface RateLimit {
  readonly perSecond: number;
  readonly burst: number;
}

export type Breaker = Required<Omit<BreakerEntry, "enabled">>;

/** One tenant's policy, ready for deciding. The only thing in it that changes is whose turn it is. */
export interface Policy {
  readonly tenant: string;
  readonly id: string;
  readonly revision: number;
  readonly document: PolicyDocument;
  readonly candidates: readonly Candidate[];
  readonly candidateIds: readonly string[];
  /** Whose turn it is. A shared policy has turns for each tenant, so that none upsets another's shares. */
  readonly turns: (tenant: string) => RoundRobin;
  readonly algorithm: Algorithm;
  readonly rules: readonly Rule[];
  /** Provider of the legacy `fallback`, asked last and whatever the context says. */
  readonly lastResort: string | undefined;
  readonly sticky: Sticky | undefined;
  readonly rateLimit: RateLimit | undefined;
  readonly breaker: Breaker | undefined;
  /** Whether the policy has extensions to call. */
  readonly pipeline: boolean;
  /** Whoever is chosen is chosen by turns: no circuit breaker, no extensions, no other algorithm. */
  readonly byTurns: boolean;
}

export interface PolicyName {
  readonly tenant: string;
  readonly id: string;
  readonly revision: number;
}

export function compilePolicy({ tenant, id, revision }: PolicyName, document: PolicyDocument): Policy {
  const candidates = candidatesOf(document);
  const sticky = document.sticky?.enabled === true ? stickyOf(document.sticky) : undefined;
  const { rate_limit: limit } = document;
  const rateLimit =
    limit?.enabled === true ? { perSecond: limit.requests_per_second ?? 100, burst: limit.burst ?? 50 } : undefined;
  const breaker = document.circuit_breaker?.enabled === true ? breakerOf(document.circuit_breaker) : undefined;
  const pipeline = [document.pre, document.validators, document.post].some((items) => (items?.length ?? 0) > 0);
  const algorithm = (document.defaults?.["algorithm"] ?? "weighted_round_robin") as Algorithm;
  const byTurns =
    breaker === undefined &&
    !pipeline &&
    algorithm === "weighted_round_robin" &&
    document.defaults?.["affinity_key"] === undefined;
  return {
    tenant,
    id,
    revision,
    document,
    candidates,
    candidateIds: candidates.map((one) => one.id),
    turns: turnsOf(tenant, candidates),
    algorithm,
    rules: rulesOf(document),
    lastResort: document.fallback?.provider,
    sticky,
    rateLimit,
    breaker,
    pipeline,
    byTurns,
  };
}

/** Tenants of a shared policy whose turns are kept at least; who is forgotten begins anew. */
const MAX_TENANTS = 10_000;

function turnsOf(owner: string, candidates: readonly Candidate[]): Policy["turns"] {
  const own = new RoundRobin(candidates);
  const others = new Recent<RoundRobin>(MAX_TENANTS);
  return (tenant) => {
    if (tenant === owner || candidates.length < 2) return own;
    let turns = others.get(tenant);
    if (turns === undefined) others.set(tenant, (turns = new RoundRobin(candidates)));
    return turns;
  };
}

/** The providers of a document with their weights as fractions, in the order written. */
export function candidatesOf({ providers, weights }: PolicyDocument): Candidate[] {
  if (providers === undefined) {
    const entries = Object.entries(weights ?? {});
    const percent = entries.some(([, weight]) => weight > 1);
    return entries.map(([id, weight]) => ({
      id,
      weight: percent ? weight / 100 : weight,
      priority: 0,
      latencyMs: undefined,
      cost: undefined,
    }));
  }
  const fractions = providers.some(({ weight }) => !Number.isInteger(weight));
  return providers.map(({ name, weight, priority, expected_latency_ms, expected_cost }) => ({
    id: name,
    weight: fractions && weight <= 1 ? weight : weight / 100,
    priority: priority ?? 0,
    latencyMs: expected_latency_ms,
    cost: expected_cost,
  }));
}

/** The rules of a document in the order they are asked; the legacy `fallback` with its conditions comes last. */
export function fallbackEntries({ fallbacks, fallback }: PolicyDocument): FallbackEntry[] {
  return fallback === undefined ? [...(fallbacks ?? [])] : [...(fallbacks ?? []), legacyEntry(fallback)];
}

/** The legacy `fallback` as a rule (BeamLine, policy document). */
export function legacyEntry(fallback: NonNullable<PolicyDocument["fallback"]>): FallbackEntry {
  return { when: { status: fallback.conditions ?? ["all_providers_failed"] }, to: fallback.provider, retry: 1 };
}

function rulesOf(document: PolicyDocument): Rule[] {
  return fallbackEntries(document).map((entry, i) => ({
    id: ruleId(entry),
    matches: compileWhen(entry.when, `fallbacks[${i}].when`),
    prefer: entry.prefer ?? [],
    to: entry.to,
    retry: entry.retry ?? 1,
    backoff: { strategy: "exponential", base_ms: 100, max_ms: 5_000, jitter: true, ...entry.backoff },
  }));
}

/** A short digest of what a rule says, so that its retries are counted across workers and edits of other rules. */
function ruleId({ when, prefer, to, retry }: FallbackEntry): string {
  const what = JSON.stringify([when ?? {}, prefer ?? [], to, retry ?? 1] satisfies (
    JsonObject | readonly string[] | string | number | undefined
  )[]);
  return createHash("sha256").update(what).digest("hex").slice(0, 12);
}

const DEFAULT_TTL_SECONDS = 3_600;
const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600 };

function stickyOf({ session_key, ttl, ttl_seconds }: StickyEntry): Sticky {
  const [, amount, unit = ""] = /^(\d+)([smh])$/.exec(ttl ?? "") ?? [];
  const written = Number(amount ?? 0) * (unitSeconds[unit] ?? 0);
  return {
    sessionKey: session_key ?? "session_id",
    ttlMs: 1_000 * (ttl_seconds ?? (written > 0 ? written : DEFAULT_TTL_SECONDS)),
  };
}

function breakerOf(given: BreakerEntry): Breaker {
  return {
    failure_threshold: 5,
    success_threshold: 2,
    timeout_ms: 60_000,
    half_open_max_calls: 3,
    error_rate_threshold: 0.5,
    error_rate_window_seconds: 60,
    latency_threshold_ms: 5_000,
    ...given,
  };
}
