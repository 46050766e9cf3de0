import { expect, test } from "vitest";
import { BeamlineError } from "../../contracts/errors.ts";
import { systemClock } from "../../runtime/clock.ts";
import { unheardDuring } from "../../test/kit/unheard.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { inAttempts, type AttemptOptions } from "./attempts.ts";
import { StepFailure } from "./step.ts";

const never = new AbortController().signal;
const options = (more: Partial<AttemptOptions> = {}): AttemptOptions => ({
  maxAttempts: 3,
  backoffMs: 1,
  budgetMs: 1_000,
  since: systemClock.monotonic(),
  signal: never,
  once: false,
  clock: systemClock,
  ...more,
});
const hang = (): Promise<never> => new Promise(() => undefined);

test("a retryable failure is tried again, the last one stands", async () => {
  const seen: number[] = [];
  const result = await inAttempts(options(), (attempt) => {
    seen.push(attempt);
    return attempt < 3
      ? Promise.reject(new StepFailure("NETWORK_ERROR", "no"))
      : Promise.resolve({ payload: "done", cost: 1 });
  });
  expect(seen).toEqual([1, 2, 3]);
  expect(result).toMatchObject({
    status: "success",
    output: { payload: "done" },
    retriesUsed: 2,
    errorCode: undefined,
  });
  expect(
    await inAttempts(options({ maxAttempts: 2 }), () => Promise.reject(new StepFailure("NETWORK_ERROR", "no"))),
  ).toMatchObject({ status: "error", errorCode: "NETWORK_ERROR", retriesUsed: 1 });
});

test("A2: what cannot get better, or has an unknown outcome, is not tried again", async () => {
  for (const failure of [
    new StepFailure("INVALID_INPUT", "no"),
    new StepFailure("NETWORK_ERROR", "no", { outcomeUnknown: true }),
  ]) {
    expect(await inAttempts(options(), () => Promise.reject(failure))).toMatchObject({
      status: "error",
      errorCode: failure.code,
      retriesUsed: 0,
      outcomeUnknown: failure.outcomeUnknown,
    });
  }
  expect(
    await inAttempts(options({ maxAttempts: 1 }), () => Promise.reject(new Error("a stranger's secret"))),
  ).toMatchObject({ errorCode: "EXECUTION_FAILED", errorMessage: "the job failed" });
});

test("A1 and A3: time is up for the job, whether it listens or not, and for a pause too long", async () => {
  expect(await inAttempts(options({ budgetMs: 30 }), hang)).toMatchObject({
    status: "timeout",
    errorCode: "CANCELLED_BY_TIMEOUT",
    outcomeUnknown: false,
  });
  expect(await inAttempts(options({ budgetMs: 30, once: true }), hang)).toMatchObject({
    status: "timeout",
    outcomeUnknown: true,
  });
  expect(
    await inAttempts(options({ budgetMs: 50, backoffMs: 60 }), () =>
      Promise.reject(new StepFailure("NETWORK_ERROR", "no")),
    ),
  ).toMatchObject({ status: "timeout", retriesUsed: 0 });
});

test("cancelled is an end, stopping is not", async () => {
  const cancel = new AbortController();
  const cancelled = inAttempts(options({ signal: cancel.signal }), hang);
  cancel.abort(new BeamlineError("cancelled", "enough"));
  expect(await cancelled).toMatchObject({
    status: "cancelled",
    errorCode: "CANCELLED_BY_USER",
    errorMessage: "enough",
  });
  const stop = new AbortController();
  const stopped = inAttempts(options({ signal: stop.signal }), hang);
  stop.abort(new BeamlineError("unavailable", "stopping"));
  await expect(stopped).rejects.toMatchObject({ code: "unavailable" });
});

verifies(
  "effect-once",
  "A4: what was stopped or late before it began is not begun, and no failure of it is unheard",
  async () => {
    const unheard = await unheardDuring(async () => {
      let begun = 0;
      const attempt = (): Promise<never> => {
        begun++;
        return Promise.reject(new StepFailure("NETWORK_ERROR", "no"));
      };
      const cancelled = AbortSignal.abort(new BeamlineError("cancelled", "enough"));
      expect(await inAttempts(options({ signal: cancelled, once: true }), attempt)).toMatchObject({
        status: "cancelled",
        outcomeUnknown: false,
      });
      const stopping = AbortSignal.abort(new BeamlineError("unavailable", "stopping"));
      await expect(inAttempts(options({ signal: stopping, once: true }), attempt)).rejects.toMatchObject({
        code: "unavailable",
      });
      const since = systemClock.monotonic() - 2_000;
      expect(await inAttempts(options({ since, once: true }), attempt)).toMatchObject({
        status: "timeout",
        outcomeUnknown: false,
      });
      expect(begun).toBe(0);
    });
    expect(unheard).toEqual([]);
  },
);
