/** Calls of the last while: how many, how many failed, how long they took. Kept in ten slices, so the window moves on a tenth at a time. */

const SLICES = 10;

interface Slice {
  /** Which tenth of a window since the epoch. */
  readonly number: number;
  calls: number;
  failures: number;
  latencyMs: number;
}

export interface WindowSum {
  readonly calls: number;
  readonly failures: number;
  /** Of all calls together. */
  readonly latencyMs: number;
}

export class SlidingWindow {
  /** Milliseconds. */
  readonly lengthMs: number;
  readonly #sliceMs: number;
  #slices: Slice[] = [];

  constructor(lengthMs: number) {
    this.lengthMs = lengthMs;
    this.#sliceMs = lengthMs / SLICES;
  }

  add(now: number, failed: boolean, latencyMs: number): void {
    const number = Math.floor(now / this.#sliceMs);
    let slice = this.#slices.at(-1);
    if (slice === undefined || slice.number < number) {
      this.#drop(number);
      this.#slices.push((slice = { number, calls: 0, failures: 0, latencyMs: 0 }));
    }
    slice.calls++;
    slice.failures += failed ? 1 : 0;
    slice.latencyMs += latencyMs;
  }

  sum(now: number): WindowSum {
    this.#drop(Math.floor(now / this.#sliceMs));
    const sum = { calls: 0, failures: 0, latencyMs: 0 };
    for (const slice of this.#slices) {
      sum.calls += slice.calls;
      sum.failures += slice.failures;
      sum.latencyMs += slice.latencyMs;
    }
    return sum;
  }

  clear(): void {
    this.#slices = [];
  }

  #drop(number: number): void {
    const first = this.#slices[0];
    if (first !== undefined && first.number <= number - SLICES)
      this.#slices = this.#slices.filter((slice) => slice.number > number - SLICES);
  }
}
