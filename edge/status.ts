/** Errors as gRPC statuses with rich details (google.rpc.Status in `grpc-status-details-bin`). */
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { Metadata, type ServiceError, type StatusObject } from "@grpc/grpc-js";
import { codeIn, errorBody, inBrief } from "../contracts/errorbody.ts";
import { meaning, type BeamlineError } from "../contracts/errors.ts";
import type { Dialect } from "../contracts/routes.ts";

/** Domain of the `ErrorInfo` detail; its reason is the error's code. */
const DOMAIN = "beamline";
/** Bytes of a status that every client reads. Clients commonly take 8 KiB of headers; one that gets more ends the connection with all its calls. */
const MAX_TRAILERS = 7_168;

/**
 * The status of an error: its number, its text, and as details an ErrorInfo, a BadRequest naming the field, a RetryInfo, and for
 * OpenWOP its whole error envelope (OpenWOP, gRPC specifics). `retry-after` seconds travel in the trailing metadata too. A status that is too
 * long for the trailers is told in brief.
 */
export function statusOf(
  given: BeamlineError,
  dialect: Dialect,
): Partial<StatusObject> & Pick<ServiceError, "code" | "details"> {
  // OpenWOP's table is about the codes of its envelopes.
  const code = meaning(dialect === "openwop" ? codeIn(dialect, given.code) : given.code).grpc;
  const whole = encodeStatus(code, given, dialect);
  const tooLong = sentSize(given.message, whole) > MAX_TRAILERS;
  const error = tooLong ? inBrief(given) : given;
  const details = tooLong ? encodeStatus(code, error, dialect) : whole;
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(details));
  if (error.retryAfterSeconds !== undefined) metadata.set("retry-after", String(error.retryAfterSeconds));
  return { code, details: error.message, metadata };
}

/** Bytes that a status takes in the trailers: its text percent-encoded, its details in base64. */
function sentSize(message: string, details: Uint8Array): number {
  const text = details.length > MAX_TRAILERS ? message.length : encodeURI(message.toWellFormed()).length;
  return text + Math.ceil(details.length / 3) * 4;
}

function encodeStatus(code: number, error: BeamlineError, dialect: Dialect): Uint8Array {
  const status = new BinaryWriter().uint32(8).int32(code).uint32(18).string(error.message);
  const attach = (typeUrl: string, value: Uint8Array): void => {
    status.uint32(26).bytes(new BinaryWriter().uint32(10).string(typeUrl).uint32(18).bytes(value).finish());
  };
  attach("type.googleapis.com/google.rpc.ErrorInfo", errorInfo(error));
  if (error.field !== undefined)
    attach("type.googleapis.com/google.rpc.BadRequest", badRequest(error.field, error.message));
  if (error.retryAfterSeconds !== undefined)
    attach("type.googleapis.com/google.rpc.RetryInfo", retryInfo(error.retryAfterSeconds));
  if (dialect === "openwop") {
    attach("openwop.dev/spec/v1/ErrorEnvelope", Buffer.from(JSON.stringify(errorBody(error, dialect)), "utf8"));
  }
  return status.finish();
}

/** `ErrorInfo { reason = 1, domain = 2, metadata = 3 }` */
function errorInfo(error: BeamlineError): Uint8Array {
  const info = new BinaryWriter().uint32(10).string(error.code).uint32(18).string(DOMAIN);
  for (const [key, value] of Object.entries(error.details)) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    if (text === undefined) continue;
    info.uint32(26).bytes(new BinaryWriter().uint32(10).string(key).uint32(18).string(text).finish());
  }
  return info.finish();
}

/** `BadRequest { field_violations = 1 { field = 1, description = 2 } }` */
function badRequest(field: string, description: string): Uint8Array {
  const violation = new BinaryWriter().uint32(10).string(field).uint32(18).string(description).finish();
  return new BinaryWriter().uint32(10).bytes(violation).finish();
}

/** `RetryInfo { retry_delay = 1 { seconds = 1 } }` */
function retryInfo(seconds: number): Uint8Array {
  const delay = new BinaryWriter().uint32(8).int64(Math.ceil(seconds)).finish();
  return new BinaryWriter().uint32(10).bytes(delay).finish();
}
