/**
 * Fixed windows per endpoint and caller, in this edge's memory (BeamLine, REST gateway, rate limiting). Several edges each count their own; what must
 * hold over all of them are the limits of policies and tenants, which the routing workers share.
 */

export interface Limit {
  /** Name of the endpoint, as refusals tell it. */
  readonly endpoint: string;
  /** Requests per window; 0 is no limit. */
  readonly max: number;
}

/** What a caller is told with every answer. */
export interface Standing {
  readonly endpoint: string;
  readonly limit: number;
  readonly remaining: number;
  /** When the window ends, epoch seconds. */
  readonly resetSeconds: number;
  /** Seconds until then, at least 1. */
  readonly retryAfterSeconds: number;
  readonly exceeded: boolean;
}

/** Callers counted per window at most; beyond it all others count as one. */
const MOST_CALLERS = 100_000;

export class Limiter {
  readonly #windowSeconds: number;
  readonly #now: () => number;
  #window = 0;
  #counts = new Map<string, number>();

  /** @param now epoch milliseconds */
  constructor(windowSeconds: number, now: () => number) {
    this.#windowSeconds = windowSeconds;
    this.#now = now;
  }

  /** Counts a request, also one that is refused. The narrowest of the limits is told; undefined when there are none. */
  take(caller: string, limits: readonly Limit[]): Standing | undefined {
    const second = Math.floor(this.#now() / 1_000);
    const window = Math.floor(second / this.#windowSeconds);
    if (window !== this.#window) {
      this.#window = window;
      this.#counts = new Map();
    }
    const resetSeconds = (window + 1) * this.#windowSeconds;
    let narrowest: Standing | undefined;
    for (const { endpoint, max } of limits) {
      if (max === 0) continue;
      const used = this.#count(`${endpoint} ${caller}`);
      const standing = {
        endpoint,
        limit: max,
        remaining: Math.max(0, max - used),
        resetSeconds,
        retryAfterSeconds: Math.max(1, resetSeconds - second),
        exceeded: used > max,
      };
      if (
        narrowest === undefined ||
        (!narrowest.exceeded && (standing.exceeded || standing.remaining < narrowest.remaining))
      )
        narrowest = standing;
    }
    return narrowest;
  }

  #count(name: string): number {
    const key = this.#counts.has(name) || this.#counts.size < MOST_CALLERS ? name : "others";
    const used = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, used);
    return used;
  }
}
