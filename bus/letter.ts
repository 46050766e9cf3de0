/**
 * A dead letter as bytes (BeamLine, DLQ, max-deliver form; our own facts are under `context`).
 *
 * D1 The payload comes back byte for byte. JSON stands in the body as it was sent, last of all, and `context.payload_bytes` says how long it is;
 *    other text is a JSON string, anything else base64, and what does not fit the message is in the object store (`context.payload_ref`).
 * D2 The headers of the message are kept in the body as they were; on the dead letter itself they win over ours on a clash, except those that
 *    command the server.
 */
import { isUtf8 } from "node:buffer";
import type { BeamlineError, Code } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import type { ClaimRef } from "./claims.ts";
import type { Origin } from "./retry.ts";

/** Why a message is dead, in the words of the contract. */
export type DeadLetterReason = "maxdeliver_exhausted" | "validation_failed" | "processing_error";

const reasons: ReadonlySet<string> = new Set<DeadLetterReason>([
  "maxdeliver_exhausted",
  "validation_failed",
  "processing_error",
]);

type PayloadEncoding = "json" | "utf8" | "base64" | "claim";

/** Everything known about a message when it was given up. */
export interface LastRites {
  readonly reason: DeadLetterReason;
  /** The failure that decided it. */
  readonly error: BeamlineError;
  readonly origin: Origin;
  readonly stream: string;
  readonly durable: string;
  /** Tries made, the last one included. */
  readonly attempts: number;
  /** Epoch milliseconds at which it was given up. */
  readonly timestamp: number;
}

/** Our own facts beside the contract's, keys as they go over the wire. */
export interface LetterContext {
  readonly stream: string;
  readonly durable: string;
  readonly sequence: number;
  readonly attempts: number;
  readonly first_seen: number;
  readonly last_seen: number;
  readonly error: {
    readonly code: Code;
    readonly message: string;
    readonly field?: string;
    readonly details?: unknown;
  };
  readonly payload_encoding: PayloadEncoding;
  readonly payload_bytes: number;
  readonly payload_ref?: ClaimRef;
}

/** The parsed body of a dead letter. */
export interface Letter {
  readonly original_subject: string;
  readonly msg_id: string;
  readonly reason: DeadLetterReason;
  readonly error_code: string;
  readonly timestamp: number;
  readonly trace_id: string;
  readonly tenant_id: string;
  readonly context: LetterContext;
  readonly message: {
    readonly id: string;
    readonly subject: string;
    readonly headers: Headers;
    readonly payload?: unknown;
  };
}

/** The body. `claim` says where the payload is when it is not inside. */
export function writeLetter(rites: LastRites, payload: Uint8Array, claim?: ClaimRef): string {
  const { origin, error, reason } = rites;
  const { encoding, raw, json } =
    claim === undefined ? payloadText(payload) : { encoding: "claim" as const, raw: undefined, json: undefined };
  const id = messageId(rites);
  const context: LetterContext = {
    stream: rites.stream,
    durable: rites.durable,
    sequence: origin.sequence,
    attempts: rites.attempts,
    first_seen: origin.firstSeenMs,
    last_seen: rites.timestamp,
    error: {
      code: error.code,
      message: error.message,
      ...(error.field !== undefined && { field: error.field }),
      ...detailsOf(error),
    },
    payload_encoding: encoding,
    payload_bytes: payload.length,
    ...(claim !== undefined && { payload_ref: claim }),
  };
  const facts = {
    original_subject: origin.subject,
    msg_id: id,
    reason,
    error_code: reason.toUpperCase(),
    timestamp: rites.timestamp,
    trace_id: origin.headers[header.traceId] ?? origin.headers[header.traceparent]?.split("-")[1] ?? "",
    tenant_id: origin.headers[header.tenantId] ?? tenantIn(json) ?? "",
    context,
  };
  const message = JSON.stringify({ id, subject: origin.subject, headers: origin.headers });
  const tail = raw === undefined ? message : `${message.slice(0, -1)},"payload":${raw}}`;
  return `${JSON.stringify(facts).slice(0, -1)},"message":${tail}}`;
}

/** Details that JSON cannot hold must not keep a message from being given up. */
function detailsOf({ details }: BeamlineError): { details?: unknown } {
  try {
    return Object.keys(details).length > 0 ? { details: JSON.parse(JSON.stringify(details)) as unknown } : {};
  } catch {
    return {};
  }
}

/** Message id of the contract's forms: the publisher's, else the place in the stream. */
export function messageId({ origin, stream }: Pick<LastRites, "origin" | "stream">): string {
  return origin.msgId ?? `${stream}:${origin.sequence}`;
}

/** D1: how the payload stands in the body. */
function payloadText(payload: Uint8Array): { encoding: PayloadEncoding; raw: string; json?: unknown } {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
  if (!isUtf8(bytes)) return { encoding: "base64", raw: JSON.stringify(bytes.toString("base64")) };
  const text = bytes.toString("utf8");
  try {
    return { encoding: "json", raw: text, json: JSON.parse(text) };
  } catch {
    return { encoding: "utf8", raw: JSON.stringify(text) };
  }
}

function tenantIn(json: unknown): string | undefined {
  if (typeof json !== "object" || json === null || !("tenant_id" in json)) return undefined;
  return typeof json.tenant_id === "string" ? json.tenant_id : undefined;
}

/** A body of ours, parsed; undefined for the other forms that arrive on dead-letter subjects. */
export function readLetter(body: Uint8Array): Letter | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8"));
  } catch {
    return undefined;
  }
  return isLetter(parsed) ? parsed : undefined;
}

function isLetter(body: unknown): body is Letter {
  const { original_subject, reason, context, message } = (body ?? {}) as Partial<Record<keyof Letter, unknown>>;
  const known = typeof reason === "string" && reasons.has(reason);
  return (
    known &&
    typeof original_subject === "string" &&
    isObject(context) &&
    "payload_encoding" in context &&
    isObject(message)
  );
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** D1: the payload inside a body; a claim's is redeemed by the caller. */
export function payloadIn(body: Uint8Array, { context, message }: Letter): Uint8Array {
  if (context.payload_encoding === "base64") return Buffer.from(String(message.payload), "base64");
  if (context.payload_encoding === "utf8") return Buffer.from(String(message.payload), "utf8");
  // `}}` closes the message and the letter.
  const end = body.length - 2;
  const exact = body.subarray(end - context.payload_bytes, end);
  const rewritten = Buffer.from(JSON.stringify(message.payload), "utf8");
  return sameJson(exact, rewritten) ? exact : rewritten;
}

/** Guards against a body that someone wrote anew on the way. */
function sameJson(exact: Uint8Array, rewritten: Uint8Array): boolean {
  try {
    return JSON.stringify(JSON.parse(Buffer.from(exact).toString("utf8"))) === rewritten.toString();
  } catch {
    return false;
  }
}
