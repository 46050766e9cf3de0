/** The events a run ends with. Pure. */
import type { Json } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import type { Graph } from "./graph.ts";
import { isUnsettled } from "./plan.ts";

/** Why a run fails. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly details?: Json;
  readonly failedNodeId?: string;
  /** What comes before everything else: `cap.breached`. */
  readonly first?: readonly NewEvent[];
}

/** The outputs of a run are those of the nodes nothing follows, by node. */
export function completion(graph: Graph, state: RunState, now: number): NewEvent[] {
  const outputs: Record<string, unknown> = {};
  for (const { node, outgoing } of graph.nodes) {
    const own = state.nodes.get(node.id);
    const told = outgoing.length === 0 && own?.status === "completed" && Object.keys(own.outputs ?? {}).length > 0;
    if (told) outputs[node.id] = own.outputs;
  }
  const some = Object.keys(outputs).length > 0;
  return [{ type: "run.completed", payload: { ...(some && { outputs }), durationMs: ageOf(state, now) } }];
}

/** What was still going on is cancelled, then the run fails. */
export function failure(state: RunState, { code, message, details, failedNodeId }: Failure, now: number): NewEvent[] {
  const cut = [...state.nodes.values()].filter(isUnsettled);
  const error = { code, message, ...(details !== undefined && { details }) };
  return [
    ...cut.map(({ nodeId }) => ({ type: "node.cancelled", nodeId, payload: { nodeId, reason: "run-failed" } })),
    {
      type: "run.failed",
      payload: { error, ...(failedNodeId !== undefined && { failedNodeId }), durationMs: ageOf(state, now) },
    },
  ];
}

function ageOf(state: RunState, now: number): number {
  return Math.max(0, now - Date.parse(state.startedAt));
}
