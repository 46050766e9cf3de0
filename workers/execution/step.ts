/** What became of a job, in the words of the contract (BeamLine, StepResult mapping). */
import { stepErrors, type StepErrorCode } from "../../contracts/execution/catalogue.ts";
import type { ResultStatus } from "../../contracts/execution/result.ts";
import { BeamlineError } from "../../contracts/errors.ts";

/** A job that failed, and whether trying again can help. */
export class StepFailure extends Error {
  override readonly name = "StepFailure";
  readonly code: StepErrorCode;
  readonly retryable: boolean;
  /** True when nobody can know whether the effect happened: then it is never tried again. */
  readonly outcomeUnknown: boolean;

  constructor(
    code: StepErrorCode,
    message: string,
    options: { retryable?: boolean; outcomeUnknown?: boolean; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.code = code;
    this.outcomeUnknown = options.outcomeUnknown ?? false;
    this.retryable = !this.outcomeUnknown && (options.retryable ?? stepErrors[code].retryable);
  }

  /** Any thrown thing. A stranger is `EXECUTION_FAILED` and its text stays inside. */
  static from(thrown: unknown): StepFailure {
    if (thrown instanceof StepFailure) return thrown;
    if (thrown instanceof BeamlineError) return new StepFailure(codeOf(thrown), thrown.message, { cause: thrown });
    return new StepFailure("EXECUTION_FAILED", "the job failed", { cause: thrown });
  }
}

function codeOf({ code }: BeamlineError): StepErrorCode {
  switch (code) {
    case "invalid_argument":
    case "not_found":
    case "failed_precondition":
    case "message_too_large":
      return "INVALID_INPUT";
    case "permission_denied":
    case "unauthenticated":
      return "PERMISSION_DENIED";
    case "unavailable":
      return "NETWORK_ERROR";
    case "deadline_exceeded":
      return "CONNECTION_TIMEOUT";
    case "resource_exhausted":
      return "SYSTEM_OVERLOAD";
    default:
      return "EXECUTION_FAILED";
  }
}

/** What a job gives back. */
export interface Output {
  /** Any JSON; undefined for none. */
  readonly payload?: unknown;
  /** US dollars; 0 when left out. */
  readonly cost?: number;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The end of a job. */
export interface StepResult {
  readonly status: ResultStatus;
  readonly output: Output;
  /** Undefined on success. */
  readonly errorCode: StepErrorCode | undefined;
  readonly errorMessage: string;
  readonly outcomeUnknown: boolean;
  readonly latencyMs: number;
  readonly retriesUsed: number;
}
