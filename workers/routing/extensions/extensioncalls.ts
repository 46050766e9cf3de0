/**
 * Calling one extension over request/reply (BeamLine, extensions pipeline).
 *
 * X1 Only a timeout is tried again, after 100, 200, 400 ms; the request's own deadline bounds everything.
 * X2 An open circuit is `extension_unavailable` at once, and so is an extension nobody serves; a timeout is `extension_timeout`; an answer
 *    that is none is `extension_error`. Each counts against the circuit, but not the refusal of an open one.
 */
import { setTimeout as pause } from "node:timers/promises";
import { isError, type Caller } from "../../../bus/call.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { header, type Headers } from "../../../contracts/headers.ts";
import type { ExtensionBook } from "./extensionhealth.ts";
import { isObject } from "../policies/fields.ts";
import type { OwnedExtension } from "../ports.ts";

/** Largest payload, and largest metadata, an extension is sent or may answer with, bytes (BeamLine, limits). */
export const MAX_PAYLOAD_BYTES = 1_048_576;
export const MAX_METADATA_BYTES = 65_536;

export interface ExtensionCall {
  readonly tenant: string;
  readonly traceId: string;
  readonly traceparent: string;
  /** Epoch milliseconds. */
  readonly deadline: number;
  readonly payload: unknown;
  readonly metadata: Readonly<JsonObject>;
  /** Of the policy's entry, in place of the record's. */
  readonly timeoutMs: number | undefined;
  readonly retry: number | undefined;
}

export interface CallPorts {
  readonly caller: Pick<Caller, "call">;
  readonly book: ExtensionBook;
  readonly now: () => number;
  readonly monotonic: () => number;
  readonly onCall?: (owned: OwnedExtension, status: string, ms: number) => void;
}

/** The extension's reply as an object. Throws as X2 says, `invalid_request` for what is too large to send, `deadline_exceeded`. */
export async function callExtension(owned: OwnedExtension, call: ExtensionCall, ports: CallPorts): Promise<JsonObject> {
  const { extension } = owned;
  const { book, monotonic, onCall } = ports;
  const body = bodyOf(call);
  const tries = 1 + (call.retry ?? extension.retry);
  for (let attempt = 1; ; attempt++) {
    if (!book.admit(owned))
      throw new BeamlineError(
        "extension_unavailable",
        `extension ${extension.id} is unavailable: its circuit is open`,
        {
          details: { extension_id: extension.id },
        },
      );
    const started = monotonic();
    try {
      const reply = await attemptCall(owned, body, call, ports);
      book.observe(owned, true, monotonic() - started);
      onCall?.(owned, "success", monotonic() - started);
      return reply;
    } catch (thrown) {
      const error = BeamlineError.from(thrown);
      book.observe(owned, false, monotonic() - started);
      onCall?.(owned, error.code === "extension_timeout" ? "timeout" : "error", monotonic() - started);
      const pauseMs = 100 * 2 ** (attempt - 1);
      const late = ports.now() + pauseMs >= call.deadline;
      if (error.code !== "extension_timeout" || attempt >= tries || late) throw error;
      await pause(pauseMs);
    }
  }
}

function bodyOf({ tenant, traceId, payload, metadata }: ExtensionCall): string {
  const metadataText = JSON.stringify(metadata);
  if (Buffer.byteLength(metadataText) > MAX_METADATA_BYTES)
    throw new BeamlineError("invalid_request", `context is larger than ${MAX_METADATA_BYTES} bytes`, {
      field: "context",
    });
  const body = JSON.stringify({ trace_id: traceId, tenant_id: tenant, payload, metadata });
  if (Buffer.byteLength(body) - Buffer.byteLength(metadataText) > MAX_PAYLOAD_BYTES)
    throw new BeamlineError("invalid_request", `payload is larger than ${MAX_PAYLOAD_BYTES} bytes`, {
      field: "payload",
    });
  return body;
}

async function attemptCall(
  { extension: { id, subject, timeout_ms } }: OwnedExtension,
  body: string,
  { tenant, traceId, traceparent, deadline, timeoutMs }: ExtensionCall,
  { caller, now }: CallPorts,
): Promise<JsonObject> {
  const left = deadline - now();
  if (left <= 0) throw new BeamlineError("deadline_exceeded", "the deadline passed before the extensions were called");
  const headers: Headers = {
    [header.tenantId]: tenant,
    [header.version]: "1",
    ...(traceId !== "" && { [header.traceId]: traceId }),
    ...(traceparent !== "" && { [header.traceparent]: traceparent }),
  };
  const details = { extension_id: id };
  const reply = await caller
    .call(subject, body, { headers, timeoutMs: Math.min(timeoutMs ?? timeout_ms, left) })
    .catch((thrown: unknown) => {
      const error = BeamlineError.from(thrown);
      if (error.code === "deadline_exceeded")
        throw new BeamlineError("extension_timeout", `extension ${id} did not answer in time`, { details });
      throw new BeamlineError("extension_unavailable", `extension ${id} is unavailable: ${error.message}`, { details });
    });
  const answer = jsonOf(reply.text);
  if (isError(reply.headers) || !isObject(answer) || answer["ok"] === false)
    throw new BeamlineError("extension_error", `extension ${id} answered with an error`, { details });
  if (reply.text.length > MAX_PAYLOAD_BYTES + MAX_METADATA_BYTES)
    throw new BeamlineError("extension_error", `extension ${id} answered with more than ${MAX_PAYLOAD_BYTES} bytes`, {
      details,
    });
  return answer;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
