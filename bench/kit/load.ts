/** A closed loop: so many calls in flight, the next one starts when one is answered. */
import type { Load } from "../case.ts";

/** Starts call number `index`; `done` is told how it went. */
export type StartCall = (index: number, done: (error?: Error) => void) => void;

/** Makes `count` calls. Rejects with the first error: a refused call is not a fast one. */
export function runLoad(count: number, inFlight: number, start: StartCall): Promise<Load> {
  return new Promise((resolve, reject) => {
    const latencies = new Float64Array(count);
    const begun = performance.now();
    let started = 0;
    let answered = 0;
    let failed = false;
    const next = (): void => {
      if (started >= count || failed) return;
      const index = started++;
      const at = performance.now();
      start(index, (error) => {
        if (failed) return;
        if (error !== undefined) {
          failed = true;
          return reject(error);
        }
        const now = performance.now();
        latencies[answered++] = now - at;
        if (answered < count) return next();
        latencies.sort();
        const share = (part: number): number => latencies[Math.floor(count * part)] ?? 0;
        resolve({ count, seconds: (now - begun) / 1000, p50Ms: share(0.5), p99Ms: share(0.99) });
      });
    };
    for (let i = 0; i < Math.min(inFlight, count); i++) next();
  });
}

/** A call that is a promise; what it throws fails the load. */
export function awaited(call: (index: number) => Promise<unknown>): StartCall {
  const run = async (index: number, done: (error?: Error) => void): Promise<void> => {
    try {
      await call(index);
    } catch (thrown) {
      return done(thrown instanceof Error ? thrown : new Error(String(thrown)));
    }
    done();
  };
  return (index, done) => void run(index, done);
}
