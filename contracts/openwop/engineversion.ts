/** The version of this engine, and what a reader does with runs of another one (OpenWOP, version axes, horizontal scale). */
import { BeamlineError } from "../errors.ts";
import type { RunRecord } from "./log.ts";

/** A run keeps the version it was started by. */
export const ENGINE_VERSION = 1;

/**
 * Refuses a run that a newer engine wrote: its log may say what this one does not understand. Equal and older ones are fine, and so are the
 * labels that test keys force. Throws `engine_version_mismatch`.
 */
export function checkEngineVersion({ runId, engineVersion, test }: RunRecord): void {
  if (engineVersion <= ENGINE_VERSION || test === true) return;
  throw new BeamlineError("engine_version_mismatch", "the run was written by a newer engine", {
    details: { runId, persistedVersion: engineVersion, currentVersion: ENGINE_VERSION },
  });
}
