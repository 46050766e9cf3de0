/**
 * Work for one executor (BeamLine, ExecAssignment): how it is made from a decision, and how it is read whoever wrote it.
 *
 * A1 The four correlation ids stand in `correlation` and at the top level, where BeamLine's Rust worker reads them.
 * A2 `job.payload` is a value of any JSON type; a payload that is the text of a JSON object or array is put there as that value.
 */
import type { JsonObject } from "../codec.ts";
import { invalidArgument } from "../errors.ts";
import { ExecAssignment } from "../gen/beamline/worker/v1/assignment.ts";
import { header, type Headers } from "../headers.ts";
import { amount, idIn, isJson, isObject, labels, objectOrText, openJson, requiredText, text } from "./reading.ts";
import { execHeader } from "./subjects.ts";

/** Deadline bounds, milliseconds (BeamLine, ExecAssignment: `min(60000, max(5000, expected latency × 5))`). */
export const MIN_DEADLINE_MS = 5_000;
export const MAX_DEADLINE_MS = 60_000;
const DEFAULT_ATTEMPTS = 2;
const DEFAULT_BACKOFF_MS = 200;
/** A worker keeps no job longer than this, whatever the assignment asks for. */
const LONGEST_MS = 3_600_000;

/** An assignment as plain data, defaults filled in. Absent text is empty. */
export interface Assignment {
  readonly assignment_id: string;
  readonly request_id: string;
  readonly tenant_id: string;
  readonly executor: { readonly provider_id: string; readonly channel: string; readonly endpoint: string };
  readonly job: {
    readonly type: string;
    readonly payload_ref: string;
    /** Undefined when there is only a reference. */
    readonly payload: unknown;
  };
  readonly options: {
    readonly priority: number;
    /** For all attempts together, milliseconds. */
    readonly deadline_ms: number;
    readonly retry: { readonly max_attempts: number; readonly backoff_ms: number };
  };
  readonly correlation: {
    readonly trace_id: string;
    readonly run_id: string;
    readonly flow_id: string;
    readonly step_id: string;
    readonly span_id: string;
  };
  readonly metadata: Readonly<Record<string, string>>;
  /** 1 for the first publication. */
  readonly publication: number;
}

/** Reads an assignment, flat, in the `exec_assign` envelope, or protobuf. Throws `invalid_argument` naming the field. */
export function readAssignment(payload: Uint8Array, headers: Headers): Assignment {
  const body = isJson(payload) ? openJson(payload, "exec_assign").body : protobufJson(payload);
  const version = headers[header.version] || text(body, "version");
  if (version === "") throw invalidArgument("version", "is required");
  if (version !== "1") throw invalidArgument("version", `${version} is not supported; it must be 1`);
  const executor = objectOrText(body, "executor");
  if (executor === undefined) throw invalidArgument("executor", "is required");
  const job = objectOrText(body, "job");
  if (job === undefined) throw invalidArgument("job", "is required");
  const correlation = objectOrText(body, "correlation") ?? {};
  const options = objectOrText(body, "options") ?? {};
  const id = (name: string): string => text(correlation, name, `correlation.${name}`) || text(body, name);
  const tenant_id = headers[header.tenantId] || text(body, "tenant_id");
  if (tenant_id === "") throw invalidArgument("tenant_id", "is required");
  const payload_ref = text(job, "payload_ref", "job.payload_ref");
  const value = job["payload"] ?? undefined;
  if (payload_ref === "" && value === undefined) throw invalidArgument("job.payload", "or job.payload_ref is required");
  return {
    assignment_id: idIn(body, "assignment_id") || requiredText(body, "assignment_id"),
    request_id: idIn(body, "request_id") || requiredText(body, "request_id"),
    tenant_id,
    executor: {
      provider_id: requiredText(executor, "provider_id", "executor.provider_id"),
      channel: channelOf(text(executor, "channel", "executor.channel")),
      endpoint: text(executor, "endpoint", "executor.endpoint"),
    },
    job: { type: requiredText(job, "type", "job.type"), payload_ref, payload: value },
    options: readOptions(options, () => deadlineOf(body)),
    correlation: {
      trace_id: headers[header.traceId] || id("trace_id"),
      run_id: id("run_id"),
      flow_id: id("flow_id"),
      step_id: id("step_id"),
      span_id: headers[header.spanId] || id("span_id"),
    },
    metadata: labels(body, "metadata"),
    publication: Number(headers[execHeader.publication]) || 1,
  };
}

/**
 * The options of an assignment, defaults filled in; `deadlineMs` is asked when they name none. Throws `invalid_argument` naming the field below `options`.
 */
export function readOptions(options: JsonObject, deadlineMs: () => number): Assignment["options"] {
  const retry = objectOrText(options, "retry", "options.retry") ?? {};
  const attempts = amount(retry, "max_attempts", DEFAULT_ATTEMPTS, "options.retry.max_attempts");
  return {
    priority: amount(options, "priority", 0, "options.priority"),
    deadline_ms: Math.min(LONGEST_MS, amount(options, "deadline_ms", 0, "options.deadline_ms") || deadlineMs()),
    retry: {
      max_attempts: Math.min(100, Math.max(1, attempts)),
      backoff_ms: amount(retry, "backoff_ms", DEFAULT_BACKOFF_MS, "options.retry.backoff_ms"),
    },
  };
}

function channelOf(given: string): string {
  if (given === "nats" || given === "grpc") return given;
  throw invalidArgument("executor.channel", given === "" ? "is required" : "must be nats or grpc");
}

function deadlineOf(body: JsonObject): number {
  const decision = isObject(body["decision"]) ? body["decision"] : {};
  return deadlineFor(amount(decision, "expected_latency_ms", 0, "decision.expected_latency_ms"));
}

/** The deadline an assignment gets when nobody says another one, milliseconds. */
export function deadlineFor(expectedLatencyMs: number): number {
  return Math.min(MAX_DEADLINE_MS, Math.max(MIN_DEADLINE_MS, expectedLatencyMs * 5));
}

/** The JSON form of a protobuf assignment, so that both are read by the same rules. */
function protobufJson(payload: Uint8Array): JsonObject {
  let message: ExecAssignment;
  try {
    message = ExecAssignment.decode(payload);
  } catch {
    throw invalidArgument("body", "is neither protobuf nor valid JSON");
  }
  const { job, options, executor, ...rest } = message;
  return {
    ...rest,
    decision: message.decision && {
      ...message.decision,
      expected_latency_ms: Number(message.decision.expected_latency_ms),
    },
    executor,
    job: job && {
      type: job.type,
      payload_ref: job.payload_ref,
      payload: job.payload.length === 0 ? undefined : valueOf(job.payload.toString("utf8")),
    },
    options: options && {
      priority: options.priority,
      deadline_ms: Number(options.deadline_ms),
      // Zero is absence in protobuf.
      retry: options.retry && {
        max_attempts: options.retry.max_attempts || undefined,
        backoff_ms: Number(options.retry.backoff_ms) || undefined,
      },
    },
  };
}

/** What an assignment is made from: a routing request, whatever its form. */
export interface AssignmentRequest {
  /** `extended` carries a `task`, `flat` is the message itself, the others hold a `message`. */
  readonly form: "seed" | "extended" | "hybrid" | "flat";
  readonly tenant: string;
  readonly traceId: string;
  readonly requestId: string;
  readonly messageType: string;
  readonly runId: string;
  /** Where it goes. */
  readonly assignmentSubject: string;
  /** The request as it was parsed. */
  readonly body: Readonly<JsonObject>;
}

/** The decision it follows from. */
export interface AssignmentDecision {
  readonly provider_id: string;
  readonly reason: string;
  readonly priority: number;
  readonly expected_latency_ms: number;
  readonly expected_cost: number;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface AssignmentOptions {
  /** UUID v4; the idempotency key of everything that follows. */
  readonly assignmentId: string;
  /** W3C trace context of the decision; empty for none. */
  readonly traceparent?: string;
  /** What an extension put in place of the request's payload. */
  readonly payload?: string;
}

/** A message for JetStream: publish it durably with this id after the decision was answered. */
export interface OutgoingAssignment {
  readonly assignmentId: string;
  readonly subject: string;
  readonly msgId: string;
  readonly headers: Headers;
  readonly body: string;
}

/** The assignment that follows from a decision (BeamLine, ExecAssignment). Pure; a request that has neither payload nor reference gets `{}`. */
export function assignmentOf(
  request: AssignmentRequest,
  decision: AssignmentDecision,
  options: AssignmentOptions,
): OutgoingAssignment {
  const { assignmentId, traceparent = "" } = options;
  const { body, tenant, traceId, requestId, messageType } = request;
  const message = isObject(body["message"]) ? body["message"] : {};
  const find = (name: string): string | undefined => {
    const value = message[name] ?? body[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const ids = {
    trace_id: traceId || traceparent.split("-")[1] || undefined,
    run_id: request.runId || find("run_id"),
    flow_id: find("flow_id"),
    step_id: find("step_id"),
  };
  const metadata = {
    ...(isObject(message["metadata"]) ? message["metadata"] : {}),
    ...(isObject(body["metadata"]) ? body["metadata"] : {}),
  };
  const span = find("span_id") ?? traceparent.split("-")[2];
  const json = {
    version: "1",
    assignment_id: assignmentId,
    request_id: requestId || assignmentId,
    tenant_id: tenant,
    executor: { provider_id: decision.provider_id, channel: "nats" },
    job: jobOf(request, message, messageType, options.payload),
    options: {
      priority: decision.priority,
      deadline_ms: deadlineFor(decision.expected_latency_ms),
      retry: { max_attempts: DEFAULT_ATTEMPTS, backoff_ms: DEFAULT_BACKOFF_MS },
      ...(isObject(body["options"]) ? body["options"] : {}),
    },
    correlation: { ...ids, span_id: span },
    ...ids, // A1
    decision,
    metadata,
  };
  const headers: Record<string, string> = { [header.tenantId]: tenant, [header.version]: "1" };
  if (ids.trace_id !== undefined) headers[header.traceId] = headers["X-Trace-Id"] = ids.trace_id;
  if (span !== undefined && span !== "") headers[header.spanId] = headers["X-Span-Id"] = span;
  if (traceparent !== "") headers[header.traceparent] = traceparent;
  return { assignmentId, subject: request.assignmentSubject, msgId: assignmentId, headers, body: JSON.stringify(json) };
}

function jobOf(
  { form, body }: AssignmentRequest,
  message: JsonObject,
  type: string,
  replaced: string | undefined,
): JsonObject {
  const holder = form === "extended" && isObject(body["task"]) ? body["task"] : form === "flat" ? body : message;
  const given = replaced ?? holder["payload"] ?? undefined;
  const payload = typeof given === "string" ? valueOf(given) : given;
  const ref = holder["payload_ref"];
  if (typeof ref === "string" && ref !== "" && replaced === undefined)
    return { type, payload_ref: ref, payload: payload ?? null };
  const extra = form === "extended" ? holder : {};
  return { ...extra, payload_ref: undefined, type, payload: payload ?? {} };
}

/** A2. */
function valueOf(given: string): unknown {
  if (!/^\s*[[{]/.test(given)) return given;
  try {
    return JSON.parse(given);
  } catch {
    return given;
  }
}
