/** Tests that show a promise of the design. The manifest test fails when a promise has none. */
import { test, type TestOptions } from "vitest";

export const promises = [
  "one-contract",
  "thin-edge",
  "log-is-truth",
  "acked-is-durable",
  "effect-once",
  "crash-safe",
  "clear-failure",
  "tenant-wall",
  "one-trace",
  "two-commands",
] as const;

export type PromiseId = (typeof promises)[number];

/** A test of a promise: `verifies("crash-safe", "a killed worker loses nothing", async () => { … })`. */
export function verifies(
  promise: PromiseId,
  what: string,
  run: () => Promise<void> | void,
  options: TestOptions = {},
): void {
  test(`${promise}: ${what}`, options, run);
}
