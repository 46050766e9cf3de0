/**
 * Time as a port: code that waits or stamps takes a `Clock`, so no test ever sleeps.
 */
import { setTimeout as wait } from "node:timers/promises";

export interface Clock {
  /** Whole milliseconds since the epoch. May jump when the machine's time is set. */
  now(): number;
  /** Whole microseconds since the epoch; agrees with `now()` to within two milliseconds. */
  micros(): number;
  /** Milliseconds, with a fraction, since some fixed moment. Never goes back: for measuring durations. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Microseconds the fine clock may be away from the wall clock before it is set anew. */
const MAX_DRIFT_US = 2_000;

/** The machine's clock. */
export function createSystemClock(): Clock {
  // The wall clock gives milliseconds, the monotonic one microseconds: add the second to a snapshot of the first.
  let offsetUs = Date.now() * 1000 - performance.now() * 1000;
  return {
    now: () => Date.now(),
    micros() {
      const wallUs = Date.now() * 1000;
      const fineUs = performance.now() * 1000 + offsetUs;
      if (Math.abs(fineUs - wallUs) <= MAX_DRIFT_US) return Math.floor(fineUs);
      offsetUs += wallUs - fineUs;
      return wallUs;
    },
    monotonic: () => performance.now(),
    async sleep(ms, signal) {
      try {
        await wait(ms, undefined, signal && { signal });
      } catch (error) {
        signal?.throwIfAborted();
        throw error;
      }
    },
  };
}

/** The machine's clock, shared. */
export const systemClock: Clock = createSystemClock();

/** `2026-11-20T09:30:00.123456Z` from microseconds since the epoch. */
export function isoMicros(micros: number): string {
  const ms = Math.floor(micros / 1000);
  const rest = String(micros - ms * 1000).padStart(3, "0");
  return `${new Date(ms).toISOString().slice(0, -1)}${rest}Z`;
}

interface Sleeper {
  readonly dueMs: number;
  readonly wake: () => void;
}

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
  #nowMs: number;
  #sleepers: Sleeper[] = [];

  /** @param startMs milliseconds since the epoch */
  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = startMs;
  }

  now(): number {
    return Math.floor(this.#nowMs);
  }

  micros(): number {
    return Math.floor(this.#nowMs * 1000);
  }

  monotonic(): number {
    return this.#nowMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const sleeper = { dueMs: this.#nowMs + ms, wake: resolve };
      this.#sleepers.push(sleeper);
      signal?.addEventListener("abort", () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(signal.reason);
      });
    });
  }

  /** How many callers are asleep: the fact to wait for before moving the clock. */
  get sleeping(): number {
    return this.#sleepers.length;
  }

  /** Moves on by `ms`, waking sleepers in order of their time; each gets to run before the next is woken. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const [next] = this.#sleepers.filter((sleeper) => sleeper.dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs);
      if (!next) break;
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper !== next);
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.wake();
      await settled();
    }
    this.#nowMs = endMs;
    await settled();
  }
}

/** Lets every promise that can go on do so. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
