/** What a node type is, and what it is given. */
import type { Json } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import type { Write } from "./channels.ts";
import type { ErrorData, NodeState, RunState } from "../../../contracts/openwop/state.ts";
import type { WorkflowNode } from "../../../contracts/openwop/workflow.ts";

/** A question to the outside (OpenWOP, interrupts). */
export interface Question {
  readonly kind: string;
  readonly data: Json;
  readonly resumeSchema?: Json;
  /** Milliseconds until it fails closed. */
  readonly timeoutMs?: number;
}

export type NodeResult =
  | {
      readonly kind: "completed";
      readonly outputs?: Json;
      /** Variables to set. */
      readonly variables?: Json;
      /** Writes to channels. */
      readonly writes?: readonly Write[];
      /** Events before `node.completed`. */
      readonly events?: readonly NewEvent[];
    }
  | { readonly kind: "failed"; readonly error: ErrorData; readonly events?: readonly NewEvent[] }
  | { readonly kind: "asks"; readonly question: Question; readonly events?: readonly NewEvent[] }
  /** Look again: at the latest at this time (epoch milliseconds), or when the run is nudged. */
  | { readonly kind: "waits"; readonly until?: number; readonly events?: readonly NewEvent[] };

/** How an effect on the outside is made (OpenWOP, effect identity inside a run). */
export interface EffectOptions {
  /** Who is called: part of the identity, and of metrics. */
  readonly provider: string;
  /** Whether doing it again with the same key does it once: then an unknown outcome is simply tried again. */
  readonly idempotent: boolean;
}

/** What a node is given. Real values: masking is for what is shown. */
export interface NodeCall {
  readonly state: RunState;
  readonly node: WorkflowNode;
  readonly own: NodeState;
  /** Resolved input ports. */
  readonly inputs: Json;
  /** Configuration with its templates filled. */
  readonly config: Json;
  /** Epoch milliseconds: the time of the event that led here, so that a replay sees the same. */
  readonly now: number;
  /** Aborts on cancel, immediate pause and timeouts. */
  readonly signal: AbortSignal;
  readonly traceparent: string;
  /** An event of the node while it runs: chunks, logs, usage. Written with others, at the latest with the node's end. */
  tell(event: NewEvent): void;
  /**
   * Does something outside once, whatever happens to this worker; `perform` gets the identity to hand to a provider as its idempotency
   * key. Throws what `perform` threw, the first time and ever after; throws `effect_outcome_unknown` when a worker died in it.
   */
  effect<T>(options: EffectOptions, perform: (invocationId: string) => Promise<T>): Promise<T>;
}

export interface NodeType {
  readonly typeId: string;
  /** Runtime capabilities it needs; the host checks before it starts. */
  readonly requires?: readonly string[];
  /** `instant` computes at once and touches nothing; `task` runs while the worker holds the run; `parked` is looked at again and again. */
  readonly mode: "instant" | "task" | "parked";
  /** Starts it, or looks at it again when parked. */
  run(call: NodeCall): NodeResult | Promise<NodeResult>;
  /** Goes on with the answer to its question. Default: completes with it. */
  resume?(call: NodeCall, value: unknown): NodeResult;
  /** Checks its configuration at registration; throws `validation_error` naming the member below `field`. */
  check?(node: WorkflowNode, field: string): void;
}

export function completed(outputs: Json = {}): NodeResult {
  return { kind: "completed", outputs };
}

export function failed(
  code: string,
  message: string,
  extras: { readonly details?: Json; readonly retryable?: boolean } = {},
): NodeResult {
  return { kind: "failed", error: { code, message, ...extras } };
}
