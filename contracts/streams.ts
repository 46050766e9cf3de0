/**
 * Streams and buckets as data: what is kept, on which subjects, for how long. bus/streams creates and updates them at start.
 * No stream ever captures a subject used with request/reply: its acknowledgement would reach the caller before the worker's answer.
 */

const DAY_MS = 24 * 60 * 60 * 1000;
const MIB = 1024 * 1024;

export interface StreamSpec {
  readonly name: string;
  readonly subjects: readonly string[];
  /** What the stream is for; becomes its description. */
  readonly purpose: string;
  /** `limits` keeps until age or size; `workqueue` until acknowledged by its one consumer per subject. */
  readonly retention: "limits" | "workqueue";
  /** Oldest message kept, milliseconds; 0 is for ever. */
  readonly maxAgeMs: number;
  /** Total size kept, bytes; -1 is unlimited. */
  readonly maxBytes: number;
  /** Window in which a repeated Nats-Msg-Id is dropped, milliseconds. */
  readonly duplicateWindowMs: number;
  /**
   * Delayed messages (`Nats-Schedule`) and per-message TTL. Timers and later tries need `sched.<name in lower case>.>` among `subjects`, later
   * tries `retry.<name in lower case>.>` as well (bus/schedule, bus/retry).
   */
  readonly schedules: boolean;
  /** Atomic batches. */
  readonly atomic: boolean;
  /** Subjects it took in earlier versions and another stream takes now: let go of at start. */
  readonly moved?: readonly string[];
  /** The server refuses to remove messages, one by one or all, for everybody. Cannot be taken back. Not together with `schedules`. */
  readonly appendOnly?: true;
}

export interface BucketSpec {
  readonly name: string;
  readonly purpose: string;
  /** Values kept per key. */
  readonly history: number;
  /** Age after which a value goes, milliseconds; 0 is never. */
  readonly ttlMs: number;
}

export interface ObjectSpec {
  readonly name: string;
  readonly purpose: string;
  /** Age after which an object goes, milliseconds; 0 is never. */
  readonly maxAgeMs: number;
}

const base = {
  retention: "limits",
  maxAgeMs: 7 * DAY_MS,
  maxBytes: -1,
  duplicateWindowMs: 2 * 60 * 60 * 1000,
  schedules: true,
  atomic: true,
} as const;

/** Every stream of the system. */
export const streams = {
  // -- routing --------------------------------------------------------------------------------------------------------
  /** What was answered to idempotency keys, many to a message. Read when Redis has lost them; lives as long as they do. */
  routingKeys: {
    ...base,
    name: "ROUTING_KEYS",
    purpose: "answers to idempotency keys of routing requests",
    subjects: ["log.routing.keys"],
    maxAgeMs: 60 * 60 * 1000,
    duplicateWindowMs: 2 * 60 * 1000,
    schedules: false,
  },
  /** Assignments promised by a reply and not published yet: timers, which fire only when the router that made them died. */
  routingPromises: {
    ...base,
    name: "ROUTING_PROMISES",
    purpose: "assignments promised and not published yet",
    subjects: ["sched.routing_promises.>", "retry.routing_promises.>"],
    retention: "workqueue",
  },
  // -- end of routing -------------------------------------------------------------------------------------------------
  /** Assignments to execution workers, and their results (BeamLine, execution contract). */
  exec: {
    ...base,
    name: "EXEC",
    purpose: "execution assignments and results",
    subjects: ["caf.exec.assign.v1", "caf.exec.result.v1", "retry.exec.>", "sched.exec.>"],
    moved: ["caf.exec.assign.v1.ack"],
  },
  /** Their acknowledgements, in a stream of their own: no result waits until one is on the disk. */
  execAcks: {
    ...base,
    name: "EXEC_ACKS",
    purpose: "acknowledgements of execution assignments",
    subjects: ["caf.exec.assign.v1.ack", "retry.exec_acks.>", "sched.exec_acks.>"],
  },
  /** What was metered, for billing; the truth behind usage totals. */
  usage: {
    ...base,
    name: "USAGE",
    purpose: "metered usage",
    subjects: ["beamline.usage.v1.metered", "retry.usage.probe"],
    maxAgeMs: 400 * DAY_MS,
  },
  alerts: { ...base, name: "ALERTS", purpose: "alerts", subjects: ["beamline.alert.v1.*"], maxAgeMs: 30 * DAY_MS },
  /** Everything that could not be handled, with reason and full context; redriven from here. */
  deadLetters: {
    ...base,
    name: "DLQ",
    purpose: "dead letters with reason and context",
    subjects: [
      "dlq.>",
      "beamline.router.v1.decide.dlq",
      "caf.exec.dlq.v1",
      "caf.deadletter.v1",
      "caf.exec.result.v1.dlq",
      "caf.exec.assign.v1.ack.dlq",
    ],
    maxAgeMs: 30 * DAY_MS,
    maxBytes: 1024 * MIB,
  },
  /** What agents remember (aiOS, memory): the truth behind hot state and the vector index. Kept for ever; critical events with it. */
  memory: {
    ...base,
    name: "MEMORY",
    purpose: "what agents remember, one subject per thing, and critical events",
    subjects: ["log.memory.rec.>", "log.memory.critical.>"],
    maxAgeMs: 0,
  },
  /** Operational events that are not critical, written behind their acknowledgement. */
  memoryRecent: {
    ...base,
    name: "MEMORY_RECENT",
    purpose: "operational events, in batches",
    subjects: ["log.memory.recent.>"],
    maxBytes: 4096 * MIB,
  },
  // -- tools ----------------------------------------------------------------------------------------------------------
  /** What tools did and how to undo it: a subject per execution, `log.tools.exec.<tenant>.<task>.<execution>`. */
  toolExecutions: {
    ...base,
    name: "TOOL_EXECUTIONS",
    purpose: "executions of tools with their inverses",
    subjects: ["log.tools.exec.>"],
    maxAgeMs: 30 * DAY_MS,
  },
  /** The audit ledger: one hash chain per tenant, `log.tools.audit.<tenant>`. Kept for ever. */
  toolAudit: {
    ...base,
    name: "TOOL_AUDIT",
    purpose: "audit ledger of tools",
    subjects: ["log.tools.audit.*"],
    maxAgeMs: 0,
  },
  // -- end of tools ---------------------------------------------------------------------------------------------------
  // -- runs -----------------------------------------------------------------------------------------------------------
  /** The log of every run, `log.runs.<tenant>.<run>.wake|step`; what ends in `wake` is work for the engine too. Nudges and timers beside it. */
  runs: {
    ...base,
    name: "RUNS",
    purpose: "event logs of runs and the work they cause",
    subjects: ["log.runs.>", "log.run_nudge.>", "retry.runs.>", "sched.runs.>"],
    maxAgeMs: 90 * DAY_MS,
  },
  /** Webhook deliveries under way: `log.run_hooks.<tenant>.<webhook>`. */
  runHooks: {
    ...base,
    name: "RUN_HOOKS",
    purpose: "webhook deliveries of runs",
    subjects: ["log.run_hooks.>", "retry.run_hooks.>", "sched.run_hooks.>"],
    retention: "workqueue",
    maxAgeMs: 7 * DAY_MS,
  },
  /** Who did what: one hash chain, kept for ever. */
  runAudit: {
    ...base,
    name: "RUN_AUDIT",
    purpose: "audit log of runs",
    subjects: ["log.run_audit.>"],
    maxAgeMs: 0,
    schedules: false,
    appendOnly: true,
  },
  // -- end of runs ----------------------------------------------------------------------------------------------------
  // -- inference ------------------------------------------------------------------------------------------------------
  /** Calls of the aiOS API gateway, the truth behind its budgets: `log.inference.calls.<tenant>`. */
  inference: {
    ...base,
    name: "INFERENCE",
    purpose: "calls of the API gateway and what they cost",
    subjects: ["log.inference.calls.*"],
    maxAgeMs: 400 * DAY_MS,
  },
  // -- end of inference -----------------------------------------------------------------------------------------------
} as const satisfies Record<string, StreamSpec>;

/** Every key-value bucket. */
export const buckets = {
  /** Routing policies: key `<tenant>.<policy>` (each as bus/keys writes it), value the stored policy document. */
  policies: { name: "policies", purpose: "routing policies", history: 10, ttlMs: 0 },
  /** Routing extensions: key `<tenant>.<extension>`, tenant `*` for everybody; value a registry record. */
  extensions: { name: "extensions", purpose: "routing extensions", history: 5, ttlMs: 0 },
  /** Blocks registered over the REST gateway: key `<tenant>.<type>.<version>`. */
  blocks: { name: "blocks", purpose: "registry of blocks", history: 5, ttlMs: 0 },
  /** Projects, indexes, tasks, chats and subscriptions of the control surface: key `<tenant>.<kind>.<id>`. */
  control: { name: "control", purpose: "records of the control surface", history: 1, ttlMs: 7 * DAY_MS },
  // -- tools ----------------------------------------------------------------------------------------------------------
  /** Tools served elsewhere: key `<tenant>.<tool>`. */
  toolRegistry: { name: "tool_registry", purpose: "registered tools", history: 5, ttlMs: 0 },
  /** Capabilities granted for a time: key `<tenant>.<agent>`. */
  toolGrants: { name: "tool_grants", purpose: "granted capabilities", history: 10, ttlMs: 0 },
  /** Approvals, each of one exact call: key `<tenant>.<hash of the call>`. */
  toolApprovals: { name: "tool_approvals", purpose: "approvals of tool calls", history: 5, ttlMs: 30 * DAY_MS },
  /** Who holds an idempotency key: key `<tenant>.<hash of the key>`. */
  toolClaims: { name: "tool_claims", purpose: "idempotency keys of tool calls", history: 1, ttlMs: 7 * DAY_MS },
  // -- end of tools ---------------------------------------------------------------------------------------------------
  /**
   * Metrics of operational memory, written behind hot state: key `<tenant>.<metric>`. Each value has its arrival, and the latest
   * to arrive counts, whoever logs last: eight are kept, for up to eight workers that set the same metric.
   */
  memoryMetrics: { name: "memory_metrics", purpose: "metrics of operational memory", history: 8, ttlMs: 0 },
  // -- execution ------------------------------------------------------------------------------------------------------
  /** Jobs whose effect must not happen twice, from the moment they started: key `<tenant>.<assignment>`. Outlives every redelivery. */
  execStarted: { name: "exec_started", purpose: "started jobs with effects", history: 1, ttlMs: 8 * DAY_MS },
  /** Assignments someone wants stopped: key `<tenant>.<assignment>`. Watched by the execution workers. */
  execCancelled: { name: "exec_cancelled", purpose: "cancelled assignments", history: 1, ttlMs: DAY_MS },
  /** What results say about providers: key `<tenant>.<provider>`, value a `ProviderHealth` of contracts/execution. */
  providerHealth: { name: "provider_health", purpose: "health of providers", history: 1, ttlMs: 0 },
  // -- end of execution -----------------------------------------------------------------------------------------------
  // -- runs -----------------------------------------------------------------------------------------------------------
  /** Every version of every workflow, by its digest. */
  workflowVersions: { name: "workflow_versions", purpose: "workflow definitions by digest", history: 1, ttlMs: 0 },
  /** Which version is current: key `<tenant>.<workflow>`, tenant `*` for everybody. */
  workflows: { name: "workflows", purpose: "current version of each workflow", history: 10, ttlMs: 0 },
  /** Calls by idempotency key: key `<tenant>.<operation>.<digest of the key>`. */
  runIdempotency: {
    name: "run_idempotency",
    purpose: "idempotency records of run operations",
    history: 1,
    ttlMs: 2 * DAY_MS,
  },
  /** Effects of nodes: key `<tenant>.<logical invocation id>`. */
  runInvocations: { name: "run_invocations", purpose: "invocation log of runs", history: 1, ttlMs: 90 * DAY_MS },
  /** Webhook subscriptions: key `<tenant>.<webhook>`. */
  runWebhooks: { name: "run_webhooks", purpose: "webhook subscriptions", history: 1, ttlMs: 0 },
  /** The active run of a scope: key `<tenant>.<scope>`. */
  runScopes: { name: "run_scopes", purpose: "active run of each scope", history: 1, ttlMs: 0 },
  /** What this deployment made for itself: token secrets, the audit signing key. */
  runSecrets: { name: "run_secrets", purpose: "generated secrets of runs", history: 1, ttlMs: 0 },
  // -- end of runs ----------------------------------------------------------------------------------------------------
} as const satisfies Record<string, BucketSpec>;

/** Object stores, for what is too large for a message. */
export const objects = {
  /** Payloads beyond the message limit, referred to by name (claim check). Outlives every message that can refer to it. */
  payloads: { name: "payloads", purpose: "payloads beyond the message limit", maxAgeMs: 60 * DAY_MS },
  /** Memories beyond the message limit; kept as long as the log that refers to them. */
  memories: { name: "memories", purpose: "memories beyond the message limit", maxAgeMs: 0 },
  /** Ordinary events beyond it. Outlives the log that refers to them. */
  memoriesRecent: { name: "memories_recent", purpose: "events beyond the message limit", maxAgeMs: 8 * DAY_MS },
  // -- tools ----------------------------------------------------------------------------------------------------------
  /** What files held before a tool changed them. Outlives the executions that refer to it. */
  toolBackups: { name: "tool_backups", purpose: "backups made before tools run", maxAgeMs: 31 * DAY_MS },
  // -- end of tools ---------------------------------------------------------------------------------------------------
  // -- runs -----------------------------------------------------------------------------------------------------------
  /** Files runs made: name `<tenant>/<run>/<artifact>`. Outlives the log that tells of them. */
  runArtifacts: { name: "run_artifacts", purpose: "artifacts of runs", maxAgeMs: 91 * DAY_MS },
  // -- end of runs ----------------------------------------------------------------------------------------------------
} as const satisfies Record<string, ObjectSpec>;
