/** What a run does next: pure, from its graph and its state (OpenWOP, DAG execution rules). */
import type { Json } from "../../../contracts/openwop/json.ts";
import type { NodeState, RunState } from "../../../contracts/openwop/state.ts";
import type { TriggerRule, WorkflowEdge } from "../../../contracts/openwop/workflow.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Failure } from "./ending.ts";
import { holds } from "./expressions.ts";
import type { Graph, GraphNode } from "./graph.ts";
import { firesAt, firing, isTriggered } from "./triggers.ts";

export interface Moves {
  /** Nodes to start, in topological order. */
  readonly start: readonly GraphNode[];
  /** Events that nodes are started for: writes to channels they watch. By node. */
  readonly causes: ReadonlyMap<string, string>;
  /** Nodes that will not run, and why. */
  readonly skip: readonly { readonly node: GraphNode; readonly reason: string }[];
  /** Why the run fails: a failed node that no edge takes care of, or a condition that cannot be computed. */
  readonly failed: Failure | undefined;
  /** Nothing is left to do or to wait for. */
  readonly done: boolean;
}

type Edge = "pending" | "success" | "failed" | "skipped";
type Verdict = "wait" | "start" | "skip";

/** `clock` is epoch milliseconds: only writes that must have been followed by quiet ask for it. */
export function nextMoves(graph: Graph, state: RunState, clock = Infinity): Moves {
  try {
    return moves(graph, state, clock);
  } catch (thrown) {
    const { code, message, details } = BeamlineError.from(thrown);
    if (code === "internal") throw thrown;
    return { start: [], causes: new Map(), skip: [], failed: { code, message, details }, done: false };
  }
}

function moves(graph: Graph, state: RunState, clock: number): Moves {
  const start: GraphNode[] = [];
  const causes = new Map<string, string>();
  const skip: { node: GraphNode; reason: string }[] = [];
  const busyLoops = new Set<number>();
  let waiting = false;
  for (const one of graph.nodes) {
    const now = state.nodes.get(one.node.id);
    const fire = isUnsettled(now) || one.node.disabled === true ? undefined : firing(state, one.node.id, clock);
    const verdict = isUnsettled(now) ? "wait" : fire === undefined ? verdictOn(one, now, state) : "start";
    if (fire !== undefined) causes.set(one.node.id, fire.eventId);
    if (verdict === "wait" && (isUnsettled(now) || willFire(one, state))) waiting = true;
    if (verdict === "start") start.push(one);
    if (verdict === "skip") skip.push({ node: one, reason: reasonOf(one) });
    if (one.loop >= 0 && (verdict === "start" || isUnsettled(now))) busyLoops.add(one.loop);
  }
  // A loop goes round only when nothing in it is left to do, and its nodes come before whatever follows it.
  for (const loop of graph.loops) {
    const [first] = loop;
    if (first === undefined || busyLoops.has(first.loop)) continue;
    for (const head of loop) if (!start.includes(head) && goesRound(head, state)) start.push(head);
  }
  // What its last turn comes to decides, also over what is not to run.
  const over = (one: GraphNode): boolean =>
    one.incoming.every((edge) => !leavesBusyLoop(graph, edge, one, busyLoops, start));
  const followers = start.filter(over);
  const skipped = skip.filter(({ node }) => over(node));
  return {
    start: followers,
    causes,
    skip: skipped,
    failed: unhandledFailure(graph, state),
    done: followers.length === 0 && skipped.length === 0 && !waiting,
  };
}

function willFire({ node }: GraphNode, state: RunState): boolean {
  return node.disabled !== true && firesAt(state, node.id) < Infinity;
}

export function isUnsettled(node: NodeState | undefined): boolean {
  return (
    node !== undefined &&
    (node.status === "started" ||
      node.status === "retrying" ||
      node.status === "suspended" ||
      node.status === "resumed")
  );
}

function reasonOf({ node }: GraphNode): string {
  return node.disabled === true ? "disabled" : "trigger-rule";
}

function verdictOn(one: GraphNode, now: NodeState | undefined, state: RunState): Verdict {
  if (now !== undefined) {
    // Settled: only a later turn of its loop makes it run again.
    if (one.loop < 0) return "wait";
    const newer = one.incoming.some(
      (edge) => (state.nodes.get(edge.sourceNodeId)?.settledSeq ?? -1) > now.settledSeq && sameLoop(one, edge, state),
    );
    if (!newer) return "wait";
  }
  if (one.node.disabled === true) return ready(one, state, now) ? "skip" : "wait";
  if (one.incoming.length === 0) return isTriggered(state, one.node.id) ? "wait" : "start";
  const rules = new Map<TriggerRule, Edge[]>();
  for (const edge of one.incoming) {
    const rule = edge.triggerRule ?? "all_success";
    rules.set(rule, [...(rules.get(rule) ?? []), edgeState(edge, state, now, one)]);
  }
  let verdict: Verdict = "start";
  for (const [rule, edges] of rules) {
    const own = ruled(rule, edges);
    if (own === "skip") return "skip";
    if (own === "wait") verdict = "wait";
  }
  return verdict;
}

function ready(one: GraphNode, state: RunState, now: NodeState | undefined): boolean {
  return one.incoming.every((edge) => edgeState(edge, state, now, one) !== "pending");
}

/** Whether the edge's source runs in the same loop: it has been started after this node was last settled. */
function sameLoop(one: GraphNode, edge: WorkflowEdge, state: RunState): boolean {
  return one.loop >= 0 && (state.nodes.get(edge.sourceNodeId)?.iterations ?? 0) > 0;
}

function edgeState(edge: WorkflowEdge, state: RunState, now: NodeState | undefined, target: GraphNode): Edge {
  const source = state.nodes.get(edge.sourceNodeId);
  if (source === undefined || isUnsettled(source)) return "pending";
  // In a further turn only what this turn brought counts.
  if (now !== undefined && target.loop >= 0 && source.settledSeq < now.settledSeq && source.iterations > 1)
    return "pending";
  if (source.status === "failed") return "failed";
  if (source.status !== "completed") return "skipped";
  return isTaken(edge, source, state) ? "success" : "skipped";
}

function ruled(rule: TriggerRule, edges: readonly Edge[]): Verdict {
  const settled = !edges.includes("pending");
  switch (rule) {
    case "all_success":
      if (edges.includes("failed") || edges.includes("skipped")) return "skip";
      return settled ? "start" : "wait";
    case "any_success":
      if (edges.includes("success")) return "start";
      return settled ? "skip" : "wait";
    case "all_complete":
      return settled ? "start" : "wait";
    case "none_failed":
      if (edges.includes("failed")) return "skip";
      if (!settled) return "wait";
      return edges.includes("success") ? "start" : "skip";
    case "any_failed":
      if (edges.includes("failed")) return "start";
      return settled ? "skip" : "wait";
  }
}

/** Whether a loop's closing edge starts its head once more. An output `continue: false` ends the loop. */
function goesRound(head: GraphNode, state: RunState): boolean {
  const now = state.nodes.get(head.node.id);
  if (now === undefined || isUnsettled(now)) return false;
  return head.loops.some((edge) => {
    const source = state.nodes.get(edge.sourceNodeId);
    if (
      source?.status !== "completed" ||
      source.settledSeq < now.settledSeq ||
      (edge.sourceNodeId === head.node.id ? false : source.settledSeq === now.settledSeq)
    )
      return false;
    if (source.outputs?.["continue"] === false) return false;
    return isTaken(edge, source, state);
  });
}

/** Throws `validation_error` naming the edge when its condition cannot be computed. */
function isTaken(edge: WorkflowEdge, source: NodeState, state: RunState): boolean {
  if (edge.condition === undefined) return true;
  try {
    return holds(edge.condition, scopeOf(state, source, edge));
  } catch (thrown) {
    const { code, message } = BeamlineError.from(thrown);
    if (code === "internal") throw thrown;
    const details = { edgeId: edge.id };
    throw new BeamlineError(code, `edge ${edge.id}: ${message}`, { field: `edges.${edge.id}.condition`, details });
  }
}

function leavesBusyLoop(
  graph: Graph,
  edge: WorkflowEdge,
  target: GraphNode,
  busyLoops: ReadonlySet<number>,
  start: readonly GraphNode[],
): boolean {
  const loop = graph.byId.get(edge.sourceNodeId)?.loop ?? -1;
  if (loop < 0 || loop === target.loop) return false;
  return busyLoops.has(loop) || start.some((one) => one.loop === loop);
}

/** A failed node is taken care of when an edge out of it asks for failure, or for any end. */
function unhandledFailure(graph: Graph, state: RunState): Failure | undefined {
  for (const { node, outgoing } of graph.nodes) {
    const now = state.nodes.get(node.id);
    if (now?.status !== "failed") continue;
    if (outgoing.some(({ triggerRule }) => triggerRule === "any_failed" || triggerRule === "all_complete")) continue;
    const { code = "node_failed", message = "a node failed", details } = now.error ?? {};
    return { code, message, failedNodeId: now.nodeId, ...(details !== undefined && { details }) };
  }
  return undefined;
}

/** What a condition on an edge sees. */
export function scopeOf(state: RunState, source: NodeState, edge?: WorkflowEdge): Json {
  const outputs = source.outputs ?? {};
  const port = edge?.sourceOutput;
  return {
    output: port !== undefined && port !== "output" && outputs[port] !== undefined ? outputs[port] : outputs,
    status: source.status,
    error: source.error ?? null,
    ...runScope(state),
  };
}

/** What expressions and templates see of a run. */
export function runScope(state: RunState): Json {
  return {
    inputs: state.record.inputs,
    variables: { ...state.variables, ...state.channels },
    channels: state.channels,
    outputs: Object.fromEntries(
      [...state.nodes].filter(([, node]) => node.outputs !== undefined).map(([id, node]) => [id, node.outputs]),
    ),
    run: { id: state.record.runId, workflowId: state.record.workflowId },
  };
}
