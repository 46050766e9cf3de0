/**
 * Why a decision is what it is, in its `metadata` (BeamLine, reason vocabulary): all values are text, structured ones JSON. How much is said is
 * the context's `detail_level`: `minimal` names the algorithm, `detailed` (default) the policy and why each candidate lost, `verbose` adds the
 * steps taken.
 */
import type { Policy } from "../policies/compile.ts";
import { priorities, type Decision, type Reason } from "./decision.ts";
import { fact, type Facts } from "../policies/match.ts";
import type { Expected } from "./survey.ts";

export interface Choice {
  readonly provider: string;
  readonly reason: Reason;
  readonly algorithm: string;
  /** By candidate: why it was not chosen. */
  readonly losses: readonly (string | undefined)[];
  readonly more?: Readonly<Record<string, string>>;
  readonly stickyKey?: string;
  readonly expiresAtMs?: number;
}

export function explain(policy: Policy, facts: Facts, choice: Choice, expected: Expected): Decision {
  return {
    provider_id: choice.provider,
    reason: choice.reason,
    priority: priorities[choice.reason],
    expected_latency_ms: expected.latencyMs,
    expected_cost: expected.cost,
    metadata: metadataOf(policy, facts, choice),
    policy_id: policy.id,
    sticky_key: choice.stickyKey,
    expires_at_ms: choice.expiresAtMs,
  };
}

function metadataOf(policy: Policy, facts: Facts, choice: Choice): Record<string, string> {
  const { algorithm, more } = choice;
  const detail = fact(facts, "detail_level");
  if (detail === "minimal") return { algorithm, ...more };
  const metadata = { algorithm, policy_id: policy.id, candidates: JSON.stringify(candidates(policy, choice)), ...more };
  return detail === "verbose"
    ? { ...metadata, explanation: JSON.stringify(explanation(policy, facts, choice)) }
    : metadata;
}

interface CandidateWords {
  readonly id: string;
  readonly weight: number;
  readonly chosen?: true;
  readonly lost?: string;
}

/** Every candidate and what became of it; also the details of an error when nobody was left. */
export function candidates(
  policy: Policy,
  { provider, losses }: Pick<Choice, "losses"> & { readonly provider?: string },
): CandidateWords[] {
  return policy.candidates.map(({ id, weight }, at) =>
    id === provider
      ? { id, weight, chosen: true }
      : { id, weight, lost: losses[at] ?? (weight > 0 ? "not its turn" : "weight is 0") },
  );
}

function explanation(policy: Policy, facts: Facts, choice: Choice): Record<string, unknown> {
  const { provider, reason } = choice;
  const steps = [
    `policy ${policy.id} of version ${policy.document.version} was found`,
    ...candidates(policy, choice).map(({ id, lost }) =>
      lost === undefined ? `${id} is chosen` : `${id} is passed over: ${lost}`,
    ),
    `${provider} is the provider, for the reason ${reason}`,
  ];
  return {
    reason,
    provider_id: provider,
    policy_id: policy.id,
    policy_version: policy.document.version,
    priority: priorities[reason],
    steps: steps.map((step, at) => `${at + 1}. ${step}`),
    context: { tenant_id: facts.tenant },
  };
}
