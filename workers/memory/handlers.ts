/** One short function per RPC of aios.memory.MemoryService (aiOS, memory). What each may answer is in the proto. */
import { codecOf, type MessageType } from "../../contracts/codec.ts";
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";
import * as memory from "../../contracts/gen/aios/memory.ts";
import type { CallContext, Handlers } from "../../contracts/handlers.ts";
import { header } from "../../contracts/headers.ts";
import { isTraceparent, traceIdOf } from "../../runtime/trace.ts";
import type { Archive, Hit } from "./archive.ts";
import { requireCount, requireFinite, requireJson, requireRange, requireText } from "./check.ts";
import { collectionNames } from "./index/document.ts";
import type { Host } from "./host.ts";
import { compare, inOrder, learn, tasksOf, used } from "./learn.ts";
import { knowledgeId, type LongTerm } from "./longterm.ts";
import type { Operational } from "./operational.ts";
import { recall, type RecallParts } from "./recall.ts";
import type { Working, Writer } from "./working.ts";

export interface Parts {
  readonly operational: Operational;
  readonly working: Working;
  readonly longTerm: LongTerm;
  readonly archive: Archive;
  readonly host: Host;
  readonly logger: RecallParts["logger"];
  readonly clock: { now(): number };
}

/** Results when the caller does not say how many (aiOS, checklist). */
const DEFAULT_RESULTS = 10;
const MAX_RESULTS = 1_000;

const json = <T>(type: MessageType<T>, message: T) => codecOf(type).toJson(message);
const goalOf = (state: unknown): memory.GoalRecord => codecOf(memory.GoalRecord).fromJson(state);

export function memoryHandlers(parts: Parts): Handlers<typeof memory.MemoryServiceDefinition> {
  const { operational, working, longTerm, archive, host, clock } = parts;

  async function search(request: memory.SemanticSearchRequest, collections: readonly string[], context: CallContext) {
    requireRange("min_relevance", request.min_relevance, -1, 1);
    const limit = request.n_results <= 0 ? DEFAULT_RESULTS : Math.min(MAX_RESULTS, request.n_results);
    const { tenant, deadline, signal } = context;
    const hits = await archive.search(tenant, {
      query: request.query,
      collections,
      limit,
      minRelevance: request.min_relevance,
      deadline,
      signal,
    });
    return { results: hits.map(resultOf) };
  }

  async function activeGoals(tenant: string): Promise<memory.GoalRecord[]> {
    const goals = inOrder(await working.hot.group(tenant, "goal", "active"), goalOf, (goal) => goal.created_at);
    return goals.sort((a, b) => a.priority - b.priority || compare(a.created_at, b.created_at));
  }

  /** A goal that has just been completed teaches its procedure; when that fails now, the next sweep does it. */
  async function learnFrom(writer: Writer, state: unknown): Promise<void> {
    if (goalOf(state).status !== "completed") return;
    await learn(working, longTerm, writer, state).catch((error: unknown) =>
      parts.logger.warn("a goal will be learned from later", { error }),
    );
  }

  return {
    async pushEvent(event, { tenant }) {
      await operational.push(tenant, event);
      return {};
    },

    async getRecentEvents(request, { tenant }) {
      return { events: await operational.recent(tenant, request) };
    },

    async updateMetric(update, { tenant }) {
      await operational.update(tenant, update);
      return {};
    },

    async getMetric({ key }, { tenant }) {
      return operational.metric(tenant, key);
    },

    async getSystemSnapshot(_request, { tenant }) {
      return host.snapshot(tenant);
    },

    async storeGoal(goal, context) {
      requireText("id", goal.id);
      requireJson("metadata_json", goal.metadata_json);
      const writer = writerOf(context);
      const state = json(memory.GoalRecord, goal);
      await working.put(writer, "goal", goal.id, state);
      await learnFrom(writer, state);
      return {};
    },

    /** Sets status and result, nothing else; an unknown goal is no error (aiOS, memory, working tier). */
    async updateGoal({ id, status, result }, context) {
      requireText("id", id);
      const writer = writerOf(context);
      const changed = await working.change(writer, "goal", id, (state) =>
        json(memory.GoalRecord, { ...goalOf(state), status, result }),
      );
      if (changed?.state !== undefined) await learnFrom(writer, changed.state);
      return {};
    },

    async getActiveGoals(_request, { tenant }) {
      return { goals: await activeGoals(tenant) };
    },

    async storeTask(task, context) {
      requireText("id", task.id);
      requireText("goal_id", task.goal_id);
      requireJson("input_json", task.input_json);
      requireJson("output_json", task.output_json);
      requireCount("duration_ms", task.duration_ms);
      const [goal, known] = await working.hot.peek(context.tenant, [
        ["goal", task.goal_id],
        ["task", task.id],
      ]);
      if (goal?.state === undefined) {
        throw new BeamlineError("not_found", `goal_id: there is no goal ${task.goal_id}`, { field: "goal_id" });
      }
      await working.put(writerOf(context), "task", task.id, json(memory.TaskRecord, task), [known]);
      return {};
    },

    async getTasksForGoal({ goal_id }, { tenant }) {
      return { tasks: await tasksOf(working, tenant, goal_id) };
    },

    async storeToolCall(call, context) {
      requireText("id", call.id);
      requireJson("input_json", call.input_json);
      requireJson("output_json", call.output_json);
      requireCount("duration_ms", call.duration_ms);
      const writer = writerOf(context);
      await working.insert(
        { ...writer, task: writer.task || call.task_id },
        "tool_call",
        call.id,
        json(memory.ToolCallRecord, call),
      );
      return {};
    },

    async storeDecision(decision, context) {
      requireText("id", decision.id);
      requireJson("options_json", decision.options_json);
      await archive.put(
        await working.insert(writerOf(context), "decision", decision.id, json(memory.Decision, decision)),
      );
      return {};
    },

    async storePattern(pattern, context) {
      requireText("id", pattern.id);
      requireRange("success_rate", pattern.success_rate, 0, 1);
      requireCount("uses", pattern.uses);
      await working.put(writerOf(context), "pattern", pattern.id, json(memory.Pattern, pattern));
      return {};
    },

    /** The stored trigger contains the query, not the reverse; nothing in the query is a wildcard. */
    async findPattern({ trigger, min_success_rate }, { tenant }) {
      requireFinite("min_success_rate", min_success_rate);
      const held = await working.hot.pattern(tenant, trigger, min_success_rate);
      return held === undefined
        ? { found: false }
        : { found: true, pattern: codecOf(memory.Pattern).fromJson(held.state) };
    },

    async updatePatternStats({ id, success }, context) {
      requireText("id", id);
      await working.change(writerOf(context), "pattern", id, (state) => {
        const pattern = codecOf(memory.Pattern).fromJson(state);
        return json(memory.Pattern, used(pattern, success, BigInt(Math.floor(clock.now() / 1000))));
      });
      return {};
    },

    async storeAgentState(state, context) {
      requireText("agent_name", state.agent_name);
      requireJson("state_json", state.state_json);
      await working.put(writerOf(context), "agent_state", state.agent_name, json(memory.AgentState, state));
      return {};
    },

    async getAgentState({ agent_name }, { tenant }) {
      const [held] = await working.hot.peek(tenant, [["agent_state", agent_name]]);
      if (held?.state === undefined)
        throw new BeamlineError("not_found", `agent_name: there is no state of ${agent_name}`, { field: "agent_name" });
      return codecOf(memory.AgentState).fromJson(held.state);
    },

    async semanticSearch(request, context) {
      const wanted =
        request.collections.length === 0
          ? collectionNames
          : collectionNames.filter((name) => request.collections.includes(name));
      return search(request, wanted, context);
    },

    async storeProcedure(procedure, context) {
      requireText("id", procedure.id);
      requireJson("steps_json", procedure.steps_json);
      requireCount("success_count", procedure.success_count);
      requireCount("fail_count", procedure.fail_count);
      requireCount("avg_duration_ms", procedure.avg_duration_ms);
      await longTerm.put(writerOf(context), "procedure", procedure.id, json(memory.Procedure, procedure));
      return {};
    },

    async storeIncident(incident, context) {
      requireText("id", incident.id);
      requireJson("symptoms_json", incident.symptoms_json);
      await longTerm.put(writerOf(context), "incident", incident.id, json(memory.Incident, incident));
      return {};
    },

    async storeConfigChange(change, context) {
      requireText("id", change.id);
      await longTerm.insert(writerOf(context), "config_change", change.id, json(memory.ConfigChange, change));
      return {};
    },

    /** The collections of the request mean nothing here. */
    async searchKnowledge(request, context) {
      return search(request, ["knowledge"], context);
    },

    async addKnowledge(entry, context) {
      if (entry.title === "" && entry.content === "")
        throw invalidArgument("content", "must not be empty when the title is");
      const id = knowledgeId(entry.title, entry.source);
      await longTerm.put(writerOf(context), "knowledge", id, json(memory.KnowledgeEntry, entry));
      return {};
    },

    async assembleContext(request, { tenant, deadline, signal }) {
      return recall({ operational, archive, activeGoals, logger: parts.logger, now: () => clock.now() }, request, {
        tenant,
        deadline,
        signal,
      });
    },
  };
}

/** Who writes, as the call says. The task comes in the header `task_id`, else it is what the call belongs to. */
function writerOf(context: CallContext): Writer {
  const { tenant, principal, headers, traceparent, signal } = context;
  return {
    tenant,
    by: principal,
    task: headers["task_id"] ?? headers[header.correlationId] ?? "",
    trace: isTraceparent(traceparent) ? traceIdOf(traceparent) : "",
    key: headers[header.idempotencyKey] ?? "",
    signal,
  };
}

function resultOf({ content, metadata, relevance, collection, id }: Hit) {
  return { content, metadata_json: Buffer.from(JSON.stringify(metadata)), relevance, collection, id };
}
