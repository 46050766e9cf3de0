/** What came of running a node: in time, too late, or thrown. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { failed, type NodeResult } from "./nodetype.ts";

/** The result, or a failure when it takes too long; the node's signal aborts then. */
export async function within(running: Promise<NodeResult>, ms: number, abort: AbortController): Promise<NodeResult> {
  if (ms === Infinity) return running;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<NodeResult>((resolve) => {
    timer = setTimeout(() => {
      resolve(failed("node_timeout", `the node took longer than ${ms} ms`, { retryable: true }));
      abort.abort(new BeamlineError("deadline_exceeded", "the node took too long"));
    }, ms);
  });
  return Promise.race([running, late]).finally(() => clearTimeout(timer));
}

/** A thrown thing as a failure; whether trying again may help is said by its code. */
export function thrownResult(thrown: unknown): NodeResult {
  const error = BeamlineError.from(thrown);
  const stranger = error.code === "internal";
  return failed(stranger ? "node_failed" : error.code, stranger ? "the node failed unexpectedly" : error.message, {
    ...(Object.keys(error.details).length > 0 && { details: error.details }),
    retryable:
      error.code === "unavailable" ||
      error.code === "deadline_exceeded" ||
      error.code === "resource_exhausted" ||
      stranger,
  });
}
