/** Whether a node may start (OpenWOP, core node types; rate limits, backpressure, caps). Pure. */
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import type { WorkflowNode } from "../../../contracts/openwop/workflow.ts";
import type { RunLimits } from "./due.ts";
import type { Failure } from "./ending.ts";
import { LOOP_HEADS, type GraphNode } from "./graph.ts";
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
export function overLimit(one: GraphNode, attempt: number, state: RunState, limits: RunLimits): Capped | undefined {
  const { node } = one;
  const executions = state.executions + 1;
  if (executions > limits.nodeExecutions) {
    const message = `more than ${limits.nodeExecutions} node executions`;
    return capped("node-executions", "recursion_limit_exceeded", message, limits.nodeExecutions, executions, node.id);
  }
  return attempt === 0 ? (overDispatched(one, state) ?? overLooped(one, state, limits)) : undefined;
}

/** `iterationCap` of a dispatch counts all dispatches of the run. */
function overDispatched({ node }: GraphNode, state: RunState): Capped | undefined {
  const cap = node.config["iterationCap"];
  if (node.typeId !== "core.dispatch" || typeof cap !== "number") return undefined;
  let observed = 1;
  for (const { typeId, iterations } of state.nodes.values()) if (typeId === "core.dispatch") observed += iterations;
  if (observed <= cap) return undefined;
  return capped("dispatch-iterations", "loop_limit_exceeded", `more than ${cap} dispatches`, cap, observed, node.id);
}

function overLooped({ node, loops }: GraphNode, state: RunState, limits: RunLimits): Capped | undefined {
  const turns = (state.nodes.get(node.id)?.iterations ?? 0) + 1;
  if (loops.length === 0) return undefined;
  if (LOOP_HEADS.has(node.typeId)) {
    if (turns <= limits.loopIterations) return undefined;
    const message = `more than ${limits.loopIterations} turns of a loop`;
    return capped("loop-iterations", "loop_limit_exceeded", message, limits.loopIterations, turns, node.id);
  }
  const [limit, iterations] = [limits.loopbacks, turns - 1];
  if (iterations <= limit) return undefined;
  const message = `led back more than ${limit} times`;
  const told = { type: "workflow.loopback-limit", nodeId: node.id, payload: { nodeId: node.id, iterations, limit } };
  const over = capped("loop-iterations", "loop_limit_exceeded", message, limit, iterations, node.id);
  return { ...over, end: { ...over.end, first: [told, ...(over.end.first ?? [])] } };
}

interface Capped {
  readonly kind: string;
  readonly end: Failure;
}

function capped(kind: string, code: string, message: string, limit: number, observed: number, nodeId: string): Capped {
  const first = [{ type: "cap.breached", nodeId, payload: { kind, limit, observed, nodeId } }];
  return { kind, end: { code, message, failedNodeId: nodeId, first } };
}

/** `cause` is the id of the event the node is started for, when there is one. */
export function startOf({ id, typeId, agent }: WorkflowNode, attempt: number, cause?: string): NewEvent {
  return {
    type: "node.started",
    nodeId: id,
    ...(cause !== undefined && { causationId: cause }),
    payload: { nodeId: id, typeId, attempt, ...(agent !== undefined && { agent }) },
  };
}
