/**
 * Reading and writing the logs of runs on JetStream (contracts/openwop/log, L1 to L4).
 *
 * A reader's state is shared and only ever moves forward; the engine folds into a state of its own (session.ts), so that nobody sees
 * what is not written yet.
 */
import type { Bus } from "../../bus/connect.ts";
import { tokenOf } from "../../bus/keys.ts";
import { publish } from "../../bus/publish.ts";
import { readStream } from "../../bus/read.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { checkEngineVersion } from "../../contracts/openwop/engineversion.ts";
import { foldEntry } from "../../contracts/openwop/fold.ts";
import {
  EVENT_SCHEMA_VERSION,
  logTree,
  nudgeSubject,
  parseEntry,
  RUNS_STREAM,
  stepSubject,
  wakeSubject,
  type LogEntry,
  type NewEvent,
  type RunEvent,
  type RunRecord,
} from "../../contracts/openwop/log.ts";
import { secretTexts } from "../../contracts/openwop/snapshot.ts";
import type { RunState } from "../../contracts/openwop/state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Ids } from "../../runtime/ids.ts";
import { withSpan, type Attributes } from "../../runtime/trace.ts";
import { RunCache } from "./runcache.ts";
import { maskEvent } from "./sensitive.ts";
import { baseAttributes } from "./engine/spans.ts";

/** A run as far as its log has been read. */
export interface Held {
  readonly state: RunState;
  /** Stream sequence of the last message read. */
  streamSeq: number;
}

/** One message of a run's log. */
export interface Stored {
  readonly streamSeq: number;
  /** `step` is an engine's own progress, `wake` what others wrote. */
  readonly kind: "wake" | "step";
  readonly entry: LogEntry;
}

/** An append and the state after it. */
export interface Appended {
  readonly state: RunState;
  readonly entry: LogEntry;
}

export class RunLog {
  readonly #bus: Bus;
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #cache = new RunCache();

  constructor(bus: Bus, clock: Clock, ids: Ids) {
    this.#bus = bus;
    this.#clock = clock;
    this.#ids = ids;
  }

  /** Runs whose state is kept in memory. */
  get cached(): number {
    return this.#cache.size;
  }

  /** The run as it is now, undefined when the tenant has none of this id. */
  async find(tenant: string, runId: string): Promise<Held | undefined> {
    const key = `${tenant}\u0000${runId}`;
    let held = this.#cache.get(key);
    for (const stored of await this.read(tenant, runId, (held?.streamSeq ?? 0) + 1)) {
      // Another reader may have moved it on meanwhile.
      const current = this.#cache.get(key) ?? held;
      if (current !== undefined && stored.streamSeq <= current.streamSeq) {
        held = current;
        continue;
      }
      // The beginning has expired, and with it the run.
      if (current === undefined && stored.entry.run === undefined) return undefined;
      const state = foldEntry(current?.state, stored.entry);
      if (current === undefined) held = { state, streamSeq: stored.streamSeq };
      else {
        current.streamSeq = stored.streamSeq;
        held = current;
      }
    }
    if (held !== undefined) this.#cache.put(key, held);
    return held;
  }

  /** As `find`; throws `run_not_found`, which is also what another tenant's run is (OpenWOP, tenancy), `engine_version_mismatch`. */
  async get(tenant: string, runId: string): Promise<Held> {
    const held = await this.find(tenant, runId);
    if (held === undefined) throw noRun(runId);
    checkEngineVersion(held.state.record);
    return held;
  }

  /** Every message of a run from a stream sequence on, in order. */
  async read(tenant: string, runId: string, fromStreamSeq: number): Promise<Stored[]> {
    if (runId === "" || runId.length > 128) return [];
    const subject = logTree(tokenOf(tenant), tokenOf(runId));
    const found: Stored[] = [];
    for await (const message of readStream(this.#bus, RUNS_STREAM, { subject, from: fromStreamSeq }))
      found.push({
        streamSeq: message.seq,
        kind: message.subject.endsWith(".step") ? "step" : "wake",
        entry: parseEntry(message.string()),
      });
    return found;
  }

  /** What a call has appended to a run, and the state it led to; undefined when it has appended nothing. */
  async appended(tenant: string, runId: string, call: string): Promise<Appended | undefined> {
    let state: RunState | undefined;
    for (const { entry } of await this.read(tenant, runId, 1)) {
      if (state === undefined && entry.run === undefined) return undefined;
      state = foldEntry(state, entry);
      if (entry.call === call) return { state, entry };
    }
    return undefined;
  }

  /** All events of a run that is there as a whole. Throws `run_not_found` when its log has expired, or the beginning of it has. */
  async history(tenant: string, runId: string): Promise<RunEvent[]> {
    const events = await this.events(tenant, runId);
    if (events[0]?.sequence === 0) return events;
    this.#cache.delete(`${tenant}\u0000${runId}`);
    throw noRun(runId);
  }

  /** All events of a run that are there, in order. */
  async events(tenant: string, runId: string): Promise<RunEvent[]> {
    return (await this.read(tenant, runId, 1)).flatMap(({ entry }) => entry.events);
  }

  /** Starts a log. Throws `aborted` when the run exists already. Gives back what was stored, and where. */
  async create(record: RunRecord, events: readonly NewEvent[]): Promise<Stored> {
    const entry = { run: record, ...this.#entry(record, -1, "", events, []) };
    return { entry, kind: "wake", streamSeq: await this.append(record, 0, entry, "wake") };
  }

  /**
   * Appends to a run as it is held: a compare-and-set on its log. `beside` stands in the entry beside the events. Throws `aborted` when
   * something came in between. The held state moves on by what was stored.
   */
  async extend(
    held: Held,
    events: readonly NewEvent[],
    beside: Pick<LogEntry, "control" | "call" | "watcher"> = {},
  ): Promise<LogEntry> {
    const { state } = held;
    const { record, sequence, lastAt } = state;
    const entry = { ...this.#entry(record, sequence, lastAt, events, secretTexts(state)), ...beside };
    const before = held.streamSeq;
    const seq = await this.append(record, before, entry, "wake");
    if (held.streamSeq === before) {
      foldEntry(state, entry);
      held.streamSeq = seq;
    }
    return entry;
  }

  #entry(
    record: RunRecord,
    last: number,
    notBefore: string,
    events: readonly NewEvent[],
    secrets: readonly string[],
  ): LogEntry {
    const made = events.map((event, at) => this.event(record, last + 1 + at, notBefore, event));
    return entryOf(record, made, secrets);
  }

  /** The event as it will be stored. Its time is never before `notBefore` (ISO 8601): clocks jump, logs do not. */
  event(
    record: RunRecord,
    sequence: number,
    notBefore: string,
    { type, payload, nodeId, causationId, eventId }: NewEvent,
  ): RunEvent {
    const now = new Date(this.#clock.now()).toISOString();
    return {
      eventId: eventId ?? this.#ids.v7(),
      runId: record.runId,
      type,
      ...(nodeId !== undefined && { nodeId }),
      payload,
      timestamp: now < notBefore ? notBefore : now,
      sequence,
      ...(causationId !== undefined && { causationId }),
      schemaVersion: EVENT_SCHEMA_VERSION,
      engineVersion: String(record.engineVersion),
    };
  }

  /** Stores an entry after the message of sequence `after` (0: as the first). Throws `aborted` when that is not the last one. */
  async append(record: RunRecord, after: number, entry: LogEntry, kind: "wake" | "step"): Promise<number> {
    const tenant = tokenOf(record.owner.tenant);
    const run = tokenOf(record.runId);
    const subject = kind === "wake" ? wakeSubject(tenant, run) : stepSubject(tenant, run);
    const { traceparent } = record;
    const [first] = entry.events;
    const attributes = (): Attributes => ({
      ...baseAttributes(record),
      "openwop.event_type": first?.type ?? "control",
      "openwop.event_seq": first?.sequence ?? -1,
    });
    return withSpan("openwop.event.append", traceparent, attributes, async (onward) => {
      const { seq } = await publish(this.#bus, subject, JSON.stringify(entry), {
        headers: { traceparent: onward },
        expectLastSubjectSequence: after,
        expectLastSubject: logTree(tenant, run),
      });
      return seq;
    });
  }

  /** Makes the engine look at a run; durable. */
  async nudge(tenant: string, runId: string): Promise<void> {
    await publish(this.#bus, nudgeSubject(tokenOf(tenant), tokenOf(runId)), JSON.stringify({ tenant, run_id: runId }));
  }

  /** Keeps a state the engine has folded, for readers. */
  keep(tenant: string, runId: string, held: Held): void {
    const key = `${tenant}\u0000${runId}`;
    const known = this.#cache.get(key);
    if (known === undefined || known.streamSeq < held.streamSeq) this.#cache.put(key, held);
  }
}

function noRun(runId: string): BeamlineError {
  return new BeamlineError("run_not_found", `there is no run ${runId}`);
}

/** An entry of finished events, the sensitive ones masked, and whatever repeats the `secrets` of the run's state. */
export function entryOf(record: RunRecord, events: readonly RunEvent[], secrets: readonly string[] = []): LogEntry {
  const real: Record<string, unknown> = {};
  const shown = events.map((event) => {
    const payload = maskEvent(record, event, secrets);
    if (payload === event.payload) return event;
    real[event.sequence] = event.payload;
    return { ...event, payload };
  });
  return Object.keys(real).length === 0 ? { events: shown } : { events: shown, real };
}
