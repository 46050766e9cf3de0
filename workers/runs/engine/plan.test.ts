/** Planning, pure: trigger rules, conditions, loops, cycles. */
import { describe, expect, test } from "vitest";
import { apply, initialState } from "../../../contracts/openwop/fold.ts";
import type { RunRecord } from "../../../contracts/openwop/log.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import type { TriggerRule, WorkflowDefinition, WorkflowEdge } from "../../../contracts/openwop/workflow.ts";
import { graphOf, type Graph } from "./graph.ts";
import { nextMoves } from "./plan.ts";

type Arrow = string | Partial<WorkflowEdge>;

function graph(ids: readonly string[], arrows: readonly Arrow[], types: Readonly<Record<string, string>> = {}): Graph {
  const edges = arrows.map((arrow, at): WorkflowEdge => {
    if (typeof arrow !== "string") return { id: `e${at}`, sourceNodeId: "", targetNodeId: "", ...arrow };
    const [path = "", rule] = arrow.split(":");
    const [sourceNodeId = "", targetNodeId = ""] = path.split(">");
    return {
      id: `e${at}`,
      sourceNodeId,
      targetNodeId,
      ...(rule !== undefined && { triggerRule: rule as TriggerRule }),
    };
  });
  const nodes = ids.map((id) => ({ id, typeId: types[id] ?? "core.noop", name: id, config: {}, inputs: {} }));
  return graphOf({
    id: "w",
    name: "w",
    version: "1",
    nodes,
    edges,
    triggers: [],
    variables: [],
    metadata: {},
    settings: {},
  } satisfies WorkflowDefinition);
}

function stateAfter(...outcomes: readonly string[]): RunState {
  const record = {
    runId: "r",
    workflowId: "w",
    owner: { tenant: "t" },
    inputs: {},
    configurable: {},
    variables: [],
    channels: {},
  } as unknown as RunRecord;
  const state = initialState(record);
  let sequence = 0;
  const tell = (type: string, nodeId: string | undefined, payload: object): void =>
    apply(state, {
      eventId: `${sequence}`,
      runId: "r",
      type,
      payload,
      timestamp: new Date(sequence).toISOString(),
      sequence: sequence++,
      ...(nodeId !== undefined && { nodeId }),
    });
  tell("run.started", undefined, {});
  for (const outcome of outcomes) {
    const [id = "", how = "completed", output] = outcome.split(":");
    if (how !== "skipped") tell("node.started", id, { typeId: "core.noop", attempt: 0 });
    if (how !== "started")
      tell(`node.${how}`, id, {
        outputs: output === undefined ? {} : (JSON.parse(output.replaceAll("'", '"').replaceAll("=", ":")) as object),
      });
  }
  return state;
}

const starts = (of: Graph, ...outcomes: readonly string[]): string[] =>
  nextMoves(of, stateAfter(...outcomes)).start.map(({ node }) => node.id);
const skips = (of: Graph, ...outcomes: readonly string[]): string[] =>
  nextMoves(of, stateAfter(...outcomes)).skip.map(({ node }) => node.node.id);

describe("order", () => {
  test("a chain, one after the other", () => {
    const chain = graph(["a", "b", "c"], ["a>b", "b>c"]);
    expect([starts(chain), starts(chain, "a"), starts(chain, "a", "b")]).toEqual([["a"], ["b"], ["c"]]);
    expect(nextMoves(chain, stateAfter("a", "b", "c")).done).toBe(true);
  });
  test("a diamond joins when both sides are there", () => {
    const diamond = graph(["a", "b", "c", "d"], ["a>b", "a>c", "b>d", "c>d"]);
    expect([starts(diamond, "a"), starts(diamond, "a", "b"), starts(diamond, "a", "b", "c")]).toEqual([
      ["b", "c"],
      ["c"],
      ["d"],
    ]);
  });
});

describe("trigger rules", () => {
  const join = (rule: TriggerRule): Graph => graph(["a", "b", "j"], [`a>j:${rule}`, `b>j:${rule}`]);
  test.each<[TriggerRule, string[], string]>([
    ["all_success", ["a", "b:failed"], "skip"],
    ["any_success", ["a"], "start"],
    ["any_success", ["a:failed", "b:failed"], "skip"],
    ["all_complete", ["a", "b:failed"], "start"],
    ["none_failed", ["a", "b:skipped"], "start"],
    ["none_failed", ["a", "b:failed"], "skip"],
    ["any_failed", ["a:failed"], "start"],
    ["any_failed", ["a", "b"], "skip"],
  ])("%s after %j is %s", (rule, outcomes, verdict) => {
    expect([starts(join(rule), ...outcomes).includes("j"), skips(join(rule), ...outcomes).includes("j")]).toEqual([
      verdict === "start",
      verdict === "skip",
    ]);
  });
  test("a failure is taken care of by an edge for it, and by no other", () => {
    expect(nextMoves(graph(["a", "b"], ["a>b"]), stateAfter("a:failed")).failed?.failedNodeId).toBe("a");
    expect(nextMoves(graph(["a", "b"], ["a>b:any_failed"]), stateAfter("a:failed")).failed).toBeUndefined();
  });
});

test("a condition takes one way and skips the other", () => {
  const ways = graph(
    ["a", "yes", "no"],
    [
      { sourceNodeId: "a", targetNodeId: "yes", condition: { type: "equals", left: "output.ok", right: true } },
      { sourceNodeId: "a", targetNodeId: "no", condition: { type: "expression", expression: "!output.ok" } },
    ],
  );
  expect([starts(ways, "a:completed:{'ok'=true}"), skips(ways, "a:completed:{'ok'=true}")]).toEqual([["yes"], ["no"]]);
});

describe("loops", () => {
  const loop = graph(["head", "body", "after"], ["head>body", "body>head", "head>after"], { head: "core.loop" });
  test("the head starts again when its loop has gone round, and ends it with continue: false", () => {
    expect(starts(loop, "head", "body")).toEqual(["head"]);
    expect(starts(loop, "head", "body", "head")).toEqual(["body"]);
    expect(
      starts(
        graph(["head", "body"], ["head>body", "body>head"], { head: "core.loop" }),
        "head",
        "body:completed:{'continue'=false}",
      ),
    ).toEqual([]);
  });
  test("a cycle that nothing ends is refused, naming the edge", () => {
    expect(() => graph(["a", "b"], ["a>b", "b>a"])).toThrow(/edges\[1\] closes a cycle/);
  });
});
