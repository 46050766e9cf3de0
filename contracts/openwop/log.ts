/**
 * The log of a run (OpenWOP, event log; design, runs).
 *
 * L1 A run's events are the messages of one subject tree, `log.runs.<tenant>.<run>.*`. One message is one append: a batch of events.
 * L2 Every append names the last stream sequence of that tree it has seen; the server refuses it when something came in between.
 * L3 Appends that give the engine something to do end in `.wake`, and are its durable work items: the event and the work it causes are
 *    one write. The engine's own progress ends in `.step`.
 * L4 Sequences start at 0 and have no gaps; the terminal event is the last one.
 */
import { BeamlineError } from "../errors.ts";
import { isObject } from "./json.ts";
import type { Channel, WorkflowVariable } from "./workflow.ts";

export const RUNS_STREAM = "RUNS";

/** Version of an event's payload, `schemaVersion` of each event. */
export const EVENT_SCHEMA_VERSION = 1;
/** Version of the log's layout, `eventLogSchemaVersion` of snapshots and discovery. */
export const LOG_SCHEMA_VERSION = 2;

/** One event as clients read it (OpenWOP, RunEventDoc). Times are ISO 8601. */
export interface RunEvent {
  readonly eventId: string;
  readonly runId: string;
  readonly type: string;
  readonly payload: unknown;
  readonly timestamp: string;
  readonly sequence: number;
  readonly nodeId?: string;
  readonly causationId?: string;
  readonly schemaVersion?: number;
  readonly engineVersion?: string;
}

/** Who owns a run (OpenWOP, tenancy and identity). Opaque names, no personal data. */
export interface Owner {
  readonly tenant: string;
  readonly workspace?: string;
  readonly principal?: string;
}

export interface Parent {
  readonly runId: string;
  readonly nodeId: string;
  readonly workflowId: string;
  readonly propagateCancellation: boolean;
}

/** A node that starts when somebody else writes to a channel (OpenWOP, channels: the `channel-write` trigger). */
export interface ChannelTrigger {
  readonly nodeId: string;
  readonly channel: string;
  /** How long the channel must have been quiet, milliseconds; 0 starts the node for each write. */
  readonly debounceMs: number;
}

export interface ForkOrigin {
  readonly sourceRunId: string;
  readonly fromSeq: number;
  readonly mode: "replay" | "branch";
  /** Run whose recorded effects and children a replay answers with: the source, or for a replay of a replay what that one had. */
  readonly effectsOf: string;
  /** Where to look for what that run has not: a branch made its own effects after its cut alone. Nearest first. */
  readonly effectsBefore?: readonly string[];
  /** When it was made, ISO 8601: its time counts from here, not from when its source lived. */
  readonly at?: string;
}

/** What a run was started with; stands in its first message and never changes. */
export interface RunRecord {
  readonly runId: string;
  readonly workflowId: string;
  /** Digest under which exactly this definition is stored: a run keeps the version it started with. */
  readonly definition: string;
  readonly workflowVersion: string;
  readonly owner: Owner;
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly configurable: Readonly<Record<string, unknown>>;
  readonly tags: readonly string[];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly scopeId?: string;
  readonly callbackUrl?: string;
  /** What the fold needs to know of the workflow. */
  readonly variables: readonly WorkflowVariable[];
  readonly channels: Readonly<Record<string, Channel>>;
  /** None when absent. */
  readonly triggers?: readonly ChannelTrigger[];
  readonly masking: Masking;
  /** Output ports to mask, by node. */
  readonly sensitivePorts?: Readonly<Record<string, readonly string[]>>;
  readonly parent?: Parent;
  readonly fork?: ForkOrigin;
  /** Whether a test key started it: mock providers and forced engine versions are for those alone. */
  readonly test?: boolean;
  readonly engineVersion: number;
  readonly traceparent: string;
  /** Of a fork: traceparent of the span its source was recorded under, if it was. */
  readonly sourceSpan?: string;
}

export type Masking = "mask" | "omit" | "hash" | "passthrough";

/** One append. */
export interface LogEntry {
  /** In a run's first entry alone. */
  readonly run?: RunRecord;
  readonly events: readonly RunEvent[];
  /** Traceparent of the span the run is recorded under, in the first entry written below it. */
  readonly span?: string;
  /** The call with an idempotency key that asked for this, by its execution: made again, it is told what came of it. */
  readonly call?: string;
  /** A replay that waits for the end of this run, its source's child, and is to be woken by it. */
  readonly watcher?: string;
  /** A wish that takes effect later, when it becomes an event. */
  readonly control?: Control;
  /** Unmasked payloads by sequence, where the event's own is masked. For the engine; never shown. */
  readonly real?: Readonly<Record<string, unknown>>;
}

/** A pause that waits for the executing nodes (OpenWOP, pause: `drain-current-node`). */
export interface Control {
  readonly kind: "pause";
  readonly reason?: string;
  readonly requestedAt: string;
}

/** What an event is made from; the append adds the rest. */
export interface NewEvent {
  readonly type: string;
  readonly payload: unknown;
  readonly nodeId?: string;
  readonly causationId?: string;
  /** For events that must keep their id, and for those that later events of the same batch name as their cause. */
  readonly eventId?: string;
}

/** The runs a fork's recorded effects and children may be those of, nearest first. */
export function effectRuns({ effectsOf, effectsBefore = [] }: ForkOrigin): readonly string[] {
  return [effectsOf, ...effectsBefore];
}

export const TERMINAL_EVENTS: ReadonlySet<string> = new Set(["run.completed", "run.failed", "run.cancelled"]);
export const TERMINAL_STATUS: ReadonlySet<string> = new Set(["completed", "failed", "cancelled"]);

/** Subject tree of a run's log; `tenant` and `runId` as single tokens (bus/keys `tokenOf`). */
export function logTree(tenantToken: string, runToken: string): string {
  return `log.runs.${tenantToken}.${runToken}.*`;
}
export function wakeSubject(tenantToken: string, runToken: string): string {
  return `log.runs.${tenantToken}.${runToken}.wake`;
}
export function stepSubject(tenantToken: string, runToken: string): string {
  return `log.runs.${tenantToken}.${runToken}.step`;
}
/** Wakes a run without an event of its own: timers and ended children. */
export function nudgeSubject(tenantToken: string, runToken: string): string {
  return `log.run_nudge.${tenantToken}.${runToken}`;
}

/** Parses a log message. Throws `data_loss` for what is not one. */
export function parseEntry(text: string): LogEntry {
  let entry: unknown;
  try {
    entry = JSON.parse(text);
  } catch {
    throw unreadable();
  }
  if (!isEntry(entry)) throw unreadable();
  return entry;
}

function isEntry(given: unknown): given is LogEntry {
  if (!isObject(given)) return false;
  const { run, events } = given;
  return (run === undefined || isRecord(run)) && Array.isArray(events) && events.every(isEvent);
}

function isEvent(given: unknown): given is RunEvent {
  return isObject(given) && typeof given["type"] === "string" && typeof given["sequence"] === "number";
}

/** Whether it has what folding starts from. */
function isRecord(given: unknown): given is RunRecord {
  if (!isObject(given) || !isObject(given["owner"])) return false;
  const { runId, owner, inputs, variables, channels } = given;
  const named = typeof runId === "string" && typeof owner["tenant"] === "string";
  return named && isObject(inputs) && Array.isArray(variables) && isObject(channels);
}

function unreadable(): BeamlineError {
  return new BeamlineError("data_loss", "a message of the log of a run cannot be read");
}
