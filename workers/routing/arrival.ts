/** Waiting until a watch has brought a change here that the bucket already has. */
import { setTimeout as pause } from "node:timers/promises";

/** Beyond this the watch is broken, milliseconds; the change is durable all the same. */
const LONGEST_MS = 2_000;

export async function until(fact: () => boolean): Promise<void> {
  const deadline = performance.now() + LONGEST_MS;
  while (!fact() && performance.now() < deadline) await pause(2);
}
