/** Publishing again until it is known to be stored, or the deadline has passed. */
import { setTimeout as pause } from "node:timers/promises";
import { BeamlineError } from "../contracts/errors.ts";
import type { Bus } from "./connect.ts";
import { publish, type PublishOptions, type Stored } from "./publish.ts";

export interface RetryingOptions extends PublishOptions {
  /** Every attempt carries it, so the stream keeps one. Must be unique to the message. */
  readonly msgId: string;
  /** For all attempts and the waits between them, milliseconds. Default 30 000; keep it below the stream's duplicate window. */
  readonly timeoutMs?: number;
  /** For one attempt, milliseconds. Default 2000. */
  readonly attemptTimeoutMs?: number;
}

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2_000;

/**
 * `publish`, again and again while the failure may pass (`unavailable`, `deadline_exceeded`, a full stream), with growing pauses and at once
 * when the connection is back. Throws the last failure when the time is up, any other failure at once, `cancelled` when the signal aborts.
 */
export async function publishRetrying(
  bus: Bus,
  subject: string,
  payload: string | Uint8Array,
  options: RetryingOptions,
): Promise<Stored> {
  return retrying(bus, options, (attempt) => publish(bus, subject, payload, { ...options, ...attempt }));
}

/** Runs an idempotent attempt by the rules of `publishRetrying`. */
export async function retrying<T>(
  bus: Bus,
  options: Pick<RetryingOptions, "timeoutMs" | "attemptTimeoutMs" | "signal">,
  attempt: (limits: { timeoutMs: number }) => Promise<T>,
): Promise<T> {
  const { timeoutMs = 30_000, attemptTimeoutMs = 2_000, signal } = options;
  const deadline = performance.now() + timeoutMs;
  for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 2, LONGEST_PAUSE_MS)) {
    const left = deadline - performance.now();
    try {
      return await attempt({ timeoutMs: Math.max(1, Math.min(attemptTimeoutMs, left)) });
    } catch (thrown) {
      const error = BeamlineError.from(thrown);
      if (!mayPass(error) || deadline - performance.now() <= wait) throw error;
      await connectedOr(bus, wait, signal);
    }
  }
}

function mayPass({ code }: BeamlineError): boolean {
  return code === "unavailable" || code === "deadline_exceeded" || code === "resource_exhausted";
}

/** Waits, but no longer than until the connection is back. */
async function connectedOr(bus: Bus, ms: number, signal: AbortSignal | undefined): Promise<void> {
  const woken = new AbortController();
  const unwatch = bus.onReconnect(() => woken.abort());
  const onAbort = (): void => woken.abort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await pause(ms, undefined, { signal: woken.signal });
  } catch {
    // Woken early.
  } finally {
    unwatch();
    signal?.removeEventListener("abort", onAbort);
  }
  if (signal?.aborted === true)
    throw new BeamlineError("cancelled", "the publish was cancelled; it may have been stored");
}
