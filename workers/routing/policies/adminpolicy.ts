/**
 * The admin form of a policy (BeamLine, admin messages) and the policy document, each as the other.
 *
 * A1 Document to admin form and back leaves the document as it was: what only the document can say (session key, TTL, retries, extensions,
 *    limits) is taken from the stored one.
 * A2 Admin form to document and back gives the same admin form, rules included.
 * A3 A rule that is new has no retries: its `prefer` and `fallback` are used at once.
 */
import { BeamlineError, invalidArgument } from "../../../contracts/errors.ts";
import type { AdminPolicy, AdminProvider, AdminRule } from "../../../contracts/gen/beamline/flow/v1/flow.ts";
import { candidatesOf, fallbackEntries, legacyEntry } from "./compile.ts";
import { parseWhen, printWhen } from "./matchtext.ts";
import {
  checkPolicyId,
  limits,
  readPolicy,
  type FallbackEntry,
  type PolicyDocument,
  type ProviderEntry,
} from "./policy.ts";

/** A document as administrators see it. */
export function toAdmin(policyId: string, document: PolicyDocument): AdminPolicy {
  return {
    policy_id: policyId,
    providers: candidatesOf(document).map(({ id, weight }) => ({ id, weight })),
    sticky: document.sticky?.enabled === true,
    rules: fallbackEntries(document).map(toRule),
  };
}

/**
 * The document an admin policy stands for, on top of the stored one when there is one. Throws `invalid_argument` naming the field as the
 * request has it (`policy.providers[0].weight`), `quota_exceeded`.
 */
export function fromAdmin(policy: AdminPolicy, stored?: PolicyDocument): PolicyDocument {
  checkPolicyId(policy.policy_id, "policy.policy_id");
  const { providers, weights, fallback, fallbacks, sticky, ...kept }: PolicyDocument = stored ?? { version: "1.0" };
  const rules = [...policy.rules];
  // The legacy fallback is the last rule of the admin form; it stays what it is when it is still there.
  const last = rules.at(-1);
  const keepsLegacy = fallback !== undefined && last !== undefined && equal(last, toRule(legacyEntry(fallback)));
  if (keepsLegacy) rules.pop();
  const document: PolicyDocument = {
    ...kept,
    ...(stored !== undefined && sameProviders(policy.providers, stored)
      ? { ...(providers && { providers }), ...(weights && { weights }) }
      : { providers: providersOf(policy.providers, providers ?? []) }),
    ...((policy.sticky || sticky !== undefined) && { sticky: { ...sticky, enabled: policy.sticky } }),
    ...((rules.length > 0 || fallbacks !== undefined) && {
      fallbacks: rules.map((rule, i) => fallbackOf(rule, i, fallbacks ?? [])),
    }),
    ...(keepsLegacy && { fallback }),
  };
  readPolicy(document, "policy.");
  return document;
}

function providersOf(providers: readonly AdminProvider[], stored: readonly ProviderEntry[]): ProviderEntry[] {
  if (providers.length === 0) throw invalidArgument("policy.providers", "must name at least one provider");
  if (providers.length > limits.providers) {
    throw new BeamlineError("quota_exceeded", `Policy quota exceeded. Maximum providers: ${limits.providers}`, {
      field: "policy.providers",
    });
  }
  const seen = new Set<string>();
  for (const [i, { id, weight }] of providers.entries()) {
    const at = `policy.providers[${i}]`;
    if (id === "") throw invalidArgument(`${at}.id`, "must not be empty");
    if (seen.has(id)) throw invalidArgument(`${at}.id`, `names ${id} a second time`);
    seen.add(id);
    if (!(weight >= 0 && weight <= 1)) throw invalidArgument(`${at}.weight`, "must be between 0 and 1");
  }
  // Whole percents when all are; otherwise all as fractions, since a list is on one scale.
  const percents = providers.every(({ weight }) => Math.round(weight * 100) / 100 === weight);
  return providers.map(({ id, weight }) => ({
    ...stored.find(({ name }) => name === id),
    name: id,
    weight: percents ? Math.round(weight * 100) : weight,
  }));
}

function sameProviders(given: readonly AdminProvider[], stored: PolicyDocument): boolean {
  const known = candidatesOf(stored);
  return (
    given.length === known.length &&
    given.every(({ id, weight }, i) => known[i]?.id === id && known[i].weight === weight)
  );
}

function toRule({ when, prefer, to }: FallbackEntry): AdminRule {
  return { match: printWhen(when), prefer: [...(prefer ?? [])], fallback: to ?? "" };
}

function fallbackOf(rule: AdminRule, at: number, stored: readonly FallbackEntry[]): FallbackEntry {
  const same = [stored[at], ...stored].find((entry) => entry !== undefined && equal(toRule(entry), rule));
  if (same !== undefined) return same;
  const path = `policy.rules[${at}]`;
  if (rule.fallback === "" && rule.prefer.length === 0)
    throw invalidArgument(`${path}.fallback`, "must name a provider, or prefer must");
  return {
    when: parseWhen(rule.match, `${path}.match`),
    ...(rule.prefer.length > 0 && { prefer: rule.prefer }),
    ...(rule.fallback !== "" && { to: rule.fallback }),
    retry: 0,
  };
}

function equal(one: AdminRule, other: AdminRule): boolean {
  return (
    one.match === other.match && one.fallback === other.fallback && one.prefer.join("\n") === other.prefer.join("\n")
  );
}
