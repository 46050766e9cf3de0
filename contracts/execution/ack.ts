/** A worker's answer to an assignment before it starts (BeamLine, ExecAssignmentAck), in both JSON variants and protobuf. */
import type { JsonObject } from "../codec.ts";
import { invalidArgument } from "../errors.ts";
import { ExecAssignmentAck } from "../gen/beamline/worker/v1/ack.ts";
import { header, type Headers } from "../headers.ts";
import { amount, idIn, isJson, objectOrText, openJson, text } from "./reading.ts";

export const ackStatuses = ["accepted", "rejected", "error"] as const;
export type AckStatus = (typeof ackStatuses)[number];

/** An acknowledgement as plain data. Absent text is empty. */
export interface Ack {
  readonly assignment_id: string;
  readonly status: AckStatus;
  readonly message: string;
  readonly request_id: string;
  readonly trace_id: string;
  readonly tenant_id: string;
  /** Epoch milliseconds; the moment of arrival when the writer gave none. */
  readonly acknowledged_at: number;
}

/** Reads an acknowledgement; `reason` and `correlation.trace_id` are aliases. Throws `invalid_argument` naming the field. */
export function readAck(payload: Uint8Array, headers: Headers, arrivedMs: number): Ack {
  const ack = isJson(payload) ? fromJson(payload, arrivedMs) : fromProtobuf(payload, arrivedMs);
  if (ack.assignment_id === "") throw invalidArgument("assignment_id", "is required");
  return {
    ...ack,
    tenant_id: headers[header.tenantId] || ack.tenant_id,
    trace_id: headers[header.traceId] || ack.trace_id,
  };
}

function fromJson(payload: Uint8Array, arrivedMs: number): Ack {
  const { body } = openJson(payload, "exec_assign_ack");
  const correlation = objectOrText(body, "correlation") ?? {};
  return {
    assignment_id: idIn(body, "assignment_id"),
    status: statusOf(text(body, "status")),
    message: text(body, "message") || text(body, "reason"),
    request_id: text(body, "request_id"),
    trace_id: text(body, "trace_id") || text(correlation, "trace_id", "correlation.trace_id"),
    tenant_id: text(body, "tenant_id"),
    acknowledged_at: amount(body, "acknowledged_at", arrivedMs),
  };
}

function fromProtobuf(payload: Uint8Array, arrivedMs: number): Ack {
  let message: ExecAssignmentAck;
  try {
    message = ExecAssignmentAck.decode(payload);
  } catch {
    throw invalidArgument("body", "is neither protobuf nor valid JSON");
  }
  const { acknowledged_at: at, status, ...rest } = message;
  return { ...rest, status: statusOf(status), acknowledged_at: at === 0n ? arrivedMs : Number(at) };
}

function statusOf(given: string): AckStatus {
  if (given === "") throw invalidArgument("status", "is required");
  const known = ackStatuses.find((one) => one === given);
  if (known === undefined) throw invalidArgument("status", `must be one of ${ackStatuses.join(", ")}`);
  return known;
}

/** The JSON of an acknowledgement, with what is empty left out. */
export function ackJson(ack: Ack): JsonObject {
  return Object.fromEntries(Object.entries({ version: "1", ...ack }).filter(([, value]) => value !== ""));
}
