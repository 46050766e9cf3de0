/** Workflows for tests, in few words. */
import type {
  Channel,
  EdgeCondition,
  TriggerRule,
  WorkflowDefinition,
  WorkflowEdge,
  WorkflowNode,
  WorkflowTrigger,
} from "../../contracts/openwop/workflow.ts";

export function node(
  id: string,
  typeId = "core.noop",
  config: WorkflowNode["config"] = {},
  extra: Partial<WorkflowNode> = {},
): WorkflowNode {
  const position = { x: 0, y: 0 };
  return { id, typeId, name: id, position, config, inputs: {}, ...extra } as WorkflowNode;
}

/** `a>b`, or `a>b:any_failed`. */
export function edge(text: string, condition?: EdgeCondition): WorkflowEdge {
  const [path = "", rule] = text.split(":");
  const [sourceNodeId = "", targetNodeId = ""] = path.split(">");
  return {
    id: text,
    sourceNodeId,
    targetNodeId,
    ...(rule !== undefined && { triggerRule: rule as TriggerRule }),
    ...(condition !== undefined && { condition }),
  };
}

export interface Parts extends Partial<Omit<WorkflowDefinition, "edges" | "channels" | "triggers">> {
  readonly edges?: readonly (string | WorkflowEdge)[];
  readonly channels?: Readonly<Record<string, Channel>>;
  readonly triggers?: readonly WorkflowTrigger[];
}

export function workflow(id: string, nodes: readonly WorkflowNode[], parts: Parts = {}): WorkflowDefinition {
  const { edges = [], ...rest } = parts;
  return {
    id,
    name: id,
    version: "1",
    nodes,
    edges: edges.map((one) => (typeof one === "string" ? edge(one) : one)),
    triggers: [],
    variables: [],
    metadata: {},
    settings: {},
    ...rest,
  };
}
