/**
 * Whose turn it is: smooth weighted round robin, as nginx spreads requests over its upstreams.
 *
 * R1 Every turn each usable candidate gains its weight, the one that stands highest is chosen and pays the sum of the weights. Over any
 *    number of turns each gets its share to within one turn, evenly spread: 70/30 is exactly 70 and 30 of 100.
 * R2 Weights are proportions: 30/40 are three and four sevenths. A candidate of weight 0 is never chosen; when all weights are 0, nobody is.
 * R3 Of candidates that stand equally high the one of higher priority is chosen, else the one listed first.
 * R4 The arithmetic commutes: turns may be given back in any order, so calls that overlap keep the shares right.
 */

export interface Weighted {
  readonly weight: number;
  readonly priority: number;
}

/** Nobody can be chosen. */
export const NOBODY = -1;

export class RoundRobin {
  readonly #weights: readonly number[];
  readonly #priorities: readonly number[];
  readonly #standing: number[];

  constructor(candidates: readonly Weighted[]) {
    // As percents to the billionth, so that decimal fractions such as 0.7 add up without rounding error.
    this.#weights = candidates.map(({ weight }) => Math.round(weight * 1e11) / 1e9 || weight * 100);
    this.#priorities = candidates.map(({ priority }) => priority);
    this.#standing = candidates.map(() => 0);
  }

  /** The candidate whose turn it is among the usable ones (all, when left out), or `NOBODY`. Takes the turn. */
  take(usable?: readonly boolean[]): number {
    const chosen = this.peek(usable);
    if (chosen !== NOBODY) this.#turn(chosen, usable, 1);
    return chosen;
  }

  /** The same without taking the turn. */
  peek(usable?: readonly boolean[]): number {
    const weights = this.#weights;
    const standing = this.#standing;
    let best = NOBODY;
    let height = -Infinity;
    for (let at = 0; at < weights.length; at++) {
      const weight = weights[at] ?? 0;
      if (weight <= 0 || (usable !== undefined && usable[at] !== true)) continue;
      const stands = (standing[at] ?? 0) + weight;
      if (stands > height || (stands === height && this.#prefers(at, best))) {
        best = at;
        height = stands;
      }
    }
    return best;
  }

  /** Undoes a `take` that turned out not to be needed. `usable` as it was then. */
  giveBack(chosen: number, usable?: readonly boolean[]): void {
    this.#turn(chosen, usable, -1);
  }

  #turn(chosen: number, usable: readonly boolean[] | undefined, sign: 1 | -1): void {
    const weights = this.#weights;
    const standing = this.#standing;
    let total = 0;
    for (let at = 0; at < weights.length; at++) {
      if (usable !== undefined && usable[at] !== true) continue;
      const weight = weights[at] ?? 0;
      standing[at] = (standing[at] ?? 0) + sign * weight;
      total += weight;
    }
    standing[chosen] = (standing[chosen] ?? 0) - sign * total;
  }

  #prefers(at: number, other: number): boolean {
    return (this.#priorities[at] ?? 0) > (this.#priorities[other] ?? 0);
  }
}
