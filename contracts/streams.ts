/**
 * Streams and buckets as data: what is kept, on which subjects, for how long. bus/streams creates and updates them at start.
 * No stream ever captures a subject used with request/reply: its acknowledgement would reach the caller before the worker's answer.
 */

const DAY_MS = 24 * 60 * 60 * 1000;
const MIB = 1024 * 1024;

export interface StreamSpec {
  readonly name: string;
  readonly subjects: readonly string[];
  /** What the stream is for; becomes its description. */
  readonly purpose: string;
  /** `limits` keeps until age or size; `workqueue` until acknowledged by its one consumer per subject. */
  readonly retention: "limits" | "workqueue";
  /** Oldest message kept, milliseconds; 0 is for ever. */
  readonly maxAgeMs: number;
  /** Total size kept, bytes; -1 is unlimited. */
  readonly maxBytes: number;
  /** Window in which a repeated Nats-Msg-Id is dropped, milliseconds. */
  readonly duplicateWindowMs: number;
  /** Delayed messages (`Nats-Schedule`) and per-message TTL. Their schedule subjects must be among `subjects`. */
  readonly schedules: boolean;
  /** Atomic batches. */
  readonly atomic: boolean;
}

export interface BucketSpec {
  readonly name: string;
  readonly purpose: string;
  /** Values kept per key. */
  readonly history: number;
  /** Age after which a value goes, milliseconds; 0 is never. */
  readonly ttlMs: number;
}

export interface ObjectSpec {
  readonly name: string;
  readonly purpose: string;
  /** Age after which an object goes, milliseconds; 0 is never. */
  readonly maxAgeMs: number;
}

const base = {
  retention: "limits",
  maxAgeMs: 7 * DAY_MS,
  maxBytes: -1,
  duplicateWindowMs: 2 * 60 * 60 * 1000,
  schedules: true,
  atomic: true,
} as const;

/** Every stream of the system. */
export const streams = {
  /** Assignments to execution workers, their acknowledgements and results (BeamLine, execution contract). */
  exec: {
    ...base,
    name: "EXEC",
    purpose: "execution assignments, acknowledgements and results",
    subjects: ["caf.exec.assign.v1", "caf.exec.assign.v1.ack", "caf.exec.result.v1", "retry.exec.>", "sched.exec.>"],
  },
  /** What was metered, for billing; the truth behind usage totals. */
  usage: {
    ...base,
    name: "USAGE",
    purpose: "metered usage",
    subjects: ["beamline.usage.v1.metered"],
    maxAgeMs: 400 * DAY_MS,
  },
  alerts: { ...base, name: "ALERTS", purpose: "alerts", subjects: ["beamline.alert.v1.*"], maxAgeMs: 30 * DAY_MS },
  /** Everything that could not be handled, with reason and full context; redriven from here. */
  deadLetters: {
    ...base,
    name: "DLQ",
    purpose: "dead letters with reason and context",
    subjects: [
      "dlq.>",
      "beamline.router.v1.decide.dlq",
      "caf.exec.dlq.v1",
      "caf.deadletter.v1",
      "caf.exec.result.v1.dlq",
      "caf.exec.assign.v1.ack.dlq",
    ],
    maxAgeMs: 30 * DAY_MS,
    maxBytes: 1024 * MIB,
  },
} as const satisfies Record<string, StreamSpec>;

/** Every key-value bucket. */
export const buckets = {
  /** Routing policies: key `<tenant>.<policy>` (each as bus/keys writes it), value the stored policy document. */
  policies: { name: "policies", purpose: "routing policies", history: 10, ttlMs: 0 },
} as const satisfies Record<string, BucketSpec>;

/** Object stores, for what is too large for a message. */
export const objects = {
  /** Payloads beyond the message limit, referred to by name (claim check). Outlives every message that can refer to it. */
  payloads: { name: "payloads", purpose: "payloads beyond the message limit", maxAgeMs: 60 * DAY_MS },
} as const satisfies Record<string, ObjectSpec>;
