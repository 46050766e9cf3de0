/**
 * The decision (BeamLine, router decision semantics): from a policy and the facts of a request to a provider and the reason for it.
 *
 * D1 In this order: the circuit of a provider the context selected, the session, the weights (or figures, when the policy or the request asks for
 *    them), the fallback rules, the legacy fallback. Whoever answers first decides.
 * D2 Nothing here touches a network: sessions and limits are settled before (shared.ts), health comes from results.
 * D3 A dry decision leaves no trace: no turn taken, no trial call of a half-open circuit used.
 * D4 The common decision - turns, and nothing else to look at - is put into words once per winner and kept.
 */
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Policy } from "../policies/compile.ts";
import { speak, type Spoken } from "./decision.ts";
import { candidates, explain, type Choice } from "./explain.ts";
import { chooseFallback } from "./fallback.ts";
import { fact, textFact, type Facts } from "../policies/match.ts";
import type { ProviderHealth } from "../ports.ts";
import { Recent } from "../shared/recent.ts";
import { highest, rendezvous, scores, type Aim } from "./score.ts";
import { NOBODY } from "./select.ts";
import { claim, expectedOf, isUsable, survey, type Survey } from "./survey.ts";

export interface DecidePorts {
  readonly health: ProviderHealth;
  /** At least 0, below 1; only for the jitter of backoff. */
  readonly random: () => number;
  readonly now: () => number;
}

export interface Mode {
  /** Default false. */
  readonly dry?: boolean;
}

/** Context keys that make a decision more than a turn of the round robin. */
const special = new Set([
  "expected_latency_ms",
  "expected_cost",
  "max_latency_ms",
  "max_cost",
  "detail_level",
  "selected_provider",
  "optimize",
  "prompt_cache_key",
]);

/** Whether turns alone tell who is chosen, once session and limits have had their say, so that words can be kept (D4). */
export function isCommon({ byTurns }: Policy, { context }: Facts): boolean {
  if (!byTurns) return false;
  for (const key in context) if (special.has(key)) return false;
  return true;
}

/** Decides without a session. Throws `decision_failed` when nobody can be chosen, `invalid_request` for a limit that is none. */
export function decide(policy: Policy, facts: Facts, ports: DecidePorts, { dry = false }: Mode = {}): Spoken {
  if (isCommon(policy, facts)) {
    const turns = policy.turns(facts.tenant);
    const chosen = dry ? turns.peek() : turns.take();
    if (chosen !== NOBODY) return turnSpoken(policy, facts, chosen, ports);
  }
  const circuit = circuitChoice(policy, facts, ports.health);
  if (circuit !== undefined) return say(policy, facts, circuit, ports);
  const field = survey(policy, facts, ports.health);
  const offer = select(policy, facts, field, ports, dry);
  if (offer !== undefined) {
    if (!dry) claim(policy, offer.choice.provider, facts, ports.health);
    return say(policy, facts, offer.choice, ports);
  }
  return say(policy, facts, fallback(policy, facts, field, ports, dry), ports);
}

/** What selection offers, and how to take it back when a session has its provider already. */
export interface Offer {
  readonly choice: Choice;
  readonly giveBack: () => void;
}

const kept = (): void => undefined;

/** The provider by weights or figures; undefined when nobody is left. Takes the turn unless `dry`. */
export function select(
  policy: Policy,
  facts: Facts,
  { usable, losses }: Survey,
  ports: DecidePorts,
  dry: boolean,
): Offer | undefined {
  const offer = (
    at: number,
    reason: Choice["reason"],
    algorithm: string,
    why: readonly (string | undefined)[],
    giveBack = kept,
  ): Offer | undefined => {
    const provider = policy.candidates[at]?.id;
    return provider === undefined ? undefined : { choice: { provider, reason, algorithm, losses: why }, giveBack };
  };
  const aim = aimOf(policy, facts);
  if (aim !== undefined) {
    const expected = policy.candidates.map(({ id }) => expectedOf(policy, id, facts, ports.health));
    const points = scores(policy.candidates, expected, usable, aim);
    const best = highest(points);
    const why = losses.map((loss, at) => loss ?? `score ${round(points[at])} is not above ${round(points[best])}`);
    return offer(best, "best_score", "best_score", why);
  }
  const key = textFact(facts, affinityKeyOf(policy));
  if (key !== undefined) {
    const at = rendezvous(policy.candidates, usable, key);
    return offer(
      at,
      "weighted",
      "prompt_cache_affinity",
      losses.map((loss) => loss ?? "the prompt belongs to another's cache"),
    );
  }
  const turns = policy.turns(facts.tenant);
  const at = dry ? turns.peek(usable) : turns.take(usable);
  return offer(
    at,
    "weighted",
    "weighted_round_robin",
    losses,
    dry || at === NOBODY ? kept : () => turns.giveBack(at, usable),
  );
}

const aims = new Set<unknown>(["latency", "cost", "balanced"]);

function aimOf(policy: Policy, facts: Facts): Aim | undefined {
  const asked = fact(facts, "optimize");
  if (aims.has(asked)) return asked as Aim;
  return policy.algorithm === "best_score" ? "balanced" : undefined;
}

function affinityKeyOf(policy: Policy): string {
  const named = policy.document.defaults?.["affinity_key"];
  return typeof named === "string" && named !== "" ? named : "prompt_cache_key";
}

/** The rules, then the legacy fallback. Throws `decision_failed`. */
export function fallback(policy: Policy, facts: Facts, { losses }: Survey, ports: DecidePorts, dry: boolean): Choice {
  const { health, random } = ports;
  const usable = (provider: string): boolean => isUsable(policy, provider, facts, health);
  const found = chooseFallback(policy.rules, facts, { usable, random });
  const provider = found?.provider ?? policy.lastResort;
  if (provider === undefined) throw nobodyLeft(policy, losses);
  if (!dry) claim(policy, provider, facts, health);
  return {
    provider,
    reason: found?.reason ?? "fallback",
    algorithm: found === undefined ? "fallback" : "fallback_rules",
    losses,
    ...(found && { more: found.metadata }),
  };
}

function nobodyLeft(policy: Policy, losses: Survey["losses"]): BeamlineError {
  return new BeamlineError("decision_failed", "no provider available", {
    details: { policy_id: policy.id, candidates: candidates(policy, { losses }) },
  });
}

/** A provider the context selected and whose circuit is open is replaced at once, when there is something to replace it with. */
export function circuitChoice(policy: Policy, facts: Facts, health: ProviderHealth): Choice | undefined {
  if (policy.breaker === undefined) return undefined;
  const selected = textFact(facts, "selected_provider");
  if (selected === undefined || health.circuit(facts.tenant, selected, policy.breaker) !== "open") return undefined;
  const provider = textFact(facts, "fallback_provider") ?? policy.rules[0]?.to;
  if (provider === undefined) return undefined;
  const losses = policy.candidates.map(({ id }) => (id === selected ? "circuit open" : "the context selected another"));
  return {
    provider,
    reason: "circuit_breaker_fallback",
    algorithm: "circuit_breaker",
    losses,
    more: { selected_provider: selected },
  };
}

/** A choice as a decision, in words. */
export function say(policy: Policy, facts: Facts, choice: Choice, { health }: DecidePorts): Spoken {
  return speak(explain(policy, facts, choice, expectedOf(policy, choice.provider, facts, health)));
}

interface Phrases {
  readonly revision: number;
  /** By tenant (a shared policy has many) and what is said. */
  readonly byTenant: Recent<Map<number | string, Spoken>>;
}

/** Tenants of a shared policy whose phrases are kept at least. */
const MAX_TENANTS = 10_000;
const phrases = new WeakMap<Policy, Phrases>();

/** D4: words that are made once per name, and anew when a provider's health has changed. `make` may look at nothing of the request but its tenant. */
export function phrase(
  policy: Policy,
  tenant: string,
  name: number | string,
  { revision }: ProviderHealth,
  make: (facts: Facts) => Spoken,
): Spoken {
  let known = phrases.get(policy);
  if (known === undefined || known.revision !== revision) {
    known = { revision, byTenant: new Recent(MAX_TENANTS) };
    phrases.set(policy, known);
  }
  let mine = known.byTenant.get(tenant);
  if (mine === undefined) known.byTenant.set(tenant, (mine = new Map()));
  let spoken = mine.get(name);
  if (spoken === undefined) mine.set(name, (spoken = make({ tenant, context: {} })));
  return spoken;
}

function turnSpoken(policy: Policy, { tenant }: Facts, chosen: number, ports: DecidePorts): Spoken {
  return phrase(policy, tenant, chosen, ports.health, (facts) => {
    const provider = policy.candidates[chosen]?.id ?? "";
    return say(policy, facts, { provider, reason: "weighted", algorithm: "weighted_round_robin", losses: [] }, ports);
  });
}

function round(score: number | undefined): number {
  return Math.round((score ?? 0) * 1_000) / 1_000;
}
