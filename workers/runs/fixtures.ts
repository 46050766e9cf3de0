/**
 * Workflows a conformance suite starts by id, written for our own tests and loaded behind a switch (OpenWOP, conformance: fixtures). They
 * belong to every tenant.
 */
import type {
  Channel,
  PortValue,
  TriggerRule,
  WorkflowDefinition,
  WorkflowNode,
  WorkflowVariable,
} from "../../contracts/openwop/workflow.ts";

type Config = Readonly<Record<string, unknown>>;

function node(
  id: string,
  typeId: string,
  config: Config = {},
  inputs: Readonly<Record<string, PortValue>> = {},
  extra: Partial<WorkflowNode> = {},
): WorkflowNode {
  return { id, typeId, name: id, position: { x: 0, y: 0 }, config, inputs, ...extra } as WorkflowNode;
}

const variable = (variableName: string): PortValue => ({ type: "variable", variableName });

interface Parts {
  /** `a>b`, or `a>b:any_failed`. */
  readonly edges?: readonly string[];
  readonly variables?: readonly WorkflowVariable[];
  readonly channels?: Readonly<Record<string, Channel>>;
  readonly settings?: WorkflowDefinition["settings"];
  readonly configurableSchema?: Config;
}

function workflow(
  id: string,
  nodes: readonly WorkflowNode[],
  { edges = [], variables = [], channels, settings = { timeout: 60_000 }, configurableSchema }: Parts = {},
): WorkflowDefinition {
  return {
    id,
    name: id,
    version: "1.0",
    nodes,
    edges: edges.map((text, at) => {
      const [path = "", rule] = text.split(":");
      const [sourceNodeId = "", targetNodeId = ""] = path.split(">");
      return {
        id: `e${at}`,
        sourceNodeId,
        targetNodeId,
        ...(rule !== undefined && { triggerRule: rule as TriggerRule }),
      };
    }),
    triggers: [{ id: "manual", type: "manual", enabled: true }],
    variables,
    ...(channels !== undefined && { channels }),
    ...(configurableSchema !== undefined && { configurableSchema }),
    metadata: { tags: ["conformance"] },
    settings,
  };
}

function chain(ids: readonly string[]): string[] {
  return ids.slice(1).map((id, at) => `${ids[at] ?? ""}>${id}`);
}

const waits = { settings: { timeout: 0 } } as const;
const delayed = (id: string, ms: number, timeout: number): WorkflowDefinition =>
  workflow(id, [node("wait", "core.delay", {}, { delayMs: variable("delayMs") })], {
    variables: [{ name: "delayMs", type: "number", required: true, defaultValue: ms }],
    settings: { timeout },
  });
const gate = (id: string, config: Config, parts: Parts = waits, gateId = "gate"): WorkflowDefinition =>
  workflow(id, [node(gateId, "core.approvalGate", { title: id, actions: ["accept", "reject"], ...config })], parts);
const text = (name: string, extra: Partial<WorkflowVariable> = {}): WorkflowVariable => ({
  name,
  type: "string",
  ...extra,
});
const write = (id: string, value: string): WorkflowNode =>
  node(id, "core.channelWrite", { channelName: "events", reducer: "append", ttlMs: 200, value });
const supervised = (id: string, config: Config): WorkflowDefinition =>
  workflow(
    id,
    [
      node(
        "supervisor",
        "core.orchestrator.supervisor",
        config,
        {},
        { agent: { agentId: "core.conformance.supervisor", modelClass: "reasoning" } },
      ),
      node("dispatch", "core.dispatch", {
        askUserRouting: "auto",
        workerDispatchModel: "child-run",
        fanOutPolicy: "sequential",
      }),
    ],
    { edges: ["supervisor>dispatch", "dispatch>supervisor"] },
  );

/** Every fixture this host runs. */
export const fixtures: readonly WorkflowDefinition[] = [
  workflow("conformance-noop", [node("noop", "core.noop")]),
  workflow("conformance-identity", [node("echo", "core.identity", {}, { payload: variable("payload") })], {
    variables: [{ name: "payload", type: "object", required: true }],
  }),
  delayed("conformance-delay", 1_000, 60_000),
  delayed("conformance-cancellable", 30_000, 120_000),
  delayed("conformance-run-duration-breach", 30_000, 60_000),
  workflow("conformance-failure", [node("fail", "core.fail")]),
  workflow("conformance-multi-node", [node("a", "core.noop"), node("b", "core.noop"), node("c", "core.noop")], {
    edges: chain(["a", "b", "c"]),
  }),
  workflow("conformance-idempotent", [node("noop", "core.noop")], { variables: [text("nonce", { required: true })] }),
  workflow("conformance-capability-missing", [node("n1", "conformance.requiresMissing")]),
  workflow(
    "conformance-cap-breach",
    ["n1", "n2", "n3", "n4", "n5", "n6"].map((id) => node(id, "core.noop")),
    { edges: chain(["n1", "n2", "n3", "n4", "n5", "n6"]) },
  ),
  workflow("conformance-configurable-schema", [node("noop", "core.noop")], {
    configurableSchema: {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      type: "object",
      additionalProperties: false,
      properties: {
        recursionLimit: { type: "integer", minimum: 1 },
        tags: { type: "array", items: { type: "string" } },
      },
    },
  }),
  workflow("conformance-version-fold", [node("noop", "core.noop")]),
  gate("conformance-approval", {}),
  gate("conformance-approval-timeout", { timeoutMs: 1_500 }),
  workflow(
    "conformance-approval-reject-routed",
    [
      node("gate", "core.approvalGate", { title: "routed", actions: ["accept", "reject"] }),
      node("on-reject", "core.noop"),
      node("on-accept", "core.noop"),
    ],
    {
      edges: ["gate>on-reject:any_failed", "gate>on-accept:all_success"],
      ...waits,
    },
  ),
  workflow(
    "conformance-clarification",
    [node("ask", "core.clarificationGate", { questions: [{ id: "q1", question: "Which colour do you like best?" }] })],
    waits,
  ),
  gate("conformance-interrupt-auth-required", { profile: "openwop-interrupt-auth-required" }),
  gate("conformance-interrupt-quorum", { requiredApprovals: 3, rejectionPolicy: "majority", approversList: [] }),
  workflow(
    "conformance-interrupt-external-event",
    [
      node("wait-for-external", "core.interrupt", {
        kind: "external-event",
        data: {
          eventType: "conformance.external.completed",
          correlation: { orderId: "fixture-order-1", status: "completed" },
        },
        timeoutMs: 60_000,
      }),
    ],
    waits,
  ),
  gate("conformance-interrupt-parent-child-cancel-child", {}, waits, "child-gate"),
  workflow(
    "conformance-interrupt-parent-child-cancel",
    [
      node("spawn-child", "core.subWorkflow", {
        workflowId: "conformance-interrupt-parent-child-cancel-child",
        propagateCancellation: true,
      }),
    ],
    waits,
  ),
  workflow("conformance-subworkflow-child", [node("child-n1", "core.noop"), node("child-n2", "core.noop")], {
    edges: ["child-n1>child-n2"],
    variables: [text("childResult", { defaultValue: "child-completed" })],
  }),
  workflow(
    "conformance-subworkflow-parent",
    [
      node("run-child", "core.subWorkflow", {
        workflowId: "conformance-subworkflow-child",
        waitForCompletion: true,
        outputMapping: { childOutcome: "childResult" },
      }),
    ],
    { variables: [text("childOutcome", { defaultValue: "" })] },
  ),
  workflow("conformance-subworkflow-input-mapping-child", [node("noop", "core.identity")], {
    variables: [text("receivedPrdId", { defaultValue: "baked-in" })],
  }),
  workflow(
    "conformance-subworkflow-input-mapping",
    [
      node("run-child", "core.subWorkflow", {
        workflowId: "conformance-subworkflow-input-mapping-child",
        inputMapping: { receivedPrdId: "currentPrdId" },
      }),
    ],
    { variables: [text("currentPrdId", { defaultValue: "from-parent" })] },
  ),
  workflow(
    "conformance-subworkflow-input-mapping-no-default",
    [
      node("run-child", "core.subWorkflow", {
        workflowId: "conformance-subworkflow-input-mapping-child",
        inputMapping: { receivedPrdId: "currentPrdId" },
      }),
    ],
    { variables: [text("currentPrdId")] },
  ),
  workflow(
    "conformance-channel-ttl",
    [
      write("write-a", "a"),
      write("write-b", "b"),
      write("write-c", "c"),
      node("ttl-wait", "core.delay", { ms: 300 }),
      write("write-d", "d"),
    ],
    {
      edges: chain(["write-a", "write-b", "write-c", "ttl-wait", "write-d"]),
    },
  ),
  workflow(
    "conformance-message-reducer",
    [node("emit-duplicate-message", "core.identity", { emitDuplicateMessageId: true })],
    {
      channels: { messages: { schema: { type: "array" }, reducer: "message" } },
    },
  ),
  workflow("conformance-stream-text", [
    node("ai", "core.ai.callPrompt", { promptId: "conformance.stream-text-noop", expectsStreaming: true }),
  ]),
  supervised("conformance-dispatch-loop", {}),
  supervised("conformance-orchestrator-dispatch", {
    mockDecisions: [
      { kind: "next-worker", nextWorkerIds: ["conformance-noop"] },
      { kind: "terminate", reason: "goal-reached" },
    ],
  }),
  supervised("conformance-orchestrator-terminate", { mockDecisions: [{ kind: "terminate", reason: "goal-reached" }] }),
  supervised("conformance-orchestrator-low-confidence", {
    mockConfidence: 0.5,
    mockPendingDecision: { kind: "next-worker", nextWorkerIds: ["conformance-noop"] },
  }),
];
