/**
 * How many OpenWOP calls this edge takes at once, and how many a second from one credential (OpenWOP, rate limits, backpressure). REST requests,
 * SSE streams and RPCs count alike; discovery does not count.
 */
import { BeamlineError } from "../../contracts/errors.ts";
import { header, type Headers } from "../../contracts/headers.ts";
import { Limiter } from "../beamline/limiter.ts";

export const RETRY_AFTER_S = 1;
const WINDOW_S = 1;

export interface AdmissionOptions {
  /** Calls and streams served at once; beyond it 503. */
  readonly inflightCap: number;
  /** Calls of one credential per second; beyond it 429. 0 is no limit. */
  readonly ratePerSecond: number;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

export class Admission {
  readonly #options: AdmissionOptions;
  readonly #limiter: Limiter;
  #inflight = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#limiter = new Limiter(WINDOW_S, options.now);
  }

  /**
   * Lets a call in; call what it gives back when the call is over. The rate comes before the capacity, and both before scopes.
   * Throws `rate_limited`, `service_unavailable`.
   */
  enter(headers: Headers): () => void {
    const { inflightCap, ratePerSecond } = this.#options;
    const principal = headers[header.principal];
    // Who comes with a token of an interrupt is nobody to count.
    const standing =
      principal === undefined
        ? undefined
        : this.#limiter.take(`${headers[header.tenantId] ?? ""} ${principal}`, [
            { endpoint: "openwop", max: ratePerSecond },
          ]);
    if (standing?.exceeded === true) {
      const { retryAfterSeconds, limit } = standing;
      throw new BeamlineError("rate_limited", `more than ${limit} calls a second`, {
        retryAfterSeconds,
        details: { scope: "key", limit, retryAfterMs: retryAfterSeconds * 1_000 },
      });
    }
    if (this.#inflight >= inflightCap) {
      throw new BeamlineError("service_unavailable", "the host is at its capacity", {
        retryAfterSeconds: RETRY_AFTER_S,
      });
    }
    this.#inflight++;
    let inside = true;
    return () => {
      if (inside) this.#inflight--;
      inside = false;
    };
  }
}
