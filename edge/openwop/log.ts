/**
 * Reading a run's log at the edge: first what is there, then what comes, from JetStream itself. No worker is asked, and an edge that dies
 * loses nothing: the client's cursor is all there is to know.
 */
import type { Bus } from "../../bus/connect.ts";
import { followStream } from "../../bus/follow.ts";
import { tokenOf } from "../../bus/keys.ts";
import { readStream } from "../../bus/read.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { checkEngineVersion } from "../../contracts/openwop/engineversion.ts";
import { logTree, parseEntry, RUNS_STREAM, TERMINAL_EVENTS, type LogEntry } from "../../contracts/openwop/log.ts";

/** Of readings there may be thousands, milliseconds. */
const BEAT_MS = 5_000;

interface Page {
  readonly entries: readonly LogEntry[];
  readonly lastSeq: number;
}

/** What is stored from a stream sequence on. Throws `engine_version_mismatch`, `unavailable` at once when the bus is away. */
export async function readLog(bus: Bus, tenant: string, runId: string, fromSeq: number): Promise<Page> {
  if (!bus.connected) throw new BeamlineError("unavailable", "the bus is not connected");
  const entries: LogEntry[] = [];
  let lastSeq = fromSeq - 1;
  if (runId === "" || runId.length > 128) return { entries, lastSeq };
  const subject = logTree(tokenOf(tenant), tokenOf(runId));
  for await (const message of readStream(bus, RUNS_STREAM, { subject, from: fromSeq })) {
    const entry = parseEntry(message.string());
    if (entry.run !== undefined) checkEngineVersion(entry.run);
    // A log whose beginning has expired is no log.
    else if (fromSeq <= 1 && entries.length === 0) return { entries, lastSeq };
    entries.push(entry);
    lastSeq = message.seq;
  }
  return { entries, lastSeq };
}

/** Throws `run_not_found`, which is also what another tenant's run is. */
export function notFound(runId: string): BeamlineError {
  return new BeamlineError("run_not_found", `there is no run ${runId}`);
}

export function hasEnded(entries: readonly LogEntry[]): boolean {
  const last = entries.at(-1)?.events.at(-1);
  return last !== undefined && TERMINAL_EVENTS.has(last.type);
}

/**
 * Every append of a run, past ones first, until the one that ends it. Leaving the loop, or `signal`, stops reading. Throws `run_not_found`
 * before the first, `unavailable` when the bus is away.
 */
export async function* followLog(
  bus: Bus,
  tenant: string,
  runId: string,
  signal: AbortSignal,
): AsyncGenerator<LogEntry> {
  const backlog = await readLog(bus, tenant, runId, 1);
  if (backlog.entries.length === 0) throw notFound(runId);
  yield* backlog.entries;
  if (hasEnded(backlog.entries) || signal.aborted) return;
  yield* liveLog(bus, tenant, runId, backlog.lastSeq + 1, signal);
}

/** What comes from a stream sequence on, as it comes. Throws `unavailable` when it cannot go on before the run has ended. */
export async function* liveLog(
  bus: Bus,
  tenant: string,
  runId: string,
  fromSeq: number,
  signal: AbortSignal,
): AsyncGenerator<LogEntry> {
  const subjects = [logTree(tokenOf(tenant), tokenOf(runId))];
  const options = { subjects, from: fromSeq, signal, window: 100, beatMs: BEAT_MS };
  for await (const message of followStream(bus, RUNS_STREAM, options)) {
    const entry = parseEntry(message.string());
    yield entry;
    if (hasEnded([entry])) return;
  }
}
