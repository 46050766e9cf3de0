/**
 * Attempts of one job within its deadline (BeamLine, retry and deadline: the deadline is the budget of all attempts and the pauses between them).
 *
 * A1 A pause that would end beyond the deadline is not begun: the job has timed out.
 * A2 What is not retryable ends the job at once; so does an effect whose outcome nobody knows.
 * A3 A handler that does not listen to its signal is not waited for.
 * A4 What was stopped, or is late, before an attempt is not begun.
 */
import { orAborted } from "../../runtime/aborted.ts";
import type { Clock } from "../../runtime/clock.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { StepFailure, type Output, type StepResult } from "./step.ts";

export interface AttemptOptions {
  readonly maxAttempts: number;
  /** Before the second attempt, milliseconds; doubles from there, capped at 5 s. */
  readonly backoffMs: number;
  /** For everything, milliseconds. */
  readonly budgetMs: number;
  /** When that time began to run, by the clock's `monotonic`. */
  readonly since: number;
  /** Aborts with `cancelled` when someone wants it stopped, with anything else when the process stops. */
  readonly signal: AbortSignal;
  /** Whether the effect must not happen twice. */
  readonly once: boolean;
  readonly clock: Clock;
}

const LONGEST_PAUSE_MS = 5_000;

/** Runs `attempt` until it succeeds, cannot, or time is up. Throws only when the process stops: then nothing is known yet. */
export async function inAttempts(
  options: AttemptOptions,
  attempt: (number: number, signal: AbortSignal) => Promise<Output>,
): Promise<StepResult> {
  const { maxAttempts, backoffMs, budgetMs, since, clock, once } = options;
  const spent = (): number => Math.round(clock.monotonic() - since);
  const time = AbortSignal.timeout(Math.max(1, Math.min(budgetMs - spent(), 2 ** 31 - 1)));
  const signal = AbortSignal.any([time, options.signal]);
  let number = 1;
  const end = (status: StepResult["status"], failure?: StepFailure, output: Output = {}): StepResult => ({
    status,
    output,
    errorCode: failure?.code,
    errorMessage: failure?.message ?? "",
    outcomeUnknown: failure?.outcomeUnknown ?? false,
    latencyMs: status === "timeout" ? Math.max(spent(), budgetMs) : spent(),
    retriesUsed: number - 1,
  });
  const late = (running: boolean): StepResult =>
    end(
      "timeout",
      new StepFailure("CANCELLED_BY_TIMEOUT", `not done within ${budgetMs} ms`, { outcomeUnknown: once && running }),
    );
  for (;;) {
    if (options.signal.aborted) return stopped(options.signal, false, end); // A4
    if (time.aborted || spent() >= budgetMs) return late(false);
    try {
      return end("success", undefined, await orAborted(signal, attempt(number, signal)));
    } catch (thrown) {
      if (options.signal.aborted) return stopped(options.signal, once, end);
      if (time.aborted) return late(true);
      const failure = StepFailure.from(thrown);
      if (!failure.retryable || number >= maxAttempts) return end("error", failure);
      const pause = Math.min(LONGEST_PAUSE_MS, backoffMs * 2 ** (number - 1));
      if (spent() + pause >= budgetMs) return late(false);
      try {
        await clock.sleep(pause, signal);
      } catch {
        return options.signal.aborted ? stopped(options.signal, false, end) : late(false);
      }
      number++;
    }
  }
}

type End = (status: StepResult["status"], failure?: StepFailure) => StepResult;

function stopped(signal: AbortSignal, running: boolean, end: End): StepResult {
  const reason = BeamlineError.from(signal.reason);
  if (reason.code !== "cancelled") throw reason;
  return end("cancelled", new StepFailure("CANCELLED_BY_USER", reason.message, { outcomeUnknown: running }));
}
