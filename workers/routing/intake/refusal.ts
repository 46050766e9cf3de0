/** Why intake refuses a request: the error the caller gets, and the stage and upper-case code operators see (BeamLine, error codes). */
import { BeamlineError, type Code } from "../../../contracts/errors.ts";
import type { RefusedMessage } from "../ports.ts";

export type IntakeCode =
  | "SCHEMA_VALIDATION_FAILED"
  | "VERSION_UNSUPPORTED"
  | "CORRELATION_FIELDS_INVALID"
  | "TENANT_FORBIDDEN"
  | "IDEMPOTENCY_VIOLATION"
  | "PAYLOAD_TOO_SMALL"
  | "INTERNAL_VALIDATION_ERROR";

interface IntakeRow {
  readonly code: Code;
  readonly stage: RefusedMessage["stage"];
  /** Whether the message goes to the dead-letter subject. */
  readonly deadLetter: boolean;
}

/** What each intake code means (BeamLine, intake codes). */
export const intakeCodes: Readonly<Record<IntakeCode, IntakeRow>> = {
  SCHEMA_VALIDATION_FAILED: { code: "invalid_request", stage: "schema", deadLetter: true },
  VERSION_UNSUPPORTED: { code: "invalid_request", stage: "version", deadLetter: true },
  CORRELATION_FIELDS_INVALID: { code: "invalid_request", stage: "correlation", deadLetter: true },
  TENANT_FORBIDDEN: { code: "unauthorized", stage: "message_specific", deadLetter: true },
  IDEMPOTENCY_VIOLATION: { code: "invalid_request", stage: "message_specific", deadLetter: false },
  PAYLOAD_TOO_SMALL: { code: "invalid_request", stage: "message_specific", deadLetter: false },
  INTERNAL_VALIDATION_ERROR: { code: "internal", stage: "internal", deadLetter: false },
};

export function refuse(
  intake: IntakeCode,
  message: string,
  field?: string,
  details: Readonly<Record<string, unknown>> = {},
): BeamlineError {
  return new BeamlineError(intakeCodes[intake].code, message, {
    intakeErrorCode: intake,
    details,
    ...(field !== undefined && { field }),
  });
}

/** A required field that is missing or empty. `path` is where the request should have it; the text names the field alone, as gateways know it. */
export function missing(path: string, intake: IntakeCode = "SCHEMA_VALIDATION_FAILED"): BeamlineError {
  const name = path.slice(path.lastIndexOf(".") + 1);
  return refuse(intake, `Missing required field: ${name}`, path, { type: "required_field_missing" });
}

/** A field that is there and wrong. */
export function malformed(path: string, what: string, intake: IntakeCode = "SCHEMA_VALIDATION_FAILED"): BeamlineError {
  return refuse(intake, `Schema validation failed: ${path} ${what}`, path, { type: "invalid_value" });
}
