/** Replies in the form of the request (BeamLine, reply forms): the bare decision, the envelope, the error envelope. */
import { codeIn, errorBody, type ReplyContext } from "../../../contracts/errorbody.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import type { Words } from "../choice/decision.ts";
import type { RoutingRequest } from "./forms.ts";

export function reply({ form, requestId, traceId }: RoutingRequest, { bare, enveloped }: Words): string {
  if (form === "seed" || form === "flat") return bare;
  return `{"ok":true,"decision":${enveloped},"context":${JSON.stringify(contextOf(requestId, traceId))}}`;
}

export function contextOf(requestId: string, traceId: string): ReplyContext {
  return traceId === "" ? { request_id: requestId } : { request_id: requestId, trace_id: traceId };
}

/** The error with its reply body made: the envelope of every request form. */
export function inEnvelope(error: BeamlineError, requestId: string, traceId: string): BeamlineError {
  return withBody(error, errorBody(error, "beamline", contextOf(requestId, traceId)));
}

/** The error as the admin subjects word it: the code in upper case (BeamLine, admin subjects). */
export function inUpperCase(error: BeamlineError): BeamlineError {
  const body = errorBody(error, "beamline");
  const inner = body["error"] as JsonObject;
  return withBody(error, { ok: false, error: { ...inner, code: adminCode(error) } });
}

function adminCode({ code }: BeamlineError): string {
  if (code === "internal") return "INTERNAL_ERROR";
  if (codeIn("beamline", code) === "invalid_request") return "INVALID_ARGUMENT";
  return code.toUpperCase();
}

function withBody(error: BeamlineError, body: JsonObject): BeamlineError {
  return new BeamlineError(error.code, error.message, {
    details: error.details,
    body,
    ...(error.field !== undefined && { field: error.field }),
    ...(error.retryAfterSeconds !== undefined && { retryAfterSeconds: error.retryAfterSeconds }),
    ...(error.intakeErrorCode !== undefined && { intakeErrorCode: error.intakeErrorCode }),
    ...(error.cause !== undefined && { cause: error.cause }),
  });
}
