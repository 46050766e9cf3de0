/** How heavy the extension pipeline of a policy is (BeamLine, admin subjects, complexity). */
import type { PipelineComplexity } from "../../../contracts/gen/beamline/flow/v1/flow.ts";
import type { PolicyDocument } from "../policies/policy.ts";

const recommended = { max_total: 4, max_pre: 2, max_validators: 2, max_post: 2 } as const;
const MS_PER_EXTENSION = 30;
/** Beyond this a pipeline misses its latency target, milliseconds. */
const TARGET_MS = 150;

export function complexityOf({ pre = [], validators = [], post = [] }: PolicyDocument): PipelineComplexity {
  const counts = { pre: pre.length, validators: validators.length, post: post.length };
  const total = counts.pre + counts.validators + counts.post;
  const score = scoreOf(total, Object.values(counts));
  const excess = excesses(total, counts);
  return {
    total_extensions: total,
    pre_count: counts.pre,
    validators_count: counts.validators,
    post_count: counts.post,
    complexity_score: score,
    complexity_level: score < 30 ? "low" : score < 60 ? "medium" : score < 80 ? "high" : "very_high",
    estimated_latency_ms: BigInt(total * MS_PER_EXTENSION),
    recommended_limits: recommended,
    warnings: [
      ...excess.map(({ what, count, max }) => `The pipeline has ${count} ${what}, more than the recommended ${max}.`),
      ...(total * MS_PER_EXTENSION > TARGET_MS
        ? [`It is estimated to take ${total * MS_PER_EXTENSION} ms, more than the target of ${TARGET_MS} ms.`]
        : []),
    ],
    recommendations: excess.map(({ what, max }) => `Reduce ${what} to ${max} or fewer.`),
  };
}

function scoreOf(total: number, counts: readonly number[]): number {
  const over = Math.max(0, total - recommended.max_total);
  const size = over === 0 ? Math.trunc((total / recommended.max_total) * 60) : 60 + Math.min(20, 5 * over);
  const crowded = 5 * counts.filter((count) => count > 2).length;
  return Math.min(100, size + crowded + Math.min(20, 4 * over));
}

interface Excess {
  readonly what: string;
  readonly count: number;
  readonly max: number;
}

function excesses(total: number, counts: { pre: number; validators: number; post: number }): Excess[] {
  return [
    { what: "extensions", count: total, max: recommended.max_total },
    { what: "pre-processors", count: counts.pre, max: recommended.max_pre },
    { what: "validators", count: counts.validators, max: recommended.max_validators },
    { what: "post-processors", count: counts.post, max: recommended.max_post },
  ].filter(({ count, max }) => count > max);
}
