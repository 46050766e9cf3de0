/**
 * What came out of an assignment, whoever wrote it: our flat JSON, the Rust worker's envelope, the C++ worker's text values, or protobuf
 * (BeamLine, ExecResult). One form inside; the flat one goes out.
 */
import type { JsonObject } from "../codec.ts";
import { invalidArgument } from "../errors.ts";
import { ExecResult } from "../gen/beamline/worker/v1/result.ts";
import { header, type Headers } from "../headers.ts";
import {
  amount,
  idIn,
  isJson,
  isObject,
  labels,
  objectOrText,
  openJson,
  requiredText,
  text,
  type Shape,
} from "./reading.ts";

export const resultStatuses = ["success", "error", "timeout", "cancelled"] as const;
export type ResultStatus = (typeof resultStatuses)[number];

/** An `ExecResult` as plain data: the keys of the flat JSON form. Absent text is empty. */
export interface Result {
  readonly assignment_id: string;
  readonly request_id: string;
  readonly status: ResultStatus;
  readonly provider_id: string;
  readonly job: { readonly type: string; readonly metadata: Readonly<Record<string, string>> };
  readonly latency_ms: number;
  /** US dollars. */
  readonly cost: number;
  readonly trace_id: string;
  readonly tenant_id: string;
  readonly run_id: string;
  /** Epoch milliseconds; the moment of arrival when the writer gave none. */
  readonly timestamp: number;
  /** Symbolic; empty unless something went wrong. */
  readonly error_code: string;
  readonly error_message: string;
  /** Output of the job, any JSON; undefined when it has none. */
  readonly payload: unknown;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface ReadResult {
  readonly result: Result;
  readonly shape: Shape;
}

/** The largest figures of a result: a year, a million dollars, the last moment of the year 9999. Sums of larger ones could not be kept. */
export const largest = {
  latency_ms: 366 * 24 * 60 * 60 * 1000,
  cost: 1_000_000,
  timestamp: 253_402_300_799_999,
} as const;

/** Reads a result. `arrivedMs` stands in for a missing timestamp. Throws `invalid_argument` naming the field. */
export function readResult(payload: Uint8Array, headers: Headers, arrivedMs: number): ReadResult {
  const read = isJson(payload) ? fromJson(payload, arrivedMs) : fromProtobuf(payload, arrivedMs);
  const { result } = read;
  const tenant_id = headers[header.tenantId] || result.tenant_id;
  const trace_id = headers[header.traceId] || result.trace_id;
  if (result.assignment_id === "" && result.request_id === "")
    throw invalidArgument("assignment_id", "or request_id is required");
  if (result.provider_id === "") throw invalidArgument("provider_id", "is required");
  if (result.job.type === "") throw invalidArgument("job.type", "is required");
  for (const name of ["latency_ms", "cost", "timestamp"] as const)
    if (result[name] > largest[name]) throw invalidArgument(name, `must be at most ${largest[name]}`);
  const error_code = result.status === "error" && result.error_code === "" ? "UNKNOWN_ERROR" : result.error_code;
  return { ...read, result: { ...result, tenant_id, trace_id, error_code } };
}

/** `canceled` is read as `cancelled`. Throws `invalid_argument`. */
export function readStatus(given: string): ResultStatus {
  if (given === "") throw invalidArgument("status", "is required");
  const status = given === "canceled" ? "cancelled" : given;
  const known = resultStatuses.find((one) => one === status);
  if (known === undefined) throw invalidArgument("status", `must be one of ${resultStatuses.join(", ")}`);
  return known;
}

function fromJson(payload: Uint8Array, arrivedMs: number): ReadResult {
  const { body, enveloped } = openJson(payload, "exec_result");
  const job = objectOrText(body, "job") ?? {};
  const inner = isObject(body["result"]) ? body["result"] : {};
  const error = isObject(body["error"]) ? body["error"] : {};
  const metrics = isObject(inner["metrics"]) ? inner["metrics"] : {};
  const stringly =
    typeof body["latency_ms"] === "string" || typeof body["cost"] === "string" || typeof body["job"] === "string";
  const latency =
    body["latency_ms"] === undefined
      ? amount(metrics, "latency_ms", 0, "result.metrics.latency_ms")
      : amount(body, "latency_ms", 0);
  const result: Result = {
    assignment_id: idIn(body, "assignment_id"),
    request_id: idIn(body, "request_id"),
    status: readStatus(text(body, "status")),
    provider_id: requiredText(body, "provider_id"),
    job: {
      type: text(job, "type", "job.type") || text(body, "job_type"),
      metadata: labels(job, "metadata", "job.metadata"),
    },
    latency_ms: latency,
    cost: amount(body, "cost", 0),
    trace_id: text(body, "trace_id"),
    tenant_id: text(body, "tenant_id"),
    run_id: text(body, "run_id"),
    timestamp: amount(body, "timestamp", arrivedMs),
    error_code: text(body, "error_code") || text(error, "code", "error.code"),
    error_message: text(body, "error_message") || text(error, "message", "error.message"),
    payload: body["payload"] ?? body["output"] ?? inner["payload"] ?? body["outputs"] ?? undefined,
    metadata: labels(body, "metadata"),
  };
  return { result, shape: enveloped ? "enveloped" : stringly ? "stringly" : "flat" };
}

function fromProtobuf(payload: Uint8Array, arrivedMs: number): ReadResult {
  let message: ExecResult;
  try {
    message = ExecResult.decode(payload);
  } catch {
    throw invalidArgument("body", "is neither protobuf nor valid JSON");
  }
  const { latency_ms, cost, timestamp, job, status, ...rest } = message;
  if (latency_ms < 0n) throw invalidArgument("latency_ms", "must not be negative");
  if (!(cost >= 0 && Number.isFinite(cost))) throw invalidArgument("cost", "must not be negative");
  const result: Result = {
    ...rest,
    status: readStatus(status),
    job: { type: job?.type ?? "", metadata: job?.metadata ?? {} },
    latency_ms: Number(latency_ms),
    cost,
    timestamp: timestamp === 0n ? arrivedMs : Number(timestamp),
    run_id: "",
    payload: undefined,
    metadata: {},
  };
  return { result, shape: "protobuf" };
}

/** The flat JSON of a result, with what is empty left out. */
export function resultJson(result: Result): JsonObject {
  const { job, payload, metadata, ...rest } = result;
  const out: JsonObject = { version: "1" };
  for (const [name, value] of Object.entries(rest)) if (value !== "") out[name] = value;
  out["job"] = { type: job.type, ...(Object.keys(job.metadata).length > 0 && { metadata: job.metadata }) };
  if (payload !== undefined) out["payload"] = payload;
  if (Object.keys(metadata).length > 0) out["metadata"] = metadata;
  return out;
}

/** Headers a result is published with; its `Nats-Msg-Id` comes with the publish (BeamLine, headers). */
export function resultHeaders(
  { trace_id, tenant_id }: Pick<Result, "trace_id" | "tenant_id">,
  traceparent = "",
): Headers {
  return {
    [header.tenantId]: tenant_id,
    [header.version]: "1",
    cp_phase: "cp1",
    ...(trace_id !== "" && { [header.traceId]: trace_id }),
    ...(traceparent !== "" && { [header.traceparent]: traceparent }),
  };
}
