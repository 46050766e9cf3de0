import { setTimeout as pause } from "node:timers/promises";

type Found<T> = Exclude<T, false | undefined | null | 0>;

/**
 * Waits for a fact: asks `fact` again and again until it answers something true, and gives that back. After `deadlineMs` (default
 * 15 s) it throws with `what` it waited for, and with the last error of `fact` when it threw.
 */
export async function until<T>(
  fact: () => T | Promise<T>,
  what = "the expected fact",
  deadlineMs = 15_000,
): Promise<Found<T>> {
  const deadline = performance.now() + deadlineMs;
  let last: unknown;
  for (;;) {
    try {
      const found = await fact();
      if (found !== false && found !== undefined && found !== null && found !== 0) return found as Found<T>;
      last = undefined;
    } catch (thrown) {
      last = thrown;
    }
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain for ${what}`, { cause: last });
    await pause(5);
  }
}
