/**
 * Error bodies in the words of each contract, and back.
 *
 * - BeamLine and aiOS: `{"ok":false,"error":{"code","message","intake_error_code"?,"details"?},"context"?}`, codes of BeamLine's
 *   known set only where BeamLine is spoken (BeamLine, reply forms and error codes; aiOS defines no JSON error, so it shares it).
 * - OpenWOP: `{"error":"<code>","message":"<text>","details"?}` and no other top-level key (OpenWOP, errors).
 */
import { BeamlineError, codeOfGrpcStatus, isCode, meaning, type Code } from "./errors.ts";
import { header, type Headers } from "./headers.ts";
import type { JsonObject } from "./codec.ts";
import type { Dialect } from "./routes.ts";

/** How BeamLine's gateways spell the generic codes: they answer 200 to a code they do not know. */
const inBeamline: Partial<Record<Code, Code>> = {
  invalid_argument: "invalid_request",
  message_too_large: "invalid_request",
  failed_precondition: "invalid_request",
  already_exists: "invalid_request",
  unauthenticated: "unauthorized",
  permission_denied: "denied",
  not_found: "policy_not_found",
  resource_exhausted: "rate_limit_exceeded",
  quota_exceeded: "rate_limit_exceeded",
  deadline_exceeded: "unavailable",
  unimplemented: "internal",
  cancelled: "internal",
  aborted: "internal",
  data_loss: "internal",
};

const inOpenwop: Partial<Record<Code, Code>> = {
  invalid_argument: "validation_error",
  message_too_large: "validation_error",
  permission_denied: "forbidden",
  resource_exhausted: "rate_limited",
  deadline_exceeded: "service_unavailable",
  unavailable: "service_unavailable",
  internal: "internal_error",
  cancelled: "internal_error",
  aborted: "service_unavailable",
  data_loss: "internal_error",
  unimplemented: "capability_not_provided",
};

/** The code a contract's clients know for a failure. */
export function codeIn(dialect: Dialect, code: Code): Code {
  if (dialect === "beamline") return inBeamline[code] ?? code;
  return dialect === "openwop" ? (inOpenwop[code] ?? code) : code;
}

/** What a reply context carries in BeamLine's envelopes. */
export interface ReplyContext {
  readonly request_id?: string;
  readonly trace_id?: string;
}

/** The error as a JSON body in the words of a contract. */
export function errorBody(error: BeamlineError, dialect: Dialect, context?: ReplyContext): JsonObject {
  const code = codeIn(dialect, error.code);
  const details: JsonObject = { ...error.details };
  if (error.field !== undefined) details["field"] = error.field;
  const message = error.message || code;
  if (dialect === "openwop") {
    if (error.retryAfterSeconds !== undefined) details["retryAfter"] = error.retryAfterSeconds;
    return { error: code, message, ...(some(details) && { details }) };
  }
  if (error.retryAfterSeconds !== undefined) details["retry_after_seconds"] = error.retryAfterSeconds;
  const body: JsonObject = { code, message };
  if (error.intakeErrorCode !== undefined) body["intake_error_code"] = error.intakeErrorCode;
  if (some(details)) body["details"] = details;
  return { ok: false, error: body, ...(context !== undefined && { context }) };
}

/** The same error in words that fit anywhere: text of others may be in them. Message and field are cut, details left out. */
export function inBrief(error: BeamlineError): BeamlineError {
  const { code, message, field, intakeErrorCode, retryAfterSeconds } = error;
  return new BeamlineError(code, cut(message), {
    ...(field !== undefined && { field: cut(field) }),
    ...(intakeErrorCode !== undefined && { intakeErrorCode }),
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
  });
}

/** Characters of a text in brief. */
const BRIEF = 256;

function cut(text: string): string {
  return text.length <= BRIEF ? text : `${text.slice(0, BRIEF).toWellFormed()}…`;
}

/** Headers that mark a reply as an error (NATS service protocol, ADR-32): the text, one line, and the HTTP status. */
export function errorHeaders(error: BeamlineError): Headers {
  return {
    [header.serviceError]: `${error.code}: ${error.message}`.replaceAll(/[\r\n]+/g, " "),
    [header.serviceErrorCode]: String(meaning(error.code).http),
  };
}

/** Whether a JSON body is an error of any contract. */
export function isErrorBody(body: JsonObject): boolean {
  return body["ok"] === false || typeof body["error"] === "string";
}

/** The error a peer's body stands for; any contract's form, and a bare text as `internal`. */
export function errorOfBody(body: unknown, fallback?: string): BeamlineError {
  const object = isObject(body) ? body : {};
  const nested = isObject(object["error"]) ? object["error"] : undefined;
  const code = nested === undefined ? object["error"] : nested["code"];
  const message = nested === undefined ? object["message"] : nested["message"];
  const details = nested === undefined ? object["details"] : nested["details"];
  const facts = isObject(details) ? details : {};
  const { field, retry_after_seconds, retryAfter, ...rest } = facts;
  const retry = typeof retry_after_seconds === "number" ? retry_after_seconds : retryAfter;
  const intake = nested?.["intake_error_code"];
  return new BeamlineError(
    isCode(code) ? code : codeOfText(code),
    typeof message === "string" && message !== "" ? message : (fallback ?? "internal error"),
    {
      details: rest,
      ...(typeof field === "string" && { field }),
      ...(typeof retry === "number" && { retryAfterSeconds: retry }),
      ...(typeof intake === "string" && { intakeErrorCode: intake }),
    },
  );
}

/** An upper-case gRPC or admin code (`INVALID_ARGUMENT`) is its lower-case twin; anything else is `internal`. */
function codeOfText(text: unknown): Code {
  const lower = typeof text === "string" ? text.toLowerCase() : "";
  return isCode(lower) ? lower : codeOfGrpcStatus(13);
}

function some(object: JsonObject): boolean {
  for (const _ in object) return true;
  return false;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
