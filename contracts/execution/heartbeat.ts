/** A worker's sign of life (BeamLine, WorkerHeartbeat): the contract's form, and the Rust worker's envelope. */
import type { JsonObject } from "../codec.ts";
import { invalidArgument } from "../errors.ts";
import { amount, labels, objectOrText, openJson, requiredText, text } from "./reading.ts";

export const workerStatuses = ["ready", "busy", "degraded"] as const;
export type WorkerStatus = (typeof workerStatuses)[number];

export interface Heartbeat {
  readonly worker_id: string;
  /** As the worker wrote it. */
  readonly timestamp: string;
  /** The Rust worker's `idle` is `ready`; `draining` and `stopped` stay as they are. */
  readonly status: WorkerStatus | "draining" | "stopped";
  readonly resources: {
    readonly cpu: number;
    readonly gpu: number;
    readonly mem_bytes: number;
    readonly jobs_in_flight: number;
  };
  readonly metadata: Readonly<Record<string, string>>;
}

/** Throws `invalid_argument` naming the field. */
export function readHeartbeat(payload: Uint8Array): Heartbeat {
  const { body } = openJson(payload, "heartbeat");
  const resources = objectOrText(body, "resources") ?? {};
  return {
    worker_id: requiredText(body, "worker_id"),
    timestamp: text(body, "timestamp"),
    status: statusOf(text(body, "status")),
    resources: {
      cpu: amount(resources, "cpu", amount(body, "load", 0), "resources.cpu"),
      gpu: amount(resources, "gpu", 0, "resources.gpu"),
      mem_bytes: amount(resources, "mem_bytes", 0, "resources.mem_bytes"),
      jobs_in_flight: amount(resources, "jobs_in_flight", 0, "resources.jobs_in_flight"),
    },
    metadata: labels(body, "metadata"),
  };
}

function statusOf(given: string): Heartbeat["status"] {
  if (given === "idle") return "ready";
  if (given === "draining" || given === "stopped") return given;
  const known = workerStatuses.find((one) => one === given);
  if (known === undefined) throw invalidArgument("status", `must be one of ${workerStatuses.join(", ")}`);
  return known;
}

/** The contract's JSON form. */
export function heartbeatJson(beat: Heartbeat): JsonObject {
  return { version: "1", ...beat };
}
