/** The events a node's result becomes. Pure. */
import { isDeeper, MAX_NESTING, sameJson, type Json } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import type { ErrorData, NodeState, RunState } from "../../../contracts/openwop/state.ts";
import { checkWrite } from "./channels.ts";
import type { NodeResult, Question } from "./nodetype.ts";

export interface ResultRules {
  readonly maxRetries: number;
  /** First pause between attempts, milliseconds; doubles each time, a minute at most. */
  readonly backoffMs: number;
  readonly now: number;
  /** A fresh id. */
  id(): string;
}

/** Its outputs and their names are around what it came to. */
const MAX_RESULT_NESTING = MAX_NESTING + 2;
const LONGEST_BACKOFF_MS = 60_000;

export function resultEvents(state: RunState, own: NodeState, result: NodeResult, rules: ResultRules): NewEvent[] {
  const { nodeId } = own;
  const events: NewEvent[] = [...(result.events ?? [])];
  const durationMs = Math.max(0, rules.now - Date.parse(own.startedAt));
  switch (result.kind) {
    case "waits":
      return events;
    case "asks":
      return [...events, ...asked(state, own, result.question, () => rules.id())];
    case "failed":
      return [...events, ...failedEvents(own, result.error, rules)];
    case "completed": {
      const { outputs = {}, variables = {}, writes = [] } = result;
      if (isDeeper([outputs, variables, writes], MAX_RESULT_NESTING)) {
        const message = `what node ${nodeId} came to is nested deeper than ${MAX_RESULT_NESTING} levels`;
        return [...events, ...failedEvents(own, { code: "validation_error", message, retryable: false }, rules)];
      }
      const after = new Map<string, unknown>();
      const writtenAt = new Date(rules.now).toISOString();
      for (const write of result.writes ?? []) {
        const { channel, value } = write;
        const declared = state.record.channels[channel];
        if (declared !== undefined) {
          const before = after.has(channel) ? after.get(channel) : state.channels[channel];
          const outcome = checkWrite(declared, own, before, write, writtenAt);
          if ("refused" in outcome) return [...(result.events ?? []), ...failedEvents(own, outcome.refused, rules)];
          after.set(channel, outcome.after);
        }
        const schemaVersion = write.schemaVersion ?? declared?.schemaVersion;
        const payload = {
          channel,
          value,
          reducer: declared?.reducer ?? "append",
          writtenAt,
          nodeId,
          ...(schemaVersion !== undefined && { schemaVersion }),
        };
        events.push({ type: "channel.written", nodeId, payload });
      }
      for (const [name, next] of Object.entries(result.variables ?? {})) {
        if (next === undefined || name === "" || sameJson(state.variables[name], next)) continue;
        const previous = state.variables[name];
        events.push({
          type: "variable.changed",
          nodeId,
          payload: { name, ...(previous !== undefined && { previous }), next, nodeId },
        });
      }
      events.push({
        type: "node.completed",
        nodeId,
        payload: { nodeId, outputs: withoutUndefined(result.outputs ?? {}), durationMs },
      });
      return events;
    }
  }
}

function failedEvents(own: NodeState, error: ErrorData, { maxRetries, backoffMs }: ResultRules): NewEvent[] {
  const { nodeId, attempt } = own;
  if (attempt < maxRetries && error.retryable !== false) {
    const delayMs = Math.min(LONGEST_BACKOFF_MS, backoffMs * 2 ** attempt);
    return [{ type: "node.retried", nodeId, payload: { nodeId, attempt: attempt + 1, delayMs, lastError: error } }];
  }
  return [{ type: "node.failed", nodeId, payload: { nodeId, error, attempts: attempt + 1 } }];
}

/** A question: `node.suspended`, `interrupt.requested`, and the event of its own kind, each caused by the one before. */
function asked(state: RunState, own: NodeState, question: Question, id: () => string): NewEvent[] {
  const { nodeId } = own;
  const interruptId = id();
  const { kind, data, resumeSchema, timeoutMs } = question;
  const key = `${state.record.runId}:${nodeId}:${own.executions}`;
  const [suspended, requested] = [id(), id()];
  const base = {
    kind,
    key,
    data,
    ...(resumeSchema !== undefined && { resumeSchema }),
    ...(timeoutMs !== undefined && { timeoutMs }),
  };
  const why = kind.startsWith("conversation.")
    ? { reason: "conversation-input" }
    : kind === "low-confidence"
      ? { reason: "low-confidence", agentId: data["agentId"], threshold: data["threshold"], observed: data["observed"] }
      : {};
  const events: NewEvent[] = [
    { type: "node.suspended", nodeId, eventId: suspended, payload: { nodeId, interruptId, kind, key, ...why } },
    { type: "interrupt.requested", nodeId, eventId: requested, causationId: suspended, payload: base },
  ];
  if (kind === "approval") {
    const { artifactId, artifactType, actions, title, approversList, requiredApprovals } = data;
    const payload = {
      nodeId,
      interruptId,
      artifactId,
      artifactType,
      actions,
      title,
      ...(approversList !== undefined && { approversList }),
      requiredApprovals,
    };
    events.push({ type: "approval.requested", nodeId, causationId: requested, payload });
  }
  if (kind === "clarification")
    events.push({
      type: "clarification.requested",
      nodeId,
      causationId: requested,
      payload: { nodeId, interruptId, questions: data["questions"] },
    });
  return events;
}

function withoutUndefined(outputs: Json): Json {
  return Object.fromEntries(Object.entries(outputs).filter(([, value]) => value !== undefined));
}
