/** The end of a run that cannot be executed: its log says so, besides the dead letter that keeps its work (OpenWOP, dead letter). */
import { partOf } from "../../../bus/keys.ts";
import type { BeamlineError } from "../../../contracts/errors.ts";
import { isTerminal } from "../../../contracts/openwop/snapshot.ts";
import { ended } from "./ended.ts";
import { failure } from "./ending.ts";
import { change } from "../operations/control.ts";
import type { RunsPorts } from "../ports.ts";

const TOO_LARGE = "one step of the run came to more than its log takes at once";

/** `subject` is that of the work that was given up. Throws what appending throws. */
export async function bury(ports: RunsPorts, subject: string, error: BeamlineError, attempts: number): Promise<void> {
  const [, , tenant, runId] = subject.split(".").map(partOf);
  if (tenant === undefined || runId === undefined || (await ports.log.find(tenant, runId)) === undefined) return;
  let mine = false;
  const { state: after } = await change(ports, tenant, runId, (state) => {
    mine = !isTerminal(state);
    if (!mine) return undefined;
    const text = error.code === "message_too_large" ? TOO_LARGE : "the run could not be executed";
    const first = { type: "run.dead_lettered", payload: { runId, reason: `${error.code}: ${text}`, attempts } };
    const end = { code: "internal_error", message: text };
    return { events: [first, ...failure(state, end, ports.clock.now())] };
  });
  if (mine) ended(ports, after);
}
