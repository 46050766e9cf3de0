/**
 * The decision (BeamLine, router decision semantics): from a policy and the facts of a request to a provider and the reason for it.
 *
 * D1 In this order: the circuit of a provider the context selected, the session, the weights (or figures, when the policy or the request asks for
 *    them), the fallback rules, the legacy fallback. Whoever answers first decides.
 * D2 Nothing here touches a network: sessions and limits are settled before (shared.ts), health comes from results.
 * D3 A dry decision leaves no trace: no turn taken, no trial call of a half-open circuit used.
 * D4 The common decision - turns, and nothing else to look at - is put into words once per winner and kept.
 */
import { BeamlineError } from "../../contracts/errors.ts";
import type { Policy } from "./compile.ts";
import { speak, type Spoken } from "./decision.ts";
import { candidates, explain, type Choice } from "./explain.ts";
import { chooseFallback } from "./fallback.ts";
import { fact, textFact, type Facts } from "./match.ts";
import type { ProviderHealth } from "./ports.ts";
import { Recent } from "./recent.ts";
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

function isPlain(policy: Policy, facts: Facts): boolean {
  if (!policy.plain) return false;
  for (const key in facts.context) if (special.has(key)) return false;
  return true;
}

/** Decides without a session. Throws `decision_failed` when nobody can be chosen, `invalid_request` for a limit that is none. */
export function decide(policy: Policy, facts: Facts, ports: DecidePorts, { dry = false }: Mode = {}): Spoken {
  if (isPlain(policy, facts)) {
    const turns = policy.turns(facts.tenant);
    const chosen = dry ? turns.peek() : turns.take();
    if (chosen !== NOBODY) return turnSpoken(policy, facts, chosen, ports.health);
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
  /** By tenant (a shared policy has many) and winner. */
  readonly byTenant: Recent<Spoken[]>;
}

/** Tenants of a shared policy whose phrases are kept at least. */
const MAX_TENANTS = 10_000;
const phrases = new WeakMap<Policy, Phrases>();

/** D4: the words of a turn, made anew when a provider's health has changed. */
function turnSpoken(policy: Policy, facts: Facts, chosen: number, health: ProviderHealth): Spoken {
  let known = phrases.get(policy);
  if (known === undefined || known.revision !== health.revision) {
    known = { revision: health.revision, byTenant: new Recent(MAX_TENANTS) };
    phrases.set(policy, known);
  }
  let byWinner = known.byTenant.get(facts.tenant);
  if (byWinner === undefined) known.byTenant.set(facts.tenant, (byWinner = []));
  const made = byWinner[chosen];
  if (made !== undefined) return made;
  const provider = policy.candidates[chosen]?.id ?? "";
  const spoken = speak(
    explain(
      policy,
      { tenant: facts.tenant, context: {} },
      { provider, reason: "weighted", algorithm: "weighted_round_robin", losses: [] },
      expectedOf(policy, provider, { tenant: facts.tenant, context: {} }, health),
    ),
  );
  byWinner[chosen] = spoken;
  return spoken;
}

function round(score: number | undefined): number {
  return Math.round((score ?? 0) * 1_000) / 1_000;
}
