/** Jobs that touch nothing: `echo` gives its input back, `sleep` waits (BeamLine, job types). */
import type { Clock } from "../../../runtime/clock.ts";
import { objectInput, type Job } from "../job.ts";
import { StepFailure } from "../step.ts";

const LONGEST_SLEEP_MS = 3_600_000;

export const echoJob: Job = {
  types: ["echo"],
  effect: "repeatable",
  run: (input) => Promise.resolve({ payload: input }),
};

/** `{ms = 100}`, no output. */
export function sleepJob(clock: Clock): Job {
  return {
    types: ["sleep"],
    effect: "repeatable",
    async run(input, { signal }) {
      const { ms = 100 } = objectInput(input);
      if (typeof ms !== "number" || !(ms >= 0 && ms <= LONGEST_SLEEP_MS)) {
        throw new StepFailure("INVALID_INPUT", `job.payload.ms must be a number from 0 to ${LONGEST_SLEEP_MS}`);
      }
      await clock.sleep(ms, signal);
      return {};
    },
  };
}
