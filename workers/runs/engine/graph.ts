/** A workflow's nodes and edges, worked out once per definition: order, loops, who waits for whom. */
import { BeamlineError } from "../../../contracts/errors.ts";
import type { WorkflowDefinition, WorkflowEdge, WorkflowNode } from "../../../contracts/openwop/workflow.ts";

export interface GraphNode {
  readonly node: WorkflowNode;
  /** Edges into it that do not close a loop. */
  readonly incoming: readonly WorkflowEdge[];
  /** Edges into it that do: each of them may start it again. */
  readonly loops: readonly WorkflowEdge[];
  readonly outgoing: readonly WorkflowEdge[];
  /** Number of the loop it is part of; -1 outside of all. */
  readonly loop: number;
}

export interface Graph {
  readonly definition: WorkflowDefinition;
  /** In topological order. */
  readonly nodes: readonly GraphNode[];
  readonly byId: ReadonlyMap<string, GraphNode>;
  /** Nodes of each loop. */
  readonly loops: readonly (readonly GraphNode[])[];
}

/** Node types that decide themselves whether their loop goes on. */
export const LOOP_HEADS: ReadonlySet<string> = new Set(["core.orchestrator.supervisor", "core.loop"]);

/**
 * Works out the graph. Throws `validation_error` naming the edge for unknown or doubled ids, and for a cycle that nothing ends: a loop must
 * lead back to a supervisor or a `core.loop`, or its closing edge must have a condition.
 */
export function graphOf(definition: WorkflowDefinition): Graph {
  const nodes = new Map<string, WorkflowNode>();
  definition.nodes.forEach((node, at) => {
    if (nodes.has(node.id)) throw invalid(`nodes[${at}].id`, `${node.id} is there twice`);
    nodes.set(node.id, node);
  });
  definition.edges.forEach((edge, at) => {
    for (const end of ["sourceNodeId", "targetNodeId"] as const) {
      if (!nodes.has(edge[end])) throw invalid(`edges[${at}].${end}`, `${edge[end]} is not a node of the workflow`);
    }
  });
  const closing = closingEdges(definition, nodes);
  for (const edge of closing) {
    const head = nodes.get(edge.targetNodeId);
    if (edge.condition !== undefined || (head !== undefined && LOOP_HEADS.has(head.typeId))) continue;
    throw invalid(
      `edges[${definition.edges.indexOf(edge)}]`,
      `closes a cycle through ${edge.targetNodeId} that nothing ends`,
    );
  }
  const loopOf = loopsOf(definition, closing);
  const order = topological(definition, closing);
  const made = order.map((id): GraphNode => {
    const into = definition.edges.filter((edge) => edge.targetNodeId === id);
    return {
      node: nodes.get(id) as WorkflowNode,
      incoming: into.filter((edge) => !closing.has(edge)),
      loops: into.filter((edge) => closing.has(edge)),
      outgoing: definition.edges.filter((edge) => edge.sourceNodeId === id),
      loop: loopOf.get(id) ?? -1,
    };
  });
  const count = Math.max(-1, ...made.map(({ loop }) => loop)) + 1;
  return {
    definition,
    nodes: made,
    byId: new Map(made.map((one) => [one.node.id, one])),
    loops: Array.from({ length: count }, (_, at) => made.filter(({ loop }) => loop === at)),
  };
}

/** Edges that lead back to a node on the way to them: depth first, in the order of the document. No recursion: graphs may be deep. */
function closingEdges(definition: WorkflowDefinition, nodes: ReadonlyMap<string, WorkflowNode>): Set<WorkflowEdge> {
  const from = new Map<string, WorkflowEdge[]>();
  for (const edge of definition.edges) from.set(edge.sourceNodeId, [...(from.get(edge.sourceNodeId) ?? []), edge]);
  const closing = new Set<WorkflowEdge>();
  const state = new Map<string, "open" | "done">();
  const entries = [...nodes.keys()].filter((id) => !definition.edges.some((edge) => edge.targetNodeId === id));
  for (const root of [...entries, ...nodes.keys()]) {
    if (state.has(root)) continue;
    const stack: { id: string; next: number }[] = [{ id: root, next: 0 }];
    state.set(root, "open");
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const edge = from.get(top.id)?.[top.next++];
      if (edge === undefined) {
        state.set(top.id, "done");
        stack.pop();
      } else if (state.get(edge.targetNodeId) === "open") closing.add(edge);
      else if (!state.has(edge.targetNodeId)) {
        state.set(edge.targetNodeId, "open");
        stack.push({ id: edge.targetNodeId, next: 0 });
      }
    }
  }
  return closing;
}

function topological(definition: WorkflowDefinition, closing: ReadonlySet<WorkflowEdge>): string[] {
  const missing = new Map(definition.nodes.map(({ id }) => [id, 0]));
  const forward = definition.edges.filter((edge) => !closing.has(edge));
  const from = new Map<string, string[]>();
  for (const { sourceNodeId, targetNodeId } of forward) {
    missing.set(targetNodeId, (missing.get(targetNodeId) ?? 0) + 1);
    from.set(sourceNodeId, [...(from.get(sourceNodeId) ?? []), targetNodeId]);
  }
  const ready = definition.nodes.filter(({ id }) => missing.get(id) === 0).map(({ id }) => id);
  for (let at = 0; at < ready.length; at++) {
    for (const target of from.get(ready[at] ?? "") ?? []) {
      const left = (missing.get(target) ?? 0) - 1;
      missing.set(target, left);
      if (left === 0) ready.push(target);
    }
  }
  return ready;
}

/** The loop of each node that is part of one: what both leads to and comes from a closing edge's target. */
function loopsOf(definition: WorkflowDefinition, closing: ReadonlySet<WorkflowEdge>): Map<string, number> {
  const loop = new Map<string, number>();
  for (const { sourceNodeId, targetNodeId } of closing) {
    const down = reach(definition.edges, targetNodeId, "sourceNodeId", "targetNodeId");
    const up = reach(definition.edges, sourceNodeId, "targetNodeId", "sourceNodeId");
    const members = [...down].filter((id) => up.has(id));
    // Loops that share a node are one loop.
    const known =
      members.map((id) => loop.get(id)).find((number) => number !== undefined) ?? new Set(loop.values()).size;
    for (const id of members) loop.set(id, known);
  }
  return loop;
}

function reach(
  edges: readonly WorkflowEdge[],
  start: string,
  from: "sourceNodeId" | "targetNodeId",
  to: "sourceNodeId" | "targetNodeId",
): Set<string> {
  const seen = new Set([start]);
  for (const id of seen) for (const edge of edges) if (edge[from] === id) seen.add(edge[to]);
  return seen;
}

function invalid(field: string, what: string): BeamlineError {
  return new BeamlineError("validation_error", `${field} ${what}`, { field });
}
