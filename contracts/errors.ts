/**
 * The one error class, the one table of codes, the one converter.
 *
 * Every failure that crosses a seam is a `BeamlineError`. Its code says what went wrong, the table says what that means to each
 * kind of listener: a gRPC client, an HTTP client, and a durable consumer deciding the fate of a message.
 */

/** What a durable consumer does with a message whose handling failed with the code. */
export type Outcome =
  | "term" //  never better next time: dead-letter it
  | "retry" // may be better next time: redeliver with backoff until max_deliver, then dead-letter
  | "done"; // a redelivery met its own earlier success: acknowledge

/** gRPC status numbers (google.rpc.Code). */
export const grpcStatus = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

interface CodeRow {
  readonly grpc: number;
  readonly http: number;
  readonly outcome: Outcome;
}

const row = (grpc: number, http: number, outcome: Outcome): CodeRow => ({ grpc, http, outcome });

/** The only list of codes, one group per contract that names them. */
export const codes = {
  // Codes of our own and of the aiOS services: the gRPC names in lower case.
  cancelled: row(1, 499, "term"),
  invalid_argument: row(3, 400, "term"),
  deadline_exceeded: row(4, 504, "retry"),
  not_found: row(5, 404, "term"),
  already_exists: row(6, 409, "done"),
  permission_denied: row(7, 403, "term"),
  resource_exhausted: row(8, 429, "retry"),
  failed_precondition: row(9, 412, "term"),
  aborted: row(10, 409, "retry"),
  unimplemented: row(12, 501, "term"),
  internal: row(13, 500, "retry"),
  unavailable: row(14, 503, "retry"),
  data_loss: row(15, 500, "term"),
  unauthenticated: row(16, 401, "term"),
  message_too_large: row(8, 413, "term"),

  // BeamLine, error codes of the router and its gateways (reference of the contract, error codes).
  invalid_request: row(3, 400, "term"),
  unauthorized: row(16, 401, "term"),
  denied: row(7, 403, "term"),
  policy_not_found: row(5, 404, "term"),
  decision_failed: row(13, 500, "term"),
  extension_not_found: row(5, 404, "term"),
  extension_timeout: row(14, 504, "retry"),
  validator_blocked: row(7, 403, "term"),
  post_processor_failed: row(13, 500, "retry"),
  extension_unavailable: row(14, 503, "retry"),
  extension_error: row(13, 500, "retry"),
  rate_limit_exceeded: row(8, 429, "retry"),
  quota_exceeded: row(8, 429, "term"),

  // OpenWOP v1, envelope codes (spec/v1 error table and its gRPC mapping).
  key_expired: row(16, 401, "term"),
  key_revoked: row(16, 401, "term"),
  forbidden: row(7, 403, "term"),
  run_forbidden: row(7, 403, "term"),
  validation_error: row(3, 400, "term"),
  run_not_found: row(5, 404, "term"),
  workflow_not_found: row(5, 404, "term"),
  artifact_not_found: row(5, 404, "term"),
  interrupt_not_found: row(5, 404, "term"),
  interrupt_already_resolved: row(9, 409, "term"),
  interrupt_expired: row(9, 410, "term"),
  interrupt_gone: row(9, 410, "term"),
  interrupt_cancelled: row(9, 422, "term"),
  subscription_not_found: row(5, 404, "term"),
  webhook_url_rejected: row(3, 400, "term"),
  run_already_active: row(6, 409, "term"),
  run_terminal: row(9, 409, "term"),
  /** Ours: the contract asks for 409 with `details.runStatus` and names no code (OpenWOP, pause and resume). */
  run_state_conflict: row(9, 409, "term"),
  idempotency_key_mismatch: row(10, 409, "term"),
  idempotency_in_flight: row(10, 409, "retry"),
  rate_limited: row(8, 429, "retry"),
  service_unavailable: row(14, 503, "retry"),
  unsupported_stream_mode: row(3, 400, "term"),
  recursion_limit_exceeded: row(8, 422, "term"),
  run_timeout: row(4, 504, "term"),
  loop_limit_exceeded: row(8, 422, "term"),
  budget_exhausted: row(8, 422, "term"),
  capability_not_provided: row(9, 501, "term"),
  capability_required: row(9, 422, "term"),
  credential_required: row(9, 422, "term"),
  credential_unavailable: row(9, 422, "term"),
  credential_forbidden: row(9, 403, "term"),
  provider_policy_denied: row(7, 403, "term"),
  mock_provider_forbidden: row(7, 403, "term"),
  unsupported_mock_provider: row(3, 400, "term"),
  force_engine_version_forbidden: row(7, 403, "term"),
  unsupported_force_engine_version: row(3, 400, "term"),
  engine_version_mismatch: row(9, 409, "term"),
  version_out_of_range: row(9, 422, "term"),
  channel_access_denied: row(3, 400, "term"),
  channel_schema_breaking_change: row(3, 400, "term"),
  channel_cross_engine_write_forbidden: row(3, 400, "term"),
  unknown_child_workflow: row(5, 404, "term"),
  fan_out_unsupported: row(9, 422, "term"),
  replay_source_missing: row(9, 422, "term"),
  replay_diverged_at_refusal: row(9, 422, "term"),
  approval_rejected: row(9, 422, "term"),
  internal_error: row(13, 500, "retry"),
} as const satisfies Record<string, CodeRow>;

export type Code = keyof typeof codes;

/** What a code means to each listener. */
export function meaning(code: Code): CodeRow {
  return codes[code];
}

/** Whether a text, usually read from a peer's reply, is a code of the table. */
export function isCode(text: unknown): text is Code {
  return typeof text === "string" && Object.hasOwn(codes, text);
}

export interface ErrorExtras {
  /** Path of the offending field in the contract's own names, e.g. `message.tenant_id`. */
  readonly field?: string;
  /** Facts for the caller; never secrets, never implementation detail. */
  readonly details?: Readonly<Record<string, unknown>>;
  /** Seconds after which trying again may help. */
  readonly retryAfterSeconds?: number;
  /** BeamLine only: the upper-case intake code reported beside `code`. */
  readonly intakeErrorCode?: string;
  /** The whole error reply, when who throws knows better than the dialect how to word it (BeamLine's reply context, upper-case admin codes). */
  readonly body?: Readonly<Record<string, unknown>>;
  /** The stranger that caused it: goes to the log, never over the wire. */
  readonly cause?: unknown;
}

/** The one error that crosses seams. */
export class BeamlineError extends Error {
  override readonly name = "BeamlineError";
  readonly code: Code;
  readonly field: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly retryAfterSeconds: number | undefined;
  readonly intakeErrorCode: string | undefined;
  readonly body: Readonly<Record<string, unknown>> | undefined;

  constructor(code: Code, message: string, extras: ErrorExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause });
    this.code = code;
    this.field = extras.field;
    this.details = extras.details ?? {};
    this.retryAfterSeconds = extras.retryAfterSeconds;
    this.intakeErrorCode = extras.intakeErrorCode;
    this.body = extras.body;
  }

  /**
   * Any thrown thing as a `BeamlineError`.
   *
   * 1. A `BeamlineError` is itself.
   * 2. An `AbortError` is `cancelled`, a `TimeoutError` is `deadline_exceeded`: the platform's own names.
   * 3. Everything else is a stranger: `internal`, its text kept as the cause for the log and kept away from the caller.
   */
  static from(thrown: unknown): BeamlineError {
    if (thrown instanceof BeamlineError) return thrown;
    if (thrown instanceof Error) {
      if (thrown.name === "AbortError")
        return new BeamlineError("cancelled", "the call was cancelled", { cause: thrown });
      if (thrown.name === "TimeoutError") {
        return new BeamlineError("deadline_exceeded", "the deadline passed", { cause: thrown });
      }
    }
    return new BeamlineError("internal", "internal error", { cause: thrown });
  }
}

/** `invalid_argument` about one field; the message always names it. */
export function invalidArgument(field: string, what: string): BeamlineError {
  return new BeamlineError("invalid_argument", `${field} ${what}`, { field });
}

/** The code a gRPC status stands for when a peer gave nothing better. */
export function codeOfGrpcStatus(status: number): Code {
  return generic.get(status) ?? "internal";
}

const generic: ReadonlyMap<number, Code> = new Map(
  (
    [
      "cancelled",
      "invalid_argument",
      "deadline_exceeded",
      "not_found",
      "already_exists",
      "permission_denied",
      "resource_exhausted",
      "failed_precondition",
      "aborted",
      "unimplemented",
      "internal",
      "unavailable",
      "data_loss",
      "unauthenticated",
    ] as const
  ).map((code) => [codes[code].grpc, code]),
);
