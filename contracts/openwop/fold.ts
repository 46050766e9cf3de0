/**
 * The fold: a run's state from its events, the only way it comes about. Event types it does not know change nothing (OpenWOP, version
 * axes: readers fold best-effort and never throw).
 */
import { isObject, numberOr, objectOr, textOr, type Json } from "./json.ts";
import type { LogEntry, RunEvent, RunRecord } from "./log.ts";
import { reduce } from "./reducers.ts";
import type { ErrorData, Interrupt, NodeState, RunState } from "./state.ts";

/** The state before the first event. */
export function initialState(record: RunRecord): RunState {
  const defaults = record.variables
    .filter(({ defaultValue }) => defaultValue !== undefined)
    .map(({ name, defaultValue }) => [name, defaultValue] as const);
  const channels = Object.entries(record.channels).filter(([, channel]) => channel.default !== undefined);
  return {
    record,
    status: "pending",
    sequence: -1,
    lastEventId: "",
    lastAt: "",
    startedAt: "",
    nodes: new Map(),
    interrupts: new Map(),
    variables: { ...Object.fromEntries(defaults), ...record.inputs },
    channels: Object.fromEntries(channels.map(([name, channel]) => [name, channel.default])),
    children: new Map(),
    watchers: new Set(),
    fires: new Map(),
    pins: {},
    executions: 0,
    decisions: 0,
    usage: undefined,
  };
}

/** Folds one append. The first one makes the state. Throws when it is not a run's first and there is no state yet. */
export function foldEntry(state: RunState | undefined, entry: LogEntry): RunState {
  const folded = state ?? (entry.run === undefined ? undefined : initialState(entry.run));
  if (folded === undefined) throw new Error("a log that does not begin with its run");
  if (entry.control !== undefined && folded.status === "running") folded.pausing = entry.control;
  if (entry.watcher !== undefined) folded.watchers.add(entry.watcher);
  if (entry.span !== undefined) folded.span ??= entry.span;
  for (const event of entry.events) apply(folded, event, entry.real?.[event.sequence]);
  return folded;
}

/** Folds one event; `real` is its payload before masking. */
export function apply(state: RunState, event: RunEvent, real?: unknown): void {
  if (event.sequence <= state.sequence) return;
  state.sequence = event.sequence;
  state.lastEventId = event.eventId;
  state.lastAt = event.timestamp;
  const payload = objectOr(real ?? event.payload);
  const change = changes[event.type];
  change?.(state, payload, event);
}

type Change = (state: RunState, payload: Json, event: RunEvent) => void;

function nodeOf(state: RunState, event: RunEvent): NodeState {
  const nodeId = event.nodeId ?? "";
  let node = state.nodes.get(nodeId);
  if (node === undefined) {
    node = {
      nodeId,
      typeId: "",
      status: "started",
      attempt: 0,
      executions: 0,
      iterations: 0,
      startedAt: "",
      startedSeq: -1,
      settledSeq: -1,
    };
    state.nodes.set(nodeId, node);
  }
  return node;
}

function settle(state: RunState, event: RunEvent, status: NodeState["status"]): NodeState {
  const node = nodeOf(state, event);
  node.status = status;
  node.settledSeq = event.sequence;
  delete node.interruptId;
  delete node.resumeValue;
  delete node.retryAt;
  return node;
}

function end(state: RunState, event: RunEvent, status: "completed" | "failed" | "cancelled"): void {
  state.status = status;
  state.completedAt = event.timestamp;
  delete state.pausing;
  for (const interrupt of state.interrupts.values()) if (interrupt.status === "pending") interrupt.status = "gone";
}

/** A start that a write caused takes care of it, and of what was written to that channel before. */
function fired(state: RunState, nodeId: string, cause: string | undefined): void {
  const fires = cause === undefined ? undefined : state.fires.get(nodeId);
  const write = fires?.find(({ eventId }) => eventId === cause);
  if (fires === undefined || write === undefined) return;
  const left = fires.filter(({ channel, sequence }) => channel !== write.channel || sequence > write.sequence);
  if (left.length === 0) state.fires.delete(nodeId);
  else state.fires.set(nodeId, left);
}

function pendingOf(state: RunState, event: RunEvent, payload: Json): Interrupt | undefined {
  const id = textOr(payload["interruptId"], state.nodes.get(event.nodeId ?? "")?.interruptId ?? "");
  return state.interrupts.get(id);
}

const changes: Readonly<Record<string, Change>> = {
  "run.started"(state, _payload, event) {
    state.status = "running";
    state.startedAt = event.timestamp;
  },
  "run.completed"(state, payload, event) {
    end(state, event, "completed");
    if (isObject(payload["outputs"])) state.outputs = payload["outputs"];
  },
  "run.failed"(state, payload, event) {
    end(state, event, "failed");
    state.error = errorOf(payload["error"]);
  },
  "run.cancelled"(state, payload, event) {
    end(state, event, "cancelled");
    if (typeof payload["reason"] === "string") state.cancelReason = payload["reason"];
  },
  "run.paused"(state, payload, event) {
    state.status = "paused";
    state.pausedAt = event.timestamp;
    if (typeof payload["reason"] === "string") state.pauseReason = payload["reason"];
    delete state.pausing;
  },
  "run.resumed"(state, _payload, event) {
    state.status = "running";
    delete state.pausedAt;
    delete state.pauseReason;
    // What was cut off begins again, as a fresh attempt.
    for (const node of state.nodes.values()) {
      if (node.status !== "started") continue;
      node.status = "retrying";
      node.attempt++;
      node.retryAt = event.timestamp;
    }
  },
  "node.started"(state, payload, event) {
    const node = nodeOf(state, event);
    node.status = "started";
    node.typeId = textOr(payload["typeId"], node.typeId);
    node.attempt = numberOr(payload["attempt"], 0);
    node.executions++;
    if (node.attempt === 0) node.iterations++;
    node.startedAt = event.timestamp;
    node.startedSeq = event.sequence;
    delete node.outputs;
    delete node.error;
    delete node.retryAt;
    fired(state, node.nodeId, event.causationId);
    state.executions++;
    if (isObject(payload["agent"])) state.agent = payload["agent"];
  },
  "node.completed"(state, payload, event) {
    const node = settle(state, event, "completed");
    node.outputs = objectOr(payload["outputs"]);
    const { childRunId, childStatus } = node.outputs;
    const child = typeof childRunId === "string" ? state.children.get(childRunId) : undefined;
    if (child !== undefined && typeof childStatus === "string") child.status = childStatus;
  },
  "node.failed"(state, payload, event) {
    settle(state, event, "failed").error = errorOf(payload["error"]);
  },
  "node.skipped"(state, _payload, event) {
    settle(state, event, "skipped");
  },
  "node.cancelled"(state, _payload, event) {
    settle(state, event, "cancelled");
  },
  "node.retried"(state, payload, event) {
    const node = nodeOf(state, event);
    node.status = "retrying";
    node.attempt = numberOr(payload["attempt"], node.attempt + 1);
    node.retryAt = new Date(Date.parse(event.timestamp) + numberOr(payload["delayMs"], 0)).toISOString();
  },
  "node.suspended"(state, payload, event) {
    const node = nodeOf(state, event);
    node.status = "suspended";
    node.interruptId = textOr(payload["interruptId"], "");
  },
  "node.resumed"(state, payload, event) {
    const node = nodeOf(state, event);
    node.status = "resumed";
    node.resumeValue = payload["resumeValue"];
  },
  "interrupt.requested"(state, payload, event) {
    const node = nodeOf(state, event);
    const interruptId = node.interruptId ?? event.eventId;
    state.interrupts.set(interruptId, {
      interruptId,
      nodeId: node.nodeId,
      kind: textOr(payload["kind"], "custom"),
      key: textOr(payload["key"], interruptId),
      data: objectOr(payload["data"]),
      ...(isObject(payload["resumeSchema"]) && { resumeSchema: payload["resumeSchema"] }),
      ...(typeof payload["timeoutMs"] === "number" && { timeoutMs: payload["timeoutMs"] }),
      requestedAt: later(event.timestamp, state.record.fork?.at),
      status: "pending",
      votes: [],
    });
  },
  "interrupt.resolved"(state, payload, event) {
    const interrupt = pendingOf(state, event, payload);
    if (interrupt === undefined) return;
    interrupt.status = "resolved";
    interrupt.resumeValue = payload["resumeValue"];
  },
  "approval.received"(state, payload, event) {
    const interrupt = pendingOf(state, event, payload);
    if (interrupt === undefined) return;
    const vote = { voter: textOr(payload["decidedBy"], ""), action: textOr(payload["action"], "") };
    interrupt.votes = [...interrupt.votes.filter(({ voter }) => voter !== vote.voter), vote];
  },
  "node.dispatched"(state, payload, event) {
    const runId = textOr(payload["childRunId"], "");
    const known = state.children.get(runId);
    const status = textOr(payload["childStatus"], known?.status ?? "pending");
    state.children.set(runId, {
      runId,
      nodeId: event.nodeId ?? "",
      workflowId: textOr(payload["childWorkflowId"], ""),
      status,
    });
  },
  "channel.written"(state, payload, event) {
    const name = textOr(payload["channel"], "");
    const channel = state.record.channels[name] ?? { reducer: textOr(payload["reducer"], "append") };
    state.channels[name] = reduce(
      channel,
      state.channels[name],
      payload["value"],
      textOr(payload["writtenAt"], event.timestamp),
    );
    const write = { eventId: event.eventId, sequence: event.sequence, channel: name, at: Date.parse(event.timestamp) };
    for (const { nodeId, channel: watched } of state.record.triggers ?? []) {
      if (watched === name && nodeId !== event.nodeId)
        state.fires.set(nodeId, [...(state.fires.get(nodeId) ?? []), write]);
    }
  },
  "variable.changed"(state, payload) {
    state.variables[textOr(payload["name"], "")] = payload["next"];
  },
  "version.pinned"(state, payload) {
    state.pins[textOr(payload["changeId"], "")] = numberOr(payload["version"], 0);
  },
  "runOrchestrator.decided"(state, payload, event) {
    state.decision = {
      value: objectOr(payload["decision"]),
      eventId: event.eventId,
      nodeId: event.nodeId ?? "",
      sequence: event.sequence,
    };
    state.decisions++;
    state.orchestrator ??= { agentId: payload["agentId"] };
  },
  "provider.usage"(state, payload, event) {
    const before = state.usage ?? { usd: 0, input: 0, output: 0, provider: "", model: "", durationMs: 0 };
    const since = Date.parse(state.nodes.get(event.nodeId ?? "")?.startedAt ?? "");
    state.usage = {
      durationMs: before.durationMs + Math.max(0, (Date.parse(event.timestamp) || 0) - since || 0),
      usd: before.usd + numberOr(payload["costEstimateUsd"], 0),
      input: before.input + numberOr(payload["inputTokens"], 0),
      output: before.output + numberOr(payload["outputTokens"], 0),
      provider: textOr(payload["provider"], before.provider),
      model: textOr(payload["model"], before.model),
    };
  },
};

/** A fork has the time its source had to answer, from its own beginning on. */
function later(at: string, other: string | undefined): string {
  return other !== undefined && other > at ? other : at;
}

function errorOf(value: unknown): ErrorData {
  const error = objectOr(value);
  return {
    code: textOr(error["code"], "internal_error"),
    message: textOr(error["message"], "the node failed"),
    ...(isObject(error["details"]) && { details: error["details"] }),
    ...(typeof error["retryable"] === "boolean" && { retryable: error["retryable"] }),
  };
}
