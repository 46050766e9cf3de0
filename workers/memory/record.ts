/**
 * What the log keeps: one message per fact, on one subject per remembered thing.
 *
 * R1 A record carries the whole new state of its thing, never a change to it. Applying one twice, or an older one after a newer one, does
 *    no harm; the last message of a subject is all there is to know, and a rebuild reads nothing else.
 * R2 The tenant is a token of the subject. A record whose text names another tenant does not exist: it is read from the subject.
 * R3 What is read is a record, its state the contract's message of its kind, or it is `data_loss`: one that only looks like a record would stop
 *    everything that comes after it.
 */
import { createHash } from "node:crypto";
import { BeamlineError } from "../../contracts/errors.ts";
import { codecOf, type JsonObject } from "../../contracts/codec.ts";
import * as memory from "../../contracts/gen/aios/memory.ts";
import { partOf, tokenOf } from "../../bus/keys.ts";

/** Kinds of remembered things. The long-term ones are also found by search. */
export const kinds = [
  "goal",
  "task",
  "tool_call",
  "decision",
  "pattern",
  "agent_state",
  "procedure",
  "incident",
  "config_change",
  "knowledge",
] as const;
export type Kind = (typeof kinds)[number];

/** Who wrote it, and as part of what. */
export interface Provenance {
  /** Principal of the call; empty for plain NATS callers. */
  readonly by: string;
  /** Task or goal it was written for, when the writer said so. */
  readonly task: string;
  /** W3C trace id of the call. */
  readonly trace: string;
}

/** One remembered thing as it is now. */
export interface Record extends Provenance {
  readonly tenant: string;
  readonly kind: Kind;
  /** As the caller gave it, or made here (knowledge). */
  readonly id: string;
  /** When this state was written, milliseconds since 1970. */
  readonly at: number;
  /** When the thing was first written, microseconds since 1970: breaks ties in the order of lists. */
  readonly born: number;
  /** The message of the contract as JSON; undefined when the thing was given up (pruned, moved to long-term). */
  readonly state: JsonObject | undefined;
}

/** A record with its place in the log. */
export interface Logged extends Record {
  readonly seq: number;
}

export const RECORDS = "log.memory.rec";
export const CRITICAL = "log.memory.critical";
export const RECENT = "log.memory.recent";

/** Longest id that is written out in a subject, characters of its token. A longer one is there by its digest. */
const MAX_ID_TOKEN = 200;

/** The subject of one thing: `log.memory.rec.<tenant>.<kind>.<id>`. */
export function subjectOf(tenant: string, kind: Kind, id: string): string {
  return `${RECORDS}.${tenantToken(tenant)}.${kind}.${idToken(id)}`;
}

/** An id as a token; `=h…` never collides with a written-out one, whose `=` is followed by upper-case hex. */
export function idToken(id: string): string {
  const token = tokenOf(id);
  return token.length <= MAX_ID_TOKEN ? token : `=h${createHash("sha256").update(id).digest("hex")}`;
}

/** A tenant as a token. Throws `invalid_argument` for one that no subject can hold. */
export function tenantToken(tenant: string): string {
  const token = tokenOf(tenant);
  if (token.length > MAX_ID_TOKEN) {
    const text = `tenant_id takes ${token.length} characters in a subject, ${MAX_ID_TOKEN} are the most`;
    throw new BeamlineError("invalid_argument", text, { field: "tenant_id" });
  }
  return token;
}

/** The tenant a subject belongs to (R2): its fourth token in every tree of this log. */
export function tenantOf(subject: string): string {
  return partOf(subject.split(".")[3] ?? "=");
}

/** The text of a record, as it is stored. */
export function writeRecord(record: Record): string {
  const { kind, id, at, born, by, task, trace, state } = record;
  return JSON.stringify({
    v: 1,
    kind,
    id,
    at,
    born,
    ...(by !== "" && { by }),
    ...(task !== "" && { task }),
    ...(trace !== "" && { trace }),
    ...(state !== undefined && { state }),
  });
}

/** What the state of a kind is (R3). */
const messages: Readonly<globalThis.Record<Kind, { fromJson(json: unknown): unknown }>> = {
  goal: codecOf(memory.GoalRecord),
  task: codecOf(memory.TaskRecord),
  tool_call: codecOf(memory.ToolCallRecord),
  decision: codecOf(memory.Decision),
  pattern: codecOf(memory.Pattern),
  agent_state: codecOf(memory.AgentState),
  procedure: codecOf(memory.Procedure),
  incident: codecOf(memory.Incident),
  config_change: codecOf(memory.ConfigChange),
  knowledge: codecOf(memory.KnowledgeEntry),
};

/** The record a text stands for. Throws `data_loss` for what is not one (R3). */
export function readRecord(subject: string, text: string): Record {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new BeamlineError("data_loss", `the record on ${subject} is not JSON`, { cause });
  }
  const { kind, id, at, born, by = "", task = "", trace = "", state } = (body ?? {}) as JsonObject;
  if (!kinds.includes(kind as Kind) || typeof id !== "string" || !Number.isFinite(at)) {
    throw new BeamlineError("data_loss", `the record on ${subject} is not one of memory`);
  }
  try {
    if (state !== undefined) messages[kind as Kind].fromJson(state);
  } catch (cause) {
    throw new BeamlineError("data_loss", `the record on ${subject} has no state of a ${String(kind)}`, { cause });
  }
  return {
    tenant: tenantOf(subject),
    kind: kind as Kind,
    id,
    at: at as number,
    born: Number.isSafeInteger(born) && (born as number) >= 0 ? (born as number) : (at as number) * 1000,
    by: String(by),
    task: String(task),
    trace: String(trace),
    state: state as JsonObject | undefined,
  };
}
