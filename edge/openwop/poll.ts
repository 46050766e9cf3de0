/** Long poll of a run's events (OpenWOP, poll): the log as it is, all events. */
import type { Bus } from "../../bus/connect.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { parseCursor } from "../../contracts/openwop/modes.ts";
import { hasEnded, liveLog, notFound, readLog } from "./log.ts";

const DEFAULT_TIMEOUT_S = 30;
const MAX_TIMEOUT_S = 60;

export interface Polled {
  readonly events: readonly RunEvent[];
  /** The run has ended and nothing is left. */
  readonly isComplete: boolean;
}

/** Answers at once when there is something, or the run has ended; else waits for it. Throws `validation_error`, `run_not_found`. */
export async function poll(
  bus: Bus,
  tenant: string,
  runId: string,
  query: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<Polled> {
  const after = parseCursor(query["lastSequence"] ?? query["since"], "lastSequence");
  const timeoutMs = timeoutOf(query["timeout"]) * 1_000;
  const { entries, lastSeq } = await readLog(bus, tenant, runId, 1);
  if (entries.length === 0) throw notFound(runId);
  const events = entries.flatMap((entry) => entry.events).filter(({ sequence }) => sequence > after);
  if (events.length > 0 || hasEnded(entries)) return { events, isComplete: hasEnded(entries) };
  const waited = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  for await (const entry of liveLog(bus, tenant, runId, lastSeq + 1, waited)) {
    const fresh = entry.events.filter(({ sequence }) => sequence > after);
    if (fresh.length > 0) return { events: fresh, isComplete: hasEnded([entry]) };
  }
  return { events: [], isComplete: false };
}

function timeoutOf(text: string | undefined): number {
  if (text === undefined || text === "") return DEFAULT_TIMEOUT_S;
  const seconds = Number(text);
  if (/^\d+$/.test(text) && seconds >= 1 && seconds <= MAX_TIMEOUT_S) return seconds;
  throw new BeamlineError("validation_error", `timeout must be a whole number of seconds from 1 to ${MAX_TIMEOUT_S}`, {
    field: "timeout",
  });
}
