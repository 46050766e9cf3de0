/** placeholder */
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Answer, Asker } from "../caller.ts";
import type { RunsPorts } from "../ports.ts";
export async function forkRun(_ports: RunsPorts, _asker: Asker, _runId: string, _given: unknown): Promise<Answer> {
  throw new BeamlineError("unimplemented", "not yet");
}
