/** Workflow documents as OpenWOP writes them (OpenWOP, workflow definitions). Checked by workers/runs before they are stored. */

/** Where an input port takes its value from. */
export type PortValue =
  | { readonly type: "static"; readonly value: unknown }
  | { readonly type: "expression"; readonly expression: string }
  | { readonly type: "connection"; readonly nodeId: string; readonly outputKey: string; readonly optional?: boolean }
  | { readonly type: "variable"; readonly variableName: string; readonly optional?: boolean };

export interface WorkflowNode {
  readonly id: string;
  readonly typeId: string;
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly inputs: Readonly<Record<string, PortValue>>;
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly disabled?: boolean;
  readonly agent?: { readonly agentId: string; readonly [key: string]: unknown };
  /** Output ports whose values are masked wherever they are shown. */
  readonly outputSensitivity?: Readonly<Record<string, boolean>>;
}

export type TriggerRule = "all_success" | "any_success" | "all_complete" | "none_failed" | "any_failed";

export interface EdgeCondition {
  readonly type?: "expression" | "equals" | "notEquals" | "contains" | "regex";
  readonly left?: string;
  readonly right?: unknown;
  readonly expression?: string;
}

export interface WorkflowEdge {
  readonly id: string;
  readonly sourceNodeId: string;
  readonly targetNodeId: string;
  /** Default `output`. */
  readonly sourceOutput?: string;
  /** Default `input`. */
  readonly targetInput?: string;
  readonly condition?: EdgeCondition;
  /** Default `all_success`. */
  readonly triggerRule?: TriggerRule;
}

export interface WorkflowVariable {
  readonly name: string;
  readonly type: "string" | "number" | "boolean" | "object" | "array";
  readonly required?: boolean;
  readonly defaultValue?: unknown;
  readonly sensitive?: boolean;
}

/** What starts a workflow, or for `channel-write` one of its nodes. */
export interface WorkflowTrigger {
  readonly id: string;
  readonly type: string;
  readonly config?: Readonly<Record<string, unknown>>;
  /** Default true. */
  readonly enabled?: boolean;
  readonly nodeId?: string;
  readonly eventType?: string;
}

export type ChannelAccess =
  "public" | "private" | { readonly readers?: readonly string[]; readonly writers?: readonly string[] };

/** A typed state channel (OpenWOP, channels and reducers). */
export interface Channel {
  readonly reducer: string;
  readonly schema?: Readonly<Record<string, unknown>>;
  readonly schemaVersion?: number;
  readonly compatibleWith?: readonly number[];
  readonly default?: unknown;
  readonly maxSize?: number;
  readonly ttlMs?: number;
  readonly access?: ChannelAccess;
  readonly sensitive?: boolean;
}

export interface WorkflowDefinition {
  readonly id: string;
  readonly name: string;
  readonly version: string;
  readonly description?: string;
  readonly status?: "active" | "inactive" | "draft" | "archived";
  readonly nodes: readonly WorkflowNode[];
  readonly edges: readonly WorkflowEdge[];
  readonly triggers: readonly WorkflowTrigger[];
  readonly variables: readonly WorkflowVariable[];
  readonly channels?: Readonly<Record<string, Channel>>;
  readonly configurableSchema?: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly settings: {
    /** Longest run, milliseconds; 0 or absent is no limit. */
    readonly timeout?: number;
    readonly maxRetries?: number;
    readonly maxLoopbackIterations?: number;
    readonly [key: string]: unknown;
  };
}
