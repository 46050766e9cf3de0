/**
 * The four request forms that reach `beamline.router.v1.decide`, told apart and made one (BeamLine, NATS request and reply forms).
 *
 * | form | looks like | required | answered with |
 * |---|---|---|---|
 * | seed | `message` and neither `version` nor `request_id` | tenant, message_type, payload | the bare decision |
 * | extended | `task` | version, request_id, tenant, task.type, task.payload or task.payload_ref | the envelope |
 * | hybrid | `message`, and `version` or `request_id` | version, tenant | the envelope |
 * | flat | no `message`, but `message_type` or `payload` | tenant, message_type, payload | the bare decision |
 *
 * Headers go before the payload. Empty text is absence (JSON and protobuf rules). Unknown fields are ignored; known ones of a wrong type refuse.
 */
import { readOptions } from "../../../contracts/execution/assignment.ts";
import { MAX_ID } from "../../../contracts/execution/reading.ts";
import { assignSubjectFault, execSubject } from "../../../contracts/execution/subjects.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { header, type Headers } from "../../../contracts/headers.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { isObject } from "../policies/fields.ts";
import { sliceAt } from "./rawjson.ts";
import { malformed, missing, refuse } from "./refusal.ts";

export type Form = "seed" | "extended" | "hybrid" | "flat";

/** A request for a decision, whatever its form was. Absent text is empty. */
export interface RoutingRequest {
  readonly form: Form;
  readonly tenant: string;
  readonly traceId: string;
  /** What the reply's context calls it: the request's id, else the message's, else empty. */
  readonly requestId: string;
  readonly messageId: string;
  readonly messageType: string;
  /** Never empty; `default` when neither the request nor its context names one. */
  readonly policyId: string;
  /** What rules and sessions look at. In the extended form metadata, context and constraints together. */
  readonly context: Readonly<JsonObject>;
  /** The request's key, else the message's, else the header's. */
  readonly idempotencyKey: string;
  /** How long its answer is given again, milliseconds; the router's own time when undefined. */
  readonly keyTtlMs: number | undefined;
  readonly runId: string;
  readonly pushAssignment: boolean;
  /** Decide, and leave no trace of it. */
  readonly dryRun: boolean;
  /** Where an assignment goes. */
  readonly assignmentSubject: string;
  /** The request as it was parsed: payload, task, metadata and options are read from it when they are needed. */
  readonly body: Readonly<JsonObject>;
  /** The request as it came. */
  readonly text: string;
}

const none: JsonObject = Object.freeze({});

/** The form of a parsed request. Throws `invalid_request` when it is none of the four. */
export function formOf(body: JsonObject): Form {
  if (isPresent(body["task"])) return "extended";
  const message = body["message"];
  if (isObject(message)) return isPresent(body["version"]) || isPresent(body["request_id"]) ? "hybrid" : "seed";
  if (isPresent(message)) throw malformed("message", "must be an object");
  if (isPresent(body["message_type"]) || isPresent(body["payload"])) return "flat";
  throw missing("message");
}

/** A request, as text and parsed, as one of ours. Throws `invalid_request` with the intake code and the field's path. */
export function readRequest(text: string, body: JsonObject, headers: Headers): RoutingRequest {
  const form = formOf(body);
  if (form === "extended") return readExtended(text, body, headers);
  return form === "flat"
    ? readMessage(form, text, body, body, "", headers)
    : readMessage(form, text, body, body["message"] as JsonObject, "message.", headers);
}

/** The forms built around a message; in the flat form the message is the body itself. */
function readMessage(
  form: Form,
  source: string,
  body: JsonObject,
  message: JsonObject,
  path: string,
  headers: Headers,
): RoutingRequest {
  const hybrid = form === "hybrid";
  checkVersion(body["version"], headers, hybrid);
  const requestId = hybrid ? text(body["request_id"], "request_id", 128) : "";
  const messageId = text(message["message_id"], `${path}message_id`);
  const messageType =
    text(message["message_type"], `${path}message_type`) ||
    (hybrid ? text(message["type"], "message.type") || "unknown" : "");
  const tenant = tenantOf(
    headers,
    text(message["tenant_id"], `${path}tenant_id`) || text(body["tenant_id"], "tenant_id"),
    hybrid ? "tenant_id" : `${path}tenant_id`,
  );
  if (messageType === "") throw missing(`${path}message_type`);
  if (!hybrid) checkPayload(message["payload"], `${path}payload`);
  object(message["metadata"], `${path}metadata`);
  timestamp(message["timestamp_ms"], `${path}timestamp_ms`);
  const runId = text(message["run_id"], `${path}run_id`) || text(body["run_id"], "run_id");
  text(message["flow_id"], `${path}flow_id`);
  text(message["step_id"], `${path}step_id`);
  text(message["span_id"], `${path}span_id`);
  const context = object(body["context"], "context");
  const pushAssignment = hybrid && flag(body["push_assignment"], "push_assignment");
  if (hybrid) {
    checkIds(body);
    object(body["metadata"], "metadata");
    checkOptions(body["options"], pushAssignment);
  }
  // It is the assignment's request id.
  if (pushAssignment && requestId === "") text(messageId, "message.message_id", MAX_ID);
  return {
    form,
    tenant,
    traceId:
      headers[header.traceId] || text(message["trace_id"], `${path}trace_id`) || text(body["trace_id"], "trace_id"),
    requestId: requestId || messageId,
    messageId,
    messageType,
    policyId: text(body["policy_id"], "policy_id") || policyOf(context),
    context,
    idempotencyKey:
      text(body["idempotency_key"], "idempotency_key", 256) ||
      text(message["idempotency_key"], `${path}idempotency_key`, 256) ||
      text(headers[header.idempotencyKey], "idempotency_key", 256),
    keyTtlMs: ttlOf(headers),
    runId,
    dryRun: flag(body["dry_run"] ?? context["dry_run"], "dry_run"),
    pushAssignment,
    assignmentSubject: hybrid ? subject(body["assignment_subject"]) : execSubject.assign,
    body,
    text: source,
  };
}

function readExtended(source: string, body: JsonObject, headers: Headers): RoutingRequest {
  checkVersion(body["version"], headers, true);
  const requestId = text(body["request_id"], "request_id", 128);
  if (requestId === "") throw missing("request_id");
  const tenant = tenantOf(headers, text(body["tenant_id"], "tenant_id"), "tenant_id");
  if (!isObject(body["task"])) throw malformed("task", "must be an object");
  const task = body["task"];
  const messageType = text(task["type"], "task.type");
  if (messageType === "") throw missing("task.type");
  checkTaskPayload(task);
  checkIds(body);
  if (body["policy_id"] === "") throw malformed("policy_id", "must not be empty");
  const metadata = object(body["metadata"], "metadata");
  const constraints = object(body["constraints"], "constraints");
  for (const name of ["max_latency_ms", "max_cost"]) {
    const limit = constraints[name];
    if (isPresent(limit) && !(typeof limit === "number" && limit >= 0))
      throw malformed(`constraints.${name}`, "must be a number of at least 0");
  }
  const pushAssignment = flag(body["push_assignment"], "push_assignment");
  checkOptions(body["options"], pushAssignment);
  const context = { ...metadata, ...object(body["context"], "context"), ...constraints };
  return {
    form: "extended",
    tenant,
    traceId: headers[header.traceId] || text(body["trace_id"], "trace_id"),
    requestId,
    messageId: text(body["message_id"], "message_id") || requestId,
    messageType,
    policyId: text(body["policy_id"], "policy_id") || policyOf(context),
    context,
    idempotencyKey:
      text(body["idempotency_key"], "idempotency_key", 256) ||
      text(headers[header.idempotencyKey], "idempotency_key", 256),
    keyTtlMs: ttlOf(headers),
    runId: text(body["run_id"], "run_id"),
    dryRun: flag(body["dry_run"] ?? context["dry_run"], "dry_run"),
    pushAssignment,
    assignmentSubject: subject(body["assignment_subject"]),
    body,
    text: source,
  };
}

/** Where each form has its payload. */
const payloadPaths: Readonly<Record<Form, readonly string[]>> = {
  seed: ["message", "payload"],
  extended: ["task", "payload"],
  hybrid: ["message", "payload"],
  flat: ["payload"],
};

/** The payload of a request as it is handed on: text as it came, anything else as its JSON, both byte for byte; undefined when there is none. */
export function payloadOf(request: Pick<RoutingRequest, "form" | "body" | "text">): string | undefined {
  const payload = payloadIn(request);
  if (payload === undefined || payload === null) return undefined;
  return typeof payload === "string" ? payload : sliceAt(request.text, payloadPaths[request.form]);
}

/** The payload of a request as a JSON value. */
export function payloadIn({ form, body }: Pick<RoutingRequest, "form" | "body">): unknown {
  const holder = form === "flat" ? body : body[payloadPaths[form][0] ?? ""];
  return isObject(holder) ? holder["payload"] : undefined;
}

/** Ids found in whatever was sent, for the reply and the dead letter of a request that is refused. Never throws. */
export function idsOf(
  body: unknown,
  headers: Headers,
): { requestId: string; messageId: string; traceId: string; tenant: string; runId: string } {
  const whole = isObject(body) ? body : none;
  const message = isObject(whole["message"]) ? whole["message"] : none;
  const find = (name: string): string => words(message[name]) || words(whole[name]);
  return {
    requestId: words(whole["request_id"]) || find("message_id"),
    messageId: find("message_id"),
    traceId: headers[header.traceId] || find("trace_id"),
    tenant: headers[header.tenantId] || find("tenant_id"),
    runId: find("run_id"),
  };
}

function words(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** Header first, then payload. The extended and hybrid forms need one; the others may leave it out, never contradict it. */
function checkVersion(given: unknown, headers: Headers, needed: boolean): void {
  const version = headers[header.version] ?? given;
  if (version === "1") return;
  if (!isPresent(version) || version === "") {
    if (needed)
      throw refuse("VERSION_UNSUPPORTED", "Missing version field", "version", { type: "required_field_missing" });
    return;
  }
  throw refuse("VERSION_UNSUPPORTED", "Unsupported version", "version", { supported_versions: ["1"] });
}

const tenantPattern = /^[\w.:-]{1,256}$/;

function tenantOf(headers: Headers, given: string, path: string): string {
  const tenant = headers[header.tenantId] || given;
  if (tenant === "") throw missing(path, "CORRELATION_FIELDS_INVALID");
  if (!tenantPattern.test(tenant))
    throw malformed(
      path,
      "must be 1 to 256 letters, digits, dots, colons, dashes or underscores",
      "CORRELATION_FIELDS_INVALID",
    );
  return tenant;
}

function ttlOf(headers: Headers): number | undefined {
  const ms = Number(headers[header.idempotencyTtl]);
  return Number.isInteger(ms) && ms > 0 ? ms : undefined;
}

function policyOf(context: Readonly<JsonObject>): string {
  const named = context["policy_id"] ?? "";
  return (typeof named === "string" ? named : JSON.stringify(named)) || "default";
}

function checkPayload(payload: unknown, path: string): void {
  if (!isPresent(payload) || payload === "") throw missing(path);
  if (typeof payload !== "string" && typeof payload !== "object")
    throw malformed(path, "must be a string or an object");
}

/** Fewest bytes of the JSON of an object payload in the extended form (BeamLine, limits). */
const MIN_PAYLOAD_BYTES = 10;

function checkTaskPayload(task: JsonObject): void {
  const { payload } = task;
  if (text(task["payload_ref"], "task.payload_ref") !== "") return;
  if (!isPresent(payload) || payload === "") throw missing("task.payload");
  if (!isObject(payload)) return;
  const size = Buffer.byteLength(JSON.stringify(payload));
  if (size >= MIN_PAYLOAD_BYTES) return;
  throw refuse(
    "PAYLOAD_TOO_SMALL",
    `Payload is too small or empty: ${size} bytes, minimum: ${MIN_PAYLOAD_BYTES} bytes`,
    "task.payload",
  );
}

/** The ids on the top level that an assignment is given. */
function checkIds(body: JsonObject): void {
  for (const name of ["flow_id", "step_id", "span_id"]) text(body[name], name);
}

/** Options that reach an execution worker are refused here as it would refuse them; others are let be. */
function checkOptions(value: unknown, used: boolean): void {
  const options = object(value, "options");
  if (!used) return;
  try {
    readOptions(options, () => 0);
  } catch (thrown) {
    const { field = "options", message } = BeamlineError.from(thrown);
    throw malformed(field, message.slice(field.length + 1));
  }
}

function text(value: unknown, path: string, max = 4096): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw malformed(path, "must be a string");
  if (value.length > max) throw malformed(path, `must have at most ${max} characters`);
  if (!value.isWellFormed()) throw malformed(path, "must be well-formed Unicode");
  return value;
}

function object(value: unknown, path: string): JsonObject {
  if (value === undefined || value === null) return none;
  if (!isObject(value)) throw malformed(path, "must be an object");
  return value;
}

const decimal = /^-?\d+$/;

function timestamp(value: unknown, path: string): void {
  if (value === undefined || value === null || Number.isInteger(value)) return;
  if (typeof value !== "string" || !decimal.test(value)) throw malformed(path, "must be an integer");
}

/** `true`, `"true"` and 1 are true; `false`, `"false"`, 0 and nothing are false. */
function flag(value: unknown, path: string): boolean {
  if (value === true || value === "true" || value === 1) return true;
  if (!isPresent(value) || value === false || value === "false" || value === 0) return false;
  throw malformed(path, "must be true or false");
}

function subject(value: unknown): string {
  const given = text(value, "assignment_subject") || execSubject.assign;
  const fault = assignSubjectFault(given);
  if (fault !== undefined) throw malformed("assignment_subject", fault);
  return given;
}
