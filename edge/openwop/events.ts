/** The events a client asked for, in its modes and from its cursor on: one source for SSE, poll and gRPC (OpenWOP, streaming). */
import type { Bus } from "../../bus/connect.ts";
import { foldEntry } from "../../contracts/openwop/fold.ts";
import type { LogEntry, RunEvent } from "../../contracts/openwop/log.ts";
import { flushesBuffer, seenIn, type StreamMode } from "../../contracts/openwop/modes.ts";
import { snapshotOf } from "../../contracts/openwop/snapshot.ts";
import type { RunState } from "../../contracts/openwop/state.ts";
import { followLog, hasEnded, liveLog, notFound, readLog } from "./log.ts";

export interface Wanted {
  readonly tenant: string;
  readonly runId: string;
  /** Only events with a greater sequence; -1 is all of them. */
  readonly after: number;
  readonly modes: ReadonlySet<StreamMode>;
}

/** Ends after the run's last event. Throws `run_not_found`, `unavailable`. */
export async function* eventsOf(bus: Bus, wanted: Wanted, signal: AbortSignal): AsyncGenerator<RunEvent> {
  const { tenant, runId, after, modes } = wanted;
  if (modes.has("values")) return yield* snapshots(bus, wanted, signal);
  for await (const entry of followLog(bus, tenant, runId, signal)) {
    for (const event of entry.events) {
      if (event.sequence <= after) continue;
      const seen = seenIn(modes, event);
      if (seen !== undefined) yield seen;
    }
  }
}

/** `values`: the state after each append, as an event of its own. A client that comes back gets the state first, also when nothing happens. */
async function* snapshots(bus: Bus, { tenant, runId, after }: Wanted, signal: AbortSignal): AsyncGenerator<RunEvent> {
  let state: RunState | undefined;
  let newest: RunEvent | undefined;
  const fold = (entry: LogEntry): RunEvent | undefined => {
    state = foldEntry(state, withoutReal(entry));
    const last = entry.events.at(-1);
    newest = last ?? newest;
    return last;
  };
  const shown = (last: RunEvent): RunEvent => ({
    ...last,
    type: "state.snapshot",
    payload: state === undefined ? {} : snapshotOf(state),
  });
  const { entries, lastSeq } = await readLog(bus, tenant, runId, 1);
  if (entries.length === 0) throw notFound(runId);
  let told = false;
  for (const entry of entries) {
    const last = fold(entry);
    if (last === undefined || last.sequence <= after) continue;
    told = true;
    yield shown(last);
  }
  if (!told && newest !== undefined) yield shown(newest);
  if (hasEnded(entries) || signal.aborted) return;
  for await (const entry of liveLog(bus, tenant, runId, lastSeq + 1, signal)) {
    const last = fold(entry);
    if (last !== undefined && last.sequence > after) yield shown(last);
  }
}

/** The edge folds what may be shown, and nothing else. */
function withoutReal({ real: _real, ...entry }: LogEntry): LogEntry {
  return entry;
}

/** Events gathered for `bufferMs`, at once after those that matter. Nothing is lost, whatever ends the stream. */
export async function* buffered(
  events: AsyncIterable<RunEvent>,
  bufferMs: number,
): AsyncGenerator<readonly RunEvent[]> {
  const iterator = events[Symbol.asyncIterator]();
  let held: RunEvent[] = [];
  let due = 0;
  let next = iterator.next();
  try {
    for (;;) {
      const outcome = held.length === 0 ? await next : await raced(next, due - performance.now());
      if (outcome === undefined) {
        yield held;
        held = [];
        continue;
      }
      if (outcome.done === true) break;
      if (held.length === 0) due = performance.now() + bufferMs;
      held.push(outcome.value);
      next = iterator.next();
      if (flushesBuffer(outcome.value)) {
        yield held;
        held = [];
      }
    }
    if (held.length > 0) yield held;
  } finally {
    next.catch(() => undefined);
    await iterator.return?.();
  }
}

async function raced<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), Math.max(0, ms))));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
