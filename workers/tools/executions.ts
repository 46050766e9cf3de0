/**
 * Executions, one subject each. Every message holds the whole state, so the last one is enough, and a change is a compare-and-set on the one
 * before: exactly one worker finishes, undoes or gives up an execution.
 *
 *     started ──> finished ──> undoing ──> undone
 *        └──────> unknown: its worker vanished; nobody can say what happened. One that was only away, or stopped for a while, can: finished
 */
import { createHash } from "node:crypto";
import type { Bus } from "../../bus/connect.ts";
import { tokenOf } from "../../bus/keys.ts";
import { publishRetrying } from "../../bus/retrying.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { streams } from "../../contracts/streams.ts";
import { systemIds } from "../../runtime/ids.ts";
import { isObject, lastOf, readFrom, readSince, type Logged } from "./journal.ts";
import type { Step } from "./undo.ts";

export interface Execution {
  readonly execution_id: string;
  readonly tenant: string;
  readonly task_id: string;
  readonly tool_name: string;
  readonly agent_id: string;
  readonly reason: string;
  readonly state: "started" | "finished" | "unknown" | "undoing" | "undone";
  readonly input_hash: string;
  readonly idempotent: boolean;
  readonly backup_id: string;
  /** Host it ran on: files are undone where they are. */
  readonly node: string;
  readonly steps: readonly Step[];
  /** Epoch milliseconds. */
  readonly started_at: number;
  /** When it must have ended, epoch milliseconds; later it is unknown. */
  readonly due_at: number;
  readonly success?: boolean;
  readonly error?: string;
  /** The output as it was sent; absent when it was too large to keep. */
  readonly output?: string;
  readonly duration_ms?: number;
  readonly undone_by?: string;
  readonly changed_at?: number;
}

const { name: STREAM } = streams.toolExecutions;
/** Outputs up to this size are kept for repeated calls, bytes. */
export const KEPT_OUTPUT = 512 * 1024;
const MAX_TOKEN = 200;
/** How long the bus may be away: before a tool runs its caller waits, afterwards what it did must not be forgotten. Milliseconds. */
const START_MS = 5_000;
const CHANGE_MS = 60_000;

/** An execution with its place in the log. */
export interface Known {
  readonly execution: Execution;
  readonly seq: number;
}

export class Executions {
  readonly #bus: Bus;
  /** For `abandoned`: what is started and not ended, as far as the log was read. */
  readonly #running = new Map<string, Known>();
  #read = 0;

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  /** Records a new execution. Throws `unavailable`, and then nothing may be run. */
  async start(execution: Execution): Promise<Known> {
    return this.#store(execution, 0, START_MS);
  }

  /** Records the next state, once the bus is back when it is away. Throws `aborted` when somebody else did before, `unavailable` after a minute. */
  async change(known: Known, next: Partial<Execution>, now: number): Promise<Known> {
    return this.#store({ ...known.execution, ...next, changed_at: now }, known.seq, CHANGE_MS);
  }

  /** The same for the worker that ran it: it knows how it ended, also when it was taken for vanished meanwhile. */
  async finish(known: Known, next: Partial<Execution>, now: number): Promise<Known> {
    try {
      return await this.change(known, next, now);
    } catch (thrown) {
      const { tenant, execution_id } = known.execution;
      const found = isConflict(thrown) ? await this.find(tenant, execution_id) : undefined;
      if (found?.execution.state !== "unknown") throw thrown;
      return this.change({ ...known, seq: found.seq }, next, now);
    }
  }

  /** An execution by its id; undefined when the tenant has none. */
  async find(tenant: string, executionId: string): Promise<Known | undefined> {
    if (executionId === "" || executionId.length > MAX_TOKEN) return undefined;
    const subject = `log.tools.exec.${short(tenant)}.*.${tokenOf(executionId)}`;
    return known(await lastOf(this.#bus, STREAM, subject, isExecution));
  }

  /** What was done for a task, oldest first. */
  async ofTask(tenant: string, task: string): Promise<Known[]> {
    const last = new Map<string, Known>();
    const all = `log.tools.exec.${short(tenant)}.${short(task)}.*`;
    for await (const { subject, value, seq } of readFrom(this.#bus, STREAM, all, isExecution)) {
      if (value !== undefined) last.set(subject, { execution: value, seq });
    }
    return [...last.values()].sort((a, b) => a.execution.started_at - b.execution.started_at);
  }

  /** What a task did last. */
  async lastOfTask(tenant: string, task: string): Promise<Known | undefined> {
    const all = `log.tools.exec.${short(tenant)}.${short(task)}.*`;
    return known(await lastOf(this.#bus, STREAM, all, isExecution));
  }

  /**
   * Executions that were started and should have ended by now. The first time it looks back to `sinceMs`, from then on it reads only what is
   * new.
   */
  async abandoned(sinceMs: number, now: number): Promise<Known[]> {
    const news =
      this.#read === 0
        ? readSince(this.#bus, STREAM, new Date(sinceMs), isExecution)
        : readFrom(this.#bus, STREAM, "log.tools.exec.>", isExecution, this.#read + 1);
    for await (const { subject, value, seq } of news) {
      this.#read = seq;
      if (value?.state === "started") this.#running.set(subject, { execution: value, seq });
      else this.#running.delete(subject);
    }
    return [...this.#running.values()].filter(({ execution }) => execution.due_at < now);
  }

  async #store(execution: Execution, expected: number, timeoutMs: number): Promise<Known> {
    const { tenant, task_id, execution_id } = execution;
    const subject = `log.tools.exec.${short(tenant)}.${short(task_id)}.${tokenOf(execution_id)}`;
    const { seq } = await publishRetrying(this.#bus, subject, JSON.stringify(execution), {
      expectLastSubjectSequence: expected,
      // One of its own for every writer: with the same one, two who want the same next state would both be told that it is stored.
      msgId: systemIds.v7(),
      timeoutMs,
    });
    return { execution, seq };
  }
}

/** Whether somebody else changed the execution first. */
export function isConflict(thrown: unknown): boolean {
  return thrown instanceof BeamlineError && thrown.code === "aborted";
}

function known(found: Logged<Execution> | undefined): Known | undefined {
  return found?.value === undefined ? undefined : { execution: found.value, seq: found.seq };
}

function isExecution(value: unknown): value is Execution {
  if (!isObject(value) || !Array.isArray(value["steps"])) return false;
  const texts = ["execution_id", "tenant", "task_id", "tool_name", "agent_id", "state", "node"];
  return texts.every((name) => typeof value[name] === "string") && typeof value["due_at"] === "number";
}

/** A caller's text as a token: readable when short, hashed when long. */
function short(text: string): string {
  const token = tokenOf(text);
  return token.length <= MAX_TOKEN ? token : createHash("sha256").update(text).digest("hex");
}
