/**
 * A run while a worker executes it: the engine's own fold, and the events it has made but not written yet.
 *
 * S1 What is emitted is folded at once, so that planning sees it; nobody else does before `flush` has written it.
 * S2 One append at a time. What is emitted meanwhile goes into the next. What is too large for one append becomes several; events that
 *    were emitted together stay together.
 * S3 When others wrote in between (answers, a cancel), the log is read again and what was not written is put behind it, unless the run
 *    has ended or is paused: then it is dropped, and planned anew should the run go on. An end that was planned before is planned anew too.
 * S4 When another engine wrote in between, this one has lost the run: what it planned was planned on a log that is not the run's any
 *    more, and putting it behind would start nodes, and their effects, a second time. The session is over, nothing of it is written.
 */
import { BeamlineError } from "../../../contracts/errors.ts";
import { checkEngineVersion } from "../../../contracts/openwop/engineversion.ts";
import { apply, foldEntry } from "../../../contracts/openwop/fold.ts";
import {
  TERMINAL_EVENTS,
  type LogEntry,
  type NewEvent,
  type RunEvent,
  type RunRecord,
} from "../../../contracts/openwop/log.ts";
import { isTerminal, secretTexts } from "../../../contracts/openwop/snapshot.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import { entryOf, type Held, type RunLog } from "../log.ts";

const MAX_CONFLICTS = 50;

/** S4. Retried like any other `unavailable`: whoever is delivered the work next reads the whole log. */
export class RunLost extends BeamlineError {
  constructor(runId: string) {
    super("unavailable", `another worker executes run ${runId}`);
  }
}

export class Session {
  readonly #log: RunLog;
  readonly #tenant: string;
  readonly #runId: string;
  #state: RunState;
  #streamSeq: number;
  /** What was emitted together is a group. */
  #pending: RunEvent[][] = [];
  #flushing: Promise<void> | undefined;
  #span: string | undefined;

  constructor(log: RunLog, state: RunState, streamSeq: number) {
    this.#log = log;
    this.#state = state;
    this.#streamSeq = streamSeq;
    this.#tenant = state.record.owner.tenant;
    this.#runId = state.record.runId;
  }

  /**
   * Reads a run. `known` spares the read when the message at hand is the whole log so far. Undefined when there is no such run. Throws
   * `unavailable` for a run of a newer engine: another worker may be one.
   */
  static async open(
    log: RunLog,
    tenant: string,
    runId: string,
    known?: { entry: LogEntry; streamSeq: number },
  ): Promise<Session | undefined> {
    if (known?.entry.run !== undefined) {
      refuseNewer(known.entry.run);
      return new Session(log, foldEntry(undefined, known.entry), known.streamSeq);
    }
    let state: RunState | undefined;
    let seq = 0;
    for (const { entry, streamSeq } of await log.read(tenant, runId, 1)) {
      if (entry.run !== undefined) refuseNewer(entry.run);
      // The beginning has expired, and with it the run.
      else if (state === undefined) return undefined;
      state = foldEntry(state, entry);
      seq = streamSeq;
    }
    return state === undefined ? undefined : new Session(log, state, seq);
  }

  /** Valid until the next wait: a conflict replaces it. */
  get state(): RunState {
    return this.#state;
  }
  /** How often something was emitted that is not written yet. */
  get unwritten(): number {
    return this.#pending.length;
  }
  get held(): Held {
    return { state: this.#state, streamSeq: this.#streamSeq };
  }

  /** The traceparent of the span it is recorded under: the log keeps the first one. */
  recordedUnder(traceparent: string): void {
    this.#span = traceparent;
  }

  /** Adds events that belong together (S1, S2). */
  emit(...events: readonly NewEvent[]): void {
    const group = events.map((event) => {
      const made = this.#log.event(this.#state.record, this.#state.sequence + 1, this.#state.lastAt, event);
      apply(this.#state, made);
      return made;
    });
    if (group.length > 0) this.#pending.push(group);
  }

  /** Writes what was emitted. Throws `unavailable` and the like; the session is of no use then. */
  async flush(): Promise<void> {
    while (this.#flushing !== undefined) await this.#flushing;
    if (this.#pending.length === 0) return;
    this.#flushing = this.#write().finally(() => (this.#flushing = undefined));
    await this.#flushing;
  }

  async #write(): Promise<void> {
    let most = Infinity;
    for (let conflicts = 0; this.#pending.length > 0;) {
      const groups = this.#pending.slice(0, most);
      this.#pending = this.#pending.slice(groups.length);
      const { record, span = this.#span } = this.#state;
      const entry = {
        ...entryOf(record, groups.flat(), secretTexts(this.#state)),
        ...(this.#state.span === undefined && span !== undefined && { span }),
      };
      try {
        this.#streamSeq = await this.#log.append(record, this.#streamSeq, entry, "step");
        if (span !== undefined) this.#state.span = span;
      } catch (thrown) {
        const code = thrown instanceof BeamlineError ? thrown.code : undefined;
        const tooLarge = code === "message_too_large" && groups.length > 1;
        if (!tooLarge && (code !== "aborted" || conflicts++ === MAX_CONFLICTS)) throw thrown;
        this.#pending = [...groups, ...this.#pending];
        if (tooLarge) most = Math.ceil(groups.length / 2);
        else await this.#rebase();
      }
    }
  }

  /** Takes in what others have written. */
  async sync(): Promise<void> {
    while (this.#flushing !== undefined) await this.#flushing;
    await this.#rebase();
  }

  /** S3. */
  async #rebase(): Promise<void> {
    const stored = await this.#log.read(
      this.#tenant,
      this.#runId,
      this.#pending.length === 0 ? this.#streamSeq + 1 : 1,
    );
    const last = stored.at(-1);
    if (last === undefined || last.streamSeq <= this.#streamSeq) return;
    if (stored.some(({ streamSeq, kind }) => kind === "step" && streamSeq > this.#streamSeq)) {
      this.#pending = [];
      throw new RunLost(this.#runId);
    }
    let state = this.#pending.length === 0 ? this.#state : undefined;
    for (const { entry } of stored) state = foldEntry(state, entry);
    if (state === undefined) throw new BeamlineError("data_loss", `the log of run ${this.#runId} is gone`);
    this.#state = state;
    this.#streamSeq = last.streamSeq;
    const lost = this.#pending;
    this.#pending = [];
    if (isTerminal(state) || state.status === "paused") return;
    for (const group of lost) {
      const again: RunEvent[] = [];
      for (const event of group) {
        if (TERMINAL_EVENTS.has(event.type)) break;
        const { lastAt, sequence } = this.#state;
        const timestamp = event.timestamp < lastAt ? lastAt : event.timestamp;
        const made = { ...event, sequence: sequence + 1, timestamp };
        apply(this.#state, made);
        again.push(made);
      }
      if (again.length > 0) this.#pending.push(again);
      if (again.length < group.length) break;
    }
  }
}

function refuseNewer(record: RunRecord): void {
  try {
    checkEngineVersion(record);
  } catch (cause) {
    throw new BeamlineError("unavailable", "the run belongs to a newer engine", { cause });
  }
}
