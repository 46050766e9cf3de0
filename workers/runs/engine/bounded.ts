/**
 * What a workflow made up (a pattern, an expression, a schema) is computed for so long and no longer: a worker holds many runs, and one of
 * them must not hold all others up.
 */
import { createContext, Script } from "node:vm";
import { BeamlineError } from "../../../contracts/errors.ts";

/** Milliseconds. What is meant well takes a thousandth of it. */
export const MOST_MS = 1_000;

const call = new Script("run()");
const context = createContext({});

/** What `run` computes. Throws what it throws; `validation_error` naming `field` when it takes too long. Must not be nested. */
export function bounded<T>(field: string, run: () => T): T {
  const results: T[] = [];
  context["run"] = () => void results.push(run());
  try {
    call.runInContext(context, { timeout: MOST_MS });
  } catch (thrown) {
    if ((thrown as { code?: unknown } | null)?.code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw thrown;
    throw new BeamlineError("validation_error", `${field} takes longer than ${MOST_MS} ms`, { field });
  }
  context["run"] = undefined;
  return results[0] as T;
}
