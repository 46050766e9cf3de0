/** Whether a node may start (OpenWOP, core node types; rate limits, backpressure, caps). Pure. */
import type { NewEvent } from "../../contracts/openwop/log.ts";
import type { RunState } from "../../contracts/openwop/state.ts";
import type { WorkflowNode } from "../../contracts/openwop/workflow.ts";
import type { RunLimits } from "./due.ts";
import type { Failure } from "./ending.ts";
import type { GraphNode } from "./graph.ts";
import type { NodeType } from "./nodetype.ts";

/** The failure of a node this host cannot run: it fails without ever having started. */
export function refusal(
  node: WorkflowNode,
  type: NodeType | undefined,
  capabilities: ReadonlySet<string>,
): NewEvent | undefined {
  const missing = type?.requires?.find((id) => !capabilities.has(id));
  if (type !== undefined && missing === undefined) return undefined;
  const error =
    missing === undefined
      ? { code: "unsupported_node_type", message: `no node type ${node.typeId} is registered` }
      : {
          code: "capability_not_provided",
          message: `node ${node.id} requires ${missing}, which this host does not provide`,
          details: { capability: missing },
        };
  return { type: "node.failed", nodeId: node.id, payload: { nodeId: node.id, error, attempts: 1 } };
}

/** The limit that the next start would exceed, and how the run ends for it. */
export function overLimit(
  { node, loops }: GraphNode,
  attempt: number,
  state: RunState,
  limits: RunLimits,
): { readonly kind: string; readonly end: Failure } | undefined {
  const executions = state.executions + 1;
  if (executions > limits.nodeExecutions) {
    const message = `more than ${limits.nodeExecutions} node executions`;
    return capped("node-executions", "recursion_limit_exceeded", message, limits.nodeExecutions, executions, node.id);
  }
  const turns = (state.nodes.get(node.id)?.iterations ?? 0) + (attempt === 0 ? 1 : 0);
  if (loops.length === 0 || turns <= limits.loopIterations) return undefined;
  const message = `more than ${limits.loopIterations} turns of a loop`;
  return capped("loop-iterations", "loop_limit_exceeded", message, limits.loopIterations, turns, node.id);
}

function capped(
  kind: string,
  code: string,
  message: string,
  limit: number,
  observed: number,
  nodeId: string,
): { readonly kind: string; readonly end: Failure } {
  const first = { type: "cap.breached", nodeId, payload: { kind, limit, observed, nodeId } };
  return { kind, end: { code, message, failedNodeId: nodeId, first } };
}

export function startOf({ id, typeId, agent }: WorkflowNode, attempt: number): NewEvent {
  return {
    type: "node.started",
    nodeId: id,
    payload: { nodeId: id, typeId, attempt, ...(agent !== undefined && { agent }) },
  };
}
