/**
 * Rules asked when selection yields nobody (BeamLine, weighted, sticky, fallback).
 *
 * F1 The first rule whose `when` matches and that has something to offer decides.
 * F2 While the rule has tries left and the context says who was tried (`current_provider`), the same provider is tried again. The tries
 *    used come with the context, as `retry_attempts_<rule id>` or as the `fallback_rule_id` and `retry_attempt` of the last decision's metadata.
 *    With tries left and nobody to try again the rule is passed over; a provider that cannot be used is not tried again.
 * F3 When the tries are used up, the first of `prefer` that can be used, else `to`.
 */
import { numberFact, textFact, type Facts } from "../policies/match.ts";
import type { Rule } from "../policies/compile.ts";

export interface FallbackChoice {
  readonly provider: string;
  readonly reason: "retry" | "fallback";
  readonly metadata: Readonly<Record<string, string>>;
}

export interface FallbackPorts {
  readonly usable: (provider: string) => boolean;
  /** At least 0, below 1. */
  readonly random: () => number;
}

export function chooseFallback(rules: readonly Rule[], facts: Facts, ports: FallbackPorts): FallbackChoice | undefined {
  for (const rule of rules) {
    if (!rule.matches(facts)) continue;
    const choice = apply(rule, facts, ports);
    if (choice !== undefined) return choice;
  }
  return undefined;
}

function apply(rule: Rule, facts: Facts, { usable, random }: FallbackPorts): FallbackChoice | undefined {
  const used = attemptsUsed(rule.id, facts);
  const retry_max = String(rule.retry);
  if (used < rule.retry) {
    const current = textFact(facts, "current_provider");
    if (current === undefined) return undefined;
    if (usable(current)) return retry(rule, current, used + 1, random);
  }
  const provider = rule.prefer.find(usable) ?? rule.to;
  if (provider === undefined || !usable(provider)) return undefined;
  return {
    provider,
    reason: "fallback",
    metadata: { fallback_rule_id: rule.id, retry_attempts_used: String(used), retry_max, fallback_applied: "true" },
  };
}

function retry(rule: Rule, provider: string, attempt: number, random: () => number): FallbackChoice {
  return {
    provider,
    reason: "retry",
    metadata: {
      fallback_rule_id: rule.id,
      retry_attempt: String(attempt),
      retry_max: String(rule.retry),
      backoff_ms: String(backoffMs(rule.backoff, attempt, random)),
      backoff_applied: "true",
    },
  };
}

function attemptsUsed(ruleId: string, facts: Facts): number {
  const own = numberFact(facts, `retry_attempts_${ruleId}`);
  const last = textFact(facts, "fallback_rule_id") === ruleId ? numberFact(facts, "retry_attempt") : undefined;
  return Math.max(0, Math.trunc(own ?? last ?? 0));
}

/** Milliseconds to wait before try `attempt` (from 1): exponential, linear or fixed, up to a tenth more, capped. */
export function backoffMs(
  { strategy, base_ms, max_ms, jitter }: Rule["backoff"],
  attempt: number,
  random: () => number,
): number {
  const factor = strategy === "exponential" ? 2 ** (attempt - 1) : strategy === "linear" ? attempt : 1;
  const delay = Math.trunc(base_ms * factor);
  return Math.min(max_ms, delay + (jitter ? Math.floor(delay * 0.1 * random()) : 0));
}
