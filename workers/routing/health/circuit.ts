/**
 * The circuit of one provider for one tenant (BeamLine, circuit breaker).
 *
 * C1 closed → open: so many failures in a row; or, over the window and with enough calls in it to mean something, the share of failures or the
 *    average latency beyond its threshold. One failure alone never opens it unless the policy says that one is enough.
 * C2 open → half-open: when its time is up, noticed when someone looks.
 * C3 half-open: so many trial calls at a time; enough successes close it, one failure opens it again. Trials whose outcome never comes are
 *    given out anew after the same time, so that it cannot stay half-open for want of news.
 * C4 What arrives while it is open is about calls made before: it changes nothing.
 */
import type { Breaker } from "../policies/compile.ts";
import type { CircuitState } from "../ports.ts";
import { SlidingWindow } from "./window.ts";

/** Fewest calls in the window before shares and averages count. */
const MIN_SAMPLE = 5;

export class Circuit {
  #breaker: Breaker;
  #state: CircuitState = "closed";
  #window: SlidingWindow;
  #failuresInARow = 0;
  #successesInARow = 0;
  #trials = 0;
  /** When it opened, or when the last trials were given out; epoch milliseconds. */
  #since = 0;

  constructor(breaker: Breaker) {
    this.#breaker = breaker;
    this.#window = new SlidingWindow(breaker.error_rate_window_seconds * 1_000);
  }

  /** Takes over the settings of the policy that was used last. */
  configure(breaker: Breaker): void {
    if (breaker === this.#breaker) return;
    // Two policies may share a provider: the longer window serves both, and neither empties it for the other.
    const lengthMs = breaker.error_rate_window_seconds * 1_000;
    if (lengthMs > this.#window.lengthMs) this.#window = new SlidingWindow(lengthMs);
    this.#breaker = breaker;
  }

  state(now: number): CircuitState {
    if (this.#state === "open" && now - this.#since >= this.#breaker.timeout_ms) this.#enter("half_open", now); // C2
    return this.#state;
  }

  /** Whether a call may be made. In half-open it is one of the trials, and counts as one unless `dry`. */
  admit(now: number, dry: boolean): boolean {
    const state = this.state(now);
    if (state !== "half_open") return state === "closed";
    if (this.#trials >= this.#breaker.half_open_max_calls) {
      if (now - this.#since < this.#breaker.timeout_ms) return false;
      this.#trials = 0; // C3
      this.#since = now;
    }
    if (!dry) this.#trials++;
    return true;
  }

  succeeded(now: number, latencyMs: number): void {
    const state = this.state(now);
    if (state === "open") return; // C4
    this.#failuresInARow = 0;
    this.#window.add(now, false, latencyMs);
    if (state === "half_open") {
      this.#trials = Math.max(0, this.#trials - 1);
      if (++this.#successesInARow >= this.#breaker.success_threshold) this.#enter("closed", now);
    } else if (this.#isSlow(now)) this.#enter("open", now);
  }

  failed(now: number, latencyMs: number): void {
    const state = this.state(now);
    if (state === "open") return; // C4
    this.#failuresInARow++;
    this.#window.add(now, true, latencyMs);
    if (
      state === "half_open" ||
      this.#failuresInARow >= this.#breaker.failure_threshold ||
      this.#failsOften(now) ||
      this.#isSlow(now)
    ) {
      this.#enter("open", now);
    }
  }

  /** Share of failed calls in the window, 0 to 1. */
  errorRate(now: number): number {
    const { calls, failures } = this.#window.sum(now);
    return calls === 0 ? 0 : failures / calls;
  }

  /** When it opened, 0 when it is closed. */
  get openedAt(): number {
    return this.#state === "closed" ? 0 : this.#since;
  }

  #failsOften(now: number): boolean {
    const { calls, failures } = this.#window.sum(now);
    return calls >= this.#sample && failures / calls >= this.#breaker.error_rate_threshold;
  }

  #isSlow(now: number): boolean {
    const { calls, latencyMs } = this.#window.sum(now);
    return calls >= this.#sample && latencyMs / calls >= this.#breaker.latency_threshold_ms;
  }

  get #sample(): number {
    return Math.max(MIN_SAMPLE, this.#breaker.failure_threshold);
  }

  #enter(state: CircuitState, now: number): void {
    this.#state = state;
    this.#since = now;
    this.#trials = 0;
    this.#failuresInARow = 0;
    this.#successesInARow = 0;
    if (state === "closed") this.#window.clear();
  }
}
