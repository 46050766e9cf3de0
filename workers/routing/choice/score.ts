/** Choosing by figures instead of turns: the best for latency and cost, and the provider that has a prompt in its cache. */
import { createHash } from "node:crypto";
import type { Candidate } from "../policies/compile.ts";
import { NOBODY } from "./select.ts";
import type { Expected } from "./survey.ts";

/** What counts for `best_score`: the context's `optimize`. */
export type Aim = "latency" | "cost" | "balanced";

/** How much latency counts against cost. */
const latencyShare: Readonly<Record<Aim, number>> = { latency: 1, cost: 0, balanced: 0.5 };

/**
 * Scores by candidate, higher is better, 0 for one that cannot be used: its weight, divided by how many times slower and dearer than
 * the best it is.
 */
export function scores(
  candidates: readonly Candidate[],
  expected: readonly Expected[],
  usable: readonly boolean[] | undefined,
  aim: Aim,
): number[] {
  const among = expected.filter((_, at) => usable === undefined || usable[at] === true);
  const latency = relative(among.map(({ latencyMs }) => latencyMs));
  const cost = relative(among.map((one) => one.cost));
  const share = latencyShare[aim];
  return candidates.map(({ weight }, at) => {
    const one = expected[at];
    if (one === undefined || (usable !== undefined && usable[at] !== true)) return 0;
    return weight / (share * latency(one.latencyMs) + (1 - share) * cost(one.cost));
  });
}

/** How many times as much as the least, at least 1; when the least is nothing, one more by the share of the most. */
function relative(values: readonly number[]): (value: number) => number {
  const least = Math.min(...values);
  const most = Math.max(...values);
  return (value) => (least > 0 ? value / least : most > 0 ? 1 + value / most : 1);
}

/**
 * The candidate that a key belongs to, by weighted rendezvous hashing: every worker finds the same one without asking anybody, keys spread
 * by weight, and when a candidate cannot be used only its own keys move.
 */
export function rendezvous(
  candidates: readonly Candidate[],
  usable: readonly boolean[] | undefined,
  key: string,
): number {
  let best = NOBODY;
  let height = -Infinity;
  for (const [at, { id, weight }] of candidates.entries()) {
    if (weight <= 0 || (usable !== undefined && usable[at] !== true)) continue;
    const score = -weight / Math.log(fraction(`${key}\u0000${id}`));
    if (score > height) {
      best = at;
      height = score;
    }
  }
  return best;
}

/** A number above 0 and below 1 that looks random and depends on the text alone. */
function fraction(text: string): number {
  const digest = createHash("sha256").update(text).digest();
  return (digest.readUInt32BE(0) * 2 ** 16 + digest.readUInt16BE(4) + 0.5) / 2 ** 48;
}

/** The place of the highest score above 0; the first of equals. */
export function highest(values: readonly number[]): number {
  let best = NOBODY;
  for (const [at, value] of values.entries())
    if (value > 0 && (best === NOBODY || value > (values[best] ?? 0))) best = at;
  return best;
}
