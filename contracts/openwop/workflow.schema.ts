/** JSON Schema (2020-12) of workflow documents: the shape of OpenWOP's workflow definitions, said in our own words. */

const text = { type: "string", minLength: 1 } as const;
const object = { type: "object" } as const;

const port = {
  oneOf: [
    {
      type: "object",
      required: ["type", "value"],
      properties: { type: { const: "static" }, value: {} },
      additionalProperties: false,
    },
    {
      type: "object",
      required: ["type", "expression"],
      properties: { type: { const: "expression" }, expression: text },
      additionalProperties: false,
    },
    {
      type: "object",
      required: ["type", "nodeId", "outputKey"],
      properties: { type: { const: "connection" }, nodeId: text, outputKey: text, optional: { type: "boolean" } },
      additionalProperties: false,
    },
    {
      type: "object",
      required: ["type", "variableName"],
      properties: { type: { const: "variable" }, variableName: text, optional: { type: "boolean" } },
      additionalProperties: false,
    },
  ],
} as const;

const node = {
  type: "object",
  required: ["id", "typeId", "name", "position", "config", "inputs"],
  additionalProperties: false,
  properties: {
    id: { type: "string", minLength: 1, maxLength: 128 },
    typeId: { type: "string", minLength: 1, pattern: "^[a-z][a-zA-Z0-9._-]*$" },
    name: text,
    position: { type: "object", required: ["x", "y"], properties: { x: { type: "number" }, y: { type: "number" } } },
    config: object,
    inputs: { type: "object", additionalProperties: port },
    credentialsRef: { type: "string" },
    settings: object,
    outputRole: { enum: ["primary", "secondary"] },
    disabled: { type: "boolean" },
    notes: { type: "string" },
    groupId: { type: "string" },
    agent: {
      type: "object",
      required: ["agentId"],
      properties: { agentId: { type: "string", minLength: 3, maxLength: 256 } },
    },
    envelopeContract: object,
    artifactType: { type: "string" },
    cardType: { type: "string" },
    outputSensitivity: { type: "object", additionalProperties: { type: "boolean" } },
  },
} as const;

const edge = {
  type: "object",
  required: ["id", "sourceNodeId", "targetNodeId"],
  additionalProperties: false,
  properties: {
    id: text,
    sourceNodeId: text,
    targetNodeId: text,
    sourceOutput: { type: "string" },
    targetInput: { type: "string" },
    label: { type: "string" },
    triggerRule: { enum: ["all_success", "any_success", "all_complete", "none_failed", "any_failed"] },
    condition: {
      type: "object",
      additionalProperties: false,
      properties: {
        type: { enum: ["expression", "equals", "notEquals", "contains", "regex"] },
        left: { type: "string" },
        right: {},
        expression: { type: "string" },
      },
    },
  },
} as const;

const accessList = {
  type: "array",
  maxItems: 256,
  uniqueItems: true,
  items: { type: "string", minLength: 1, maxLength: 256 },
} as const;

const channel = {
  type: "object",
  required: ["reducer"],
  additionalProperties: false,
  properties: {
    reducer: {
      type: "string",
      pattern: "^(replace|append|merge|counter|votes|feedback|message|vendor\\.[a-z][a-z0-9_-]*\\.[a-z][a-z0-9_-]*)$",
    },
    schema: object,
    default: {},
    maxSize: { type: "integer", minimum: 1 },
    ttlMs: { type: "integer", minimum: 1, maximum: 31_536_000_000 },
    options: object,
    access: {
      oneOf: [
        { enum: ["public", "private"] },
        { type: "object", additionalProperties: false, properties: { readers: accessList, writers: accessList } },
      ],
    },
    schemaVersion: { type: "integer", minimum: 1 },
    compatibleWith: { type: "array", uniqueItems: true, items: { type: "integer", minimum: 1 } },
    sensitive: { type: "boolean" },
  },
} as const;

const trigger = {
  type: "object",
  required: ["id", "type"],
  additionalProperties: false,
  properties: {
    id: text,
    type: {
      enum: [
        "manual",
        "schedule",
        "webhook",
        "event",
        "artifact",
        "canvas",
        "envelope",
        "command",
        "chat-message",
        "channel-write",
      ],
    },
    name: { type: "string" },
    description: { type: "string" },
    config: object,
    enabled: { type: "boolean" },
    nodeId: { type: "string" },
    eventType: { type: "string" },
  },
} as const;

const variable = {
  type: "object",
  required: ["name", "type"],
  additionalProperties: false,
  properties: {
    name: text,
    type: { enum: ["string", "number", "boolean", "object", "array"] },
    description: { type: "string" },
    required: { type: "boolean" },
    defaultValue: {},
    sensitive: { type: "boolean" },
  },
} as const;

export const workflowSchema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  required: ["id", "name", "version", "nodes", "edges", "triggers", "variables", "metadata", "settings"],
  additionalProperties: false,
  properties: {
    id: { type: "string", maxLength: 128, pattern: "^[a-z][a-z0-9_-]*$" },
    name: { type: "string", minLength: 1, maxLength: 256 },
    description: { type: "string" },
    version: text,
    type: { type: "string" },
    isActive: { type: "boolean" },
    status: { enum: ["active", "inactive", "draft", "archived"] },
    tenantId: { type: "string" },
    scopeId: { type: "string" },
    slug: { type: "string", pattern: "^[a-z0-9][a-z0-9_-]*$" },
    nodes: { type: "array", minItems: 1, maxItems: 2_000, items: node },
    edges: { type: "array", maxItems: 10_000, items: edge },
    triggers: { type: "array", items: trigger },
    variables: { type: "array", items: variable },
    groups: { type: "array", items: object },
    channels: { type: "object", additionalProperties: channel },
    configurableSchema: object,
    defaults: object,
    acceptsInheritedArtifacts: { type: "array", items: object },
    createdAt: { type: "string" },
    updatedAt: { type: "string" },
    metadata: {
      type: "object",
      properties: {
        tags: { type: "array", maxItems: 100, items: { type: "string", minLength: 1, maxLength: 256 } },
        complianceClass: { enum: ["public", "pii", "phi", "pci", "regulated"] },
        complianceConfig: {
          type: "object",
          properties: { maskingMode: { enum: ["mask", "omit", "hash", "passthrough"] } },
        },
      },
    },
    settings: {
      type: "object",
      properties: {
        timeout: { type: "integer", minimum: 0 },
        maxRetries: { type: "integer", minimum: 0, maximum: 100 },
        logLevel: { enum: ["debug", "info", "warn", "error"] },
        maxLoopbackIterations: { type: "integer", minimum: 1 },
      },
    },
  },
} as const;
