/** What a run's log folds into. Mutable on purpose: a fold changes it in place, and only folds change it. */
import type { Json } from "./json.ts";
import type { Control, RunRecord } from "./log.ts";

export const RUN_STATUSES = [
  "pending",
  "running",
  "paused",
  "waiting-approval",
  "waiting-input",
  "waiting-external",
  "cancelling",
  "completed",
  "failed",
  "cancelled",
] as const;

export type RunStatus = (typeof RUN_STATUSES)[number];

export type NodeStatus =
  "started" | "retrying" | "suspended" | "resumed" | "completed" | "failed" | "skipped" | "cancelled";

export interface ErrorData {
  readonly code: string;
  readonly message: string;
  readonly details?: Json;
  readonly retryable?: boolean;
}

/** An approval vote, one per voter. */
export interface Vote {
  readonly voter: string;
  readonly action: string;
}

/** A question a node waits with (OpenWOP, interrupts). */
export interface Interrupt {
  readonly interruptId: string;
  readonly nodeId: string;
  readonly kind: string;
  readonly key: string;
  readonly data: Json;
  readonly resumeSchema?: Json;
  readonly timeoutMs?: number;
  readonly requestedAt: string;
  status: "pending" | "resolved" | "gone";
  resumeValue?: unknown;
  votes: Vote[];
}

export interface NodeState {
  readonly nodeId: string;
  typeId: string;
  status: NodeStatus;
  /** Zero-based attempt of the current execution. */
  attempt: number;
  /** How often it was started, retries and loops included. */
  executions: number;
  /** Loop iterations: executions that were not retries. */
  iterations: number;
  startedAt: string;
  startedSeq: number;
  settledSeq: number;
  /** When a retry is due, ISO 8601. */
  retryAt?: string;
  outputs?: Json;
  error?: ErrorData;
  interruptId?: string;
  /** Set between the answer to its interrupt and its completion. */
  resumeValue?: unknown;
}

/** A write to a channel that a node is still to be started for. */
export interface Fire {
  readonly eventId: string;
  readonly sequence: number;
  readonly channel: string;
  /** Epoch milliseconds. */
  readonly at: number;
}

export interface Child {
  readonly runId: string;
  readonly nodeId: string;
  readonly workflowId: string;
  status: string;
}

export interface RunState {
  readonly record: RunRecord;
  status: RunStatus;
  /** Sequence of the last event, -1 before the first. */
  sequence: number;
  lastEventId: string;
  /** Time of the newest event, ISO 8601; empty before the first. */
  lastAt: string;
  startedAt: string;
  completedAt?: string;
  error?: ErrorData;
  cancelReason?: string;
  pausedAt?: string;
  pauseReason?: string;
  /** A pause that waits for the executing nodes. */
  pausing?: Control;
  outputs?: Json;
  readonly nodes: Map<string, NodeState>;
  readonly interrupts: Map<string, Interrupt>;
  readonly variables: Record<string, unknown>;
  readonly channels: Record<string, unknown>;
  readonly children: Map<string, Child>;
  /** Replays that wait for its end. */
  readonly watchers: Set<string>;
  /** Writes that nodes are still to be started for, by node, oldest first. */
  readonly fires: Map<string, Fire[]>;
  /** Pinned versions of changes (OpenWOP, version axes). */
  readonly pins: Record<string, number>;
  executions: number;
  /** Traceparent of the span of the run's first stretch, when it is recorded. */
  span?: string;
  orchestrator?: Json;
  agent?: Json;
  /** The newest decision of the supervisor, and the id of the event that told it. */
  decision?: { readonly value: Json; readonly eventId: string; readonly nodeId: string; readonly sequence: number };
  decisions: number;
  usage:
    | {
        usd: number;
        input: number;
        output: number;
        provider: string;
        model: string;
        /** Time of the nodes that asked models, milliseconds. */
        durationMs: number;
      }
    | undefined;
}
