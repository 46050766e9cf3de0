/**
 * The error catalogue of steps (BeamLine, StepResult mapping): symbolic name, number, and whether trying again can help. Results carry the
 * name, metrics the number.
 */

interface Row {
  readonly number: number;
  readonly retryable: boolean;
}

const row = (number: number, retryable: boolean): Row => ({ number, retryable });

export const stepErrors = {
  INVALID_INPUT: row(1001, false),
  MISSING_REQUIRED_FIELD: row(1002, false),
  INVALID_FORMAT: row(1003, false),
  EXECUTION_FAILED: row(2001, true),
  RESOURCE_UNAVAILABLE: row(2002, true),
  PERMISSION_DENIED: row(2003, false),
  QUOTA_EXCEEDED: row(2004, true),
  NETWORK_ERROR: row(3001, true),
  CONNECTION_TIMEOUT: row(3002, true),
  /** Retried for 5xx, not for 4xx: who throws it says which. */
  HTTP_ERROR: row(3003, true),
  INTERNAL_ERROR: row(4001, true),
  SYSTEM_OVERLOAD: row(4002, true),
  CANCELLED_BY_USER: row(5001, false),
  CANCELLED_BY_TIMEOUT: row(5002, false),
  UNKNOWN_ERROR: row(9999, true),
} as const satisfies Record<string, Row>;

export type StepErrorCode = keyof typeof stepErrors;

export function isStepErrorCode(text: string): text is StepErrorCode {
  return Object.hasOwn(stepErrors, text);
}

/** What a result means for its provider's health (BeamLine, circuit breaker). */
export type HealthOutcome = "success" | "failure" | "ignored";

/** Codes that blame the provider or the way to it; others blame the request. Those of other workers and gateways are among them. */
const infrastructure = new Set<string>(
  (
    "RESOURCE_UNAVAILABLE NETWORK_ERROR CONNECTION_TIMEOUT SYSTEM_OVERLOAD TIMEOUT CONNECTION_ERROR CONNECTION_REFUSED CONNECTION_RESET " +
    "PROVIDER_UNAVAILABLE PROVIDER_ERROR 5XX HTTP_5XX SERVER_ERROR SERVICE_UNAVAILABLE GATEWAY_TIMEOUT HTTP_REQUEST_FAILED DB_CONNECTION_ERROR"
  ).split(" "),
);

const serverStatus = /\b5\d\d\b/;

/** Success is success, a timeout is a failure, a cancellation is ignored, an error counts when it is the infrastructure's. */
export function healthOutcome(result: {
  readonly status: string;
  readonly error_code: string;
  readonly error_message: string;
}): HealthOutcome {
  if (result.status === "success") return "success";
  if (result.status === "timeout") return "failure";
  if (result.status === "cancelled") return "ignored";
  const code = result.error_code.toUpperCase();
  if (infrastructure.has(code) || /^(HTTP_)?5\d\d$/.test(code)) return "failure";
  return code === "HTTP_ERROR" && serverStatus.test(result.error_message) ? "failure" : "ignored";
}
