/** The snapshot of a run as clients read it (OpenWOP, RunSnapshot): a fold, shown. */
import { objectOr, type Json } from "./json.ts";
import { LOG_SCHEMA_VERSION } from "./log.ts";
import { maskMembers, scrub, sensitiveTexts } from "./mask.ts";
import type { Interrupt, RunState, RunStatus } from "./state.ts";
import { TERMINAL_STATUS } from "./log.ts";

const waiting: Readonly<Record<string, RunStatus>> = {
  approval: "waiting-approval",
  clarification: "waiting-input",
  "external-event": "waiting-external",
  custom: "waiting-input",
  "conversation.start": "waiting-approval",
  "conversation.exchange": "waiting-approval",
  "conversation.close": "waiting-approval",
  "low-confidence": "waiting-approval",
};

/** The status a question puts its run into. */
export function waitingStatus(kind: string): RunStatus {
  return waiting[kind] ?? "waiting-input";
}

/** The oldest open question, when a node waits with it. */
export function openInterrupt(state: RunState): Interrupt | undefined {
  for (const interrupt of state.interrupts.values()) {
    if (interrupt.status === "pending" && state.nodes.get(interrupt.nodeId)?.status === "suspended") return interrupt;
  }
  return undefined;
}

/** Nodes that are executing, wait for a retry, or were answered and go on. */
export function activeNodes(state: RunState): number {
  let active = 0;
  for (const { status } of state.nodes.values())
    if (status === "started" || status === "retrying" || status === "resumed") active++;
  return active;
}

/** Status as clients see it: a run waits when all it has left to do is wait. */
export function statusOf(state: RunState): RunStatus {
  if (state.status !== "running") return state.status;
  const open = openInterrupt(state);
  return open === undefined || activeNodes(state) > 0 ? "running" : waitingStatus(open.kind);
}

export function isTerminal(state: RunState): boolean {
  return TERMINAL_STATUS.has(state.status);
}

function hiddenVariables({ record }: RunState): ReadonlySet<string> {
  return new Set(record.variables.filter(({ sensitive }) => sensitive === true).map(({ name }) => name));
}

function hiddenChannels({ record }: RunState): ReadonlySet<string> {
  const hidden = Object.entries(record.channels).filter(([, channel]) => channel.sensitive === true);
  return new Set(hidden.map(([name]) => name));
}

/** Texts of sensitive variables, channels and output ports as they are now, which are shown nowhere. */
export function secretTexts(state: RunState): readonly string[] {
  const { record, variables, channels, nodes } = state;
  if (record.masking === "passthrough") return [];
  const ports = Object.entries(record.sensitivePorts ?? {}).flatMap(([nodeId, names]) =>
    sensitiveTexts(new Set(names), nodes.get(nodeId)?.outputs ?? {}),
  );
  return [
    ...sensitiveTexts(hiddenVariables(state), variables),
    ...sensitiveTexts(hiddenChannels(state), channels),
    ...ports,
  ];
}

/** A question as it may be shown (OpenWOP, InterruptPayload). What it asks may have been filled in with what is sensitive. */
export function questionOf(state: RunState, { kind, key, data, resumeSchema, timeoutMs }: Interrupt): Json {
  const asked = { kind, key, data, ...(resumeSchema !== undefined && { resumeSchema }) };
  return { ...objectOr(scrub(asked, secretTexts(state))), ...(timeoutMs !== undefined && { timeoutMs }) };
}

/** The snapshot. Sensitive variables and channels are masked. */
export function snapshotOf(state: RunState): Json {
  const { record } = state;
  const status = statusOf(state);
  const open = status.startsWith("waiting-") ? openInterrupt(state) : undefined;
  const secret = secretTexts(state);
  const channels = scrub(maskMembers(state.channels, hiddenChannels(state), record.masking), secret) as Json;
  const variables = scrub(maskMembers(state.variables, hiddenVariables(state), record.masking), secret) as Json;
  return {
    runId: record.runId,
    workflowId: record.workflowId,
    status,
    owner: record.owner,
    ...(open !== undefined && { currentNodeId: open.nodeId }),
    ...(state.startedAt !== "" && { startedAt: state.startedAt }),
    ...(state.completedAt !== undefined && { completedAt: state.completedAt }),
    ...(state.pausedAt !== undefined && { pausedAt: state.pausedAt }),
    nodeStates: scrub(nodeStates(state), secret),
    variables: { ...variables, ...channels },
    ...(Object.keys(record.channels).length > 0 && { channels }),
    ...(state.error !== undefined && { error: scrub(shownError(state), secret) }),
    engineVersion: String(record.engineVersion),
    eventLogSchemaVersion: LOG_SCHEMA_VERSION,
    workflowVersion: record.workflowVersion,
    tags: record.tags,
    metadata: record.metadata,
    configurable: record.configurable,
    ...(state.agent !== undefined && { agent: state.agent }),
    ...(state.orchestrator !== undefined && { runOrchestrator: state.orchestrator }),
    ...(record.parent !== undefined && { parentRunId: record.parent.runId, parentNodeId: record.parent.nodeId }),
    ...(state.children.size > 0 && {
      childRuns: [...state.children.values()].map(({ runId, status: of }) => ({ runId, status: of })),
    }),
    ...(record.fork !== undefined && { fork: record.fork }),
    ...(state.usage !== undefined && { metrics: { openwopCost: costOf(state.usage) } }),
  };
}

function costOf({ usd, input, output, provider, model, durationMs }: NonNullable<RunState["usage"]>): Json {
  return {
    usd,
    tokens: { input, output },
    ...(model !== "" && { model }),
    ...(provider !== "" && { provider }),
    duration_ms: durationMs,
  };
}

function shownError({ error }: RunState): Json {
  return {
    code: error?.code,
    message: error?.message,
    ...(error?.details !== undefined && { details: error.details }),
  };
}

function nodeStates(state: RunState): Json {
  return Object.fromEntries(
    [...state.nodes.values()].map(({ nodeId, status, attempt, executions, startedAt, error, retryAt }) => [
      nodeId,
      {
        status,
        attempt,
        executions,
        ...(startedAt !== "" && { startedAt }),
        ...(retryAt !== undefined && { retryAt }),
        ...(error !== undefined && { error }),
      },
    ]),
  );
}
