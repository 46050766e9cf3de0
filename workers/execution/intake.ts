/**
 * An assignment from its arrival to its result (BeamLine, execution contract).
 *
 * I1 Every assignment that can be told by its id ends in one result, also one that was refused or cancelled. What cannot be read is a dead letter.
 * I2 The same assignment again is ignored while it runs here and after its result is stored.
 * I3 A job whose effect must not happen twice is marked before it begins. Whoever finds the mark of another worker waits until that one's deadline,
 *    and if there is no result then, reports an unknown outcome; the effect is not repeated. A mark of its own that it could not know to be stored
 *    is no such mark: its job has not begun.
 * I4 A process that stops hands its jobs back; what was begun and marked is reported by I3, the rest is done by another worker.
 */
import type { MessageContext } from "../../bus/consume.ts";
import { keyOf } from "../../bus/keys.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Clock } from "../../runtime/clock.ts";
import { acceptTraceparent, SpanKind, withSpan } from "../../runtime/trace.ts";
import { readAssignment, type Assignment } from "../../contracts/execution/assignment.ts";
import type { StepErrorCode } from "../../contracts/execution/catalogue.ts";
import { isJson, MAX_ID, openJson, text } from "../../contracts/execution/reading.ts";
import type { Result } from "../../contracts/execution/result.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { header } from "../../contracts/headers.ts";
import { inAttempts } from "./attempts.ts";
import type { Cancellations } from "./cancellations.ts";
import type { Inputs } from "./inputs.ts";
import { effectOf, type Job, type Jobs } from "./job.ts";
import type { Measures } from "./measures.ts";
import type { Reports } from "./reports.ts";
import type { Started } from "./started.ts";
import { StepFailure, type StepResult } from "./step.ts";

export interface IntakePorts {
  readonly workerId: string;
  readonly jobs: Jobs;
  readonly inputs: Inputs;
  readonly reports: Reports;
  readonly started: Started;
  readonly cancellations: Cancellations;
  readonly measures: Measures;
  readonly clock: Clock;
  readonly log: Logger;
  /** Longest a job may take, whatever its assignment says, milliseconds. */
  readonly jobTimeoutMs: number;
  /** Whether job types this worker does not know are left to other workers instead of refused. */
  readonly leaveUnknown: boolean;
}

/** A job that takes longer is acknowledged at once after this; a shorter one together with its result, milliseconds. */
const ACCEPT_MS = 20;

/** Assignments a worker knows to have done, as many as BeamLine's own worker remembers. */
const REMEMBERED = 4_096;

/** Extra time a worker gets to report after its deadline, milliseconds. */
const GRACE_MS = 2_000;

export class Intake {
  readonly #ports: IntakePorts;
  readonly #running = new Map<string, Promise<void>>();
  /** Lately done here, oldest first: whoever publishes an assignment twice, and not as the contract says, is found out. */
  readonly #recent = new Set<string>();
  /** When marks were tried whose job has not begun: one that was stored all the same, and found later, is this worker's own leave to begin. */
  readonly #tried = new Map<string, number>();

  constructor(ports: IntakePorts) {
    this.#ports = ports;
  }

  /** Jobs being executed. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Handles one delivery. Throws what makes the message come again, or what makes it a dead letter. */
  readonly handle = (payload: Uint8Array, context: MessageContext): Promise<void> => {
    let assignment: Assignment;
    try {
      assignment = readAssignment(payload, context.headers);
    } catch (thrown) {
      return this.#refuse(payload, context, BeamlineError.from(thrown));
    }
    const key = keyOf(assignment.tenant_id, assignment.assignment_id);
    const known = this.#running.get(key);
    if (known !== undefined) return known; // I2
    const work = this.#take(assignment, payload, context).finally(() => {
      this.#running.delete(key);
      this.#remember(key);
    });
    this.#running.set(key, work);
    return work;
  };

  #remember(key: string): void {
    this.#recent.add(key);
    if (this.#recent.size <= REMEMBERED) return;
    const [oldest] = this.#recent;
    if (oldest !== undefined) this.#recent.delete(oldest);
  }

  #try(key: string, at: number): void {
    this.#tried.set(key, at);
    if (this.#tried.size <= REMEMBERED) return;
    const [oldest] = this.#tried.keys();
    if (oldest !== undefined) this.#tried.delete(oldest);
  }

  async #take(assignment: Assignment, payload: Uint8Array, context: MessageContext): Promise<void> {
    const { jobs, reports, measures, leaveUnknown, clock } = this.#ports;
    const job = jobs.find(assignment.job.type);
    if (job === undefined && leaveUnknown) return;
    const { tenant_id, assignment_id, publication } = assignment;
    const again =
      context.deliveryCount > 1 ||
      context.attempt > 1 ||
      publication > 1 ||
      this.#recent.has(keyOf(tenant_id, assignment_id));
    const stale = clock.now() - context.timestampMs > assignment.options.deadline_ms;
    if ((again || stale) && (await reports.hasResult(assignment))) return; // I2
    measures.received();
    const ids = { ...assignment, trace_id: assignment.correlation.trace_id };
    if (job === undefined) {
      const text = `job.type ${assignment.job.type} is not one of ${jobs.types.join(", ")}`;
      await reports.ack(ids, "rejected", text);
      const result = resultOf(assignment, failed("INVALID_INPUT", text), clock.now());
      await reports.deadLetter(result, { payload, reason: "validation_failed", msgId: context.msgId ?? "" });
      measures.deadLettered();
      return reports.result(result, "");
    }
    const traceparent = acceptTraceparent(context.headers[header.traceparent]);
    const attributes = { tenant_id: assignment.tenant_id, job_type: assignment.job.type };
    await withSpan(
      "worker.assignment.receive",
      traceparent,
      attributes,
      async (onward) => {
        let accepted: Promise<void> | undefined;
        const accept = (): void => {
          accepted = reports.ack(ids, "accepted");
          accepted.catch(() => undefined); // awaited below
        };
        const soon = setTimeout(accept, ACCEPT_MS);
        let step: StepResult;
        try {
          step = await this.#execute(job, assignment, context, onward);
        } finally {
          clearTimeout(soon);
        }
        const result = await this.#buried(assignment, step, payload, context);
        await withSpan(
          "worker.result.publish",
          onward,
          undefined,
          async (last) => {
            // A result does not hang on its acknowledgement: one that was refused is said once more beside it.
            const said = accepted?.then(
              () => true,
              () => false,
            );
            return (await said) === true ? reports.result(result, last) : reports.acceptedWithResult(ids, result, last);
          },
          SpanKind.PRODUCER,
        );
        measures.finished(assignment.job.type, step);
      },
      SpanKind.CONSUMER,
    );
  }

  async #execute(job: Job, assignment: Assignment, context: MessageContext, traceparent: string): Promise<StepResult> {
    const { cancellations, clock, inputs, measures, started, workerId, jobTimeoutMs } = this.#ports;
    const { tenant_id, assignment_id, options } = assignment;
    const budgetMs = Math.min(options.deadline_ms, jobTimeoutMs);
    const cancelled = cancellations.watch(tenant_id, assignment_id);
    try {
      if (cancelled.signal.aborted)
        return {
          ...failed("CANCELLED_BY_USER", BeamlineError.from(cancelled.signal.reason).message),
          status: "cancelled",
        };
      const deadline = clock.now() + budgetMs;
      const since = clock.monotonic();
      let once: boolean;
      try {
        once = effectOf(job, assignment.job.payload) === "once";
      } catch (thrown) {
        return failedBy(thrown);
      }
      if (once) {
        const key = keyOf(tenant_id, assignment_id);
        const before = this.#tried.get(key);
        const started_at = before ?? clock.now();
        this.#try(key, started_at);
        const mark = await started.begin(tenant_id, assignment_id, { worker_id: workerId, started_at, deadline });
        this.#tried.delete(key);
        const own = mark?.worker_id === workerId && mark.started_at === before;
        if (mark !== undefined && !own) return this.#foundMark(mark);
      }
      const attemptOptions = {
        maxAttempts: options.retry.max_attempts,
        backoffMs: options.retry.backoff_ms,
        budgetMs,
        since,
        signal: AbortSignal.any([context.signal, cancelled.signal]),
        once,
        clock,
      };
      measures.began();
      try {
        return await inAttempts(attemptOptions, (attempt, signal) =>
          withSpan("worker.block.execute", traceparent, { job_type: assignment.job.type }, async (onward) =>
            job.run(await inputs.of(assignment.job, signal), {
              assignment,
              attempt,
              deadline,
              signal,
              traceparent: onward,
            }),
          ),
        );
      } finally {
        measures.ended();
      }
    } finally {
      cancelled.stop();
    }
  }

  /** I3. */
  #foundMark(mark: { readonly worker_id: string; readonly deadline: number }): StepResult {
    const leftMs = mark.deadline + GRACE_MS - this.#ports.clock.now();
    if (leftMs > 0) {
      throw new BeamlineError("unavailable", `worker ${mark.worker_id} began this job and may still be at it`, {
        retryAfterSeconds: leftMs / 1_000,
      });
    }
    const failure = new StepFailure(
      "UNKNOWN_ERROR",
      `worker ${mark.worker_id} began this job and vanished: whether it took effect is unknown`,
      { outcomeUnknown: true },
    );
    return failedBy(failure);
  }

  /** The result, after a dead letter where its outcome is unknown. */
  async #buried(
    assignment: Assignment,
    step: StepResult,
    payload: Uint8Array,
    context: MessageContext,
  ): Promise<Result> {
    const { reports, measures, clock, log } = this.#ports;
    const result = resultOf(assignment, step, clock.now());
    if (!step.outcomeUnknown) return result;
    const { assignment_id, tenant_id, trace_id } = result;
    log.warn("the outcome of a job is unknown", { assignment_id, tenant_id, trace_id });
    await reports.deadLetter(result, { payload, reason: "outcome_unknown", msgId: context.msgId ?? "" });
    measures.deadLettered();
    return result;
  }

  /** I1: an assignment that breaks the contract. */
  async #refuse(payload: Uint8Array, context: MessageContext, error: BeamlineError): Promise<void> {
    const { reports, measures, clock } = this.#ports;
    const ids = idsIn(payload, context);
    if (ids.assignment_id === "" || ids.tenant_id === "") throw error;
    measures.received();
    await reports.ack({ ...ids, publication: 1 }, "rejected", error.message);
    const code: StepErrorCode = error.message.endsWith("is required") ? "MISSING_REQUIRED_FIELD" : "INVALID_FORMAT";
    const step = failed(code, error.message);
    const result = { ...emptyResult(step, clock.now()), ...ids };
    await reports.deadLetter(result, { payload, reason: "validation_failed", msgId: context.msgId ?? "" });
    measures.deadLettered();
    await reports.result(result, "");
  }
}

function failed(code: StepErrorCode, message: string): StepResult {
  return failedBy(new StepFailure(code, message));
}

function failedBy(thrown: unknown): StepResult {
  const { code, message, outcomeUnknown } = StepFailure.from(thrown);
  return {
    status: "error",
    output: {},
    errorCode: code,
    errorMessage: message,
    outcomeUnknown,
    latencyMs: 0,
    retriesUsed: 0,
  };
}

function emptyResult(
  step: StepResult,
  now: number,
): Omit<Result, "assignment_id" | "request_id" | "tenant_id" | "trace_id" | "provider_id" | "job"> {
  return {
    status: step.status,
    latency_ms: step.latencyMs,
    cost: step.output.cost ?? 0,
    run_id: "",
    timestamp: now,
    error_code: step.errorCode ?? "",
    error_message: step.errorMessage,
    payload: step.output.payload,
    metadata: {
      ...step.output.metadata,
      ...(step.retriesUsed > 0 && { retries_used: String(step.retriesUsed) }),
      ...(step.outcomeUnknown && { outcome: "unknown" }),
    },
  };
}

/** The result of an assignment (BeamLine, ExecResult). */
export function resultOf(assignment: Assignment, step: StepResult, now: number): Result {
  const { assignment_id, request_id, tenant_id, executor, job, correlation } = assignment;
  return {
    ...emptyResult(step, now),
    assignment_id,
    request_id,
    tenant_id,
    trace_id: correlation.trace_id,
    run_id: correlation.run_id,
    provider_id: executor.provider_id,
    job: { type: job.type, metadata: {} },
  };
}

/** What can be told of an assignment that cannot be read. */
function idsIn(
  payload: Uint8Array,
  { headers }: MessageContext,
): Pick<Result, "assignment_id" | "request_id" | "tenant_id" | "trace_id" | "provider_id" | "job"> {
  let body: Record<string, unknown> = {};
  try {
    if (isJson(payload)) body = openJson(payload, "exec_assign").body;
  } catch {
    // Nothing can be told.
  }
  // What breaks a rule itself is left out: the result must be one that can be read.
  const words = (holder: Readonly<Record<string, unknown>>, name: string, fallback = ""): string => {
    try {
      return text(holder, name, name, MAX_ID) || fallback;
    } catch {
      return fallback;
    }
  };
  const inner = (name: string): Record<string, unknown> =>
    typeof body[name] === "object" && body[name] !== null ? (body[name] as Record<string, unknown>) : {};
  return {
    assignment_id: words(body, "assignment_id"),
    request_id: words(body, "request_id"),
    tenant_id: headers[header.tenantId] || words(body, "tenant_id"),
    trace_id: headers[header.traceId] || words(body, "trace_id"),
    provider_id: words(inner("executor"), "provider_id", "unknown"),
    job: { type: words(inner("job"), "type", "unknown"), metadata: {} },
  };
}
