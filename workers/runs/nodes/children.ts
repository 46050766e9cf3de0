/** Node types that start other runs: sub-workflows, and the supervisor's loop of decisions and dispatches. */
import { createHash } from "node:crypto";
import { at, isObject, objectOr, textOr, type Json } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import { effectRuns, TERMINAL_STATUS } from "../../../contracts/openwop/log.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { completed, failed, type NodeCall, type NodeResult, type NodeType } from "../engine/nodetype.ts";
import { needsText } from "./basic.ts";

/** What these nodes need of the rest. */
export interface Children {
  /** Starts a child; doing so again changes nothing. Throws `workflow_not_found`. */
  start(
    parent: NodeCall,
    child: {
      readonly runId: string;
      readonly workflowId: string;
      readonly inputs: Json;
      readonly propagateCancellation: boolean;
    },
  ): Promise<void>;
  /** Whether a workflow can be started. */
  exists(tenant: string, workflowId: string): Promise<boolean>;
  /** The child's state, undefined before it has one. */
  look(tenant: string, runId: string): Promise<RunState | undefined>;
  /** Has the caller's run woken when a child that is not its own ends; the child's state. Doing so again changes nothing. */
  watch(caller: NodeCall, runId: string): Promise<RunState>;
}

/**
 * The child of this turn of the node. A replay looks at the children its source had, or the run that one is a branch of, and starts none.
 */
async function childOf(children: Children, call: NodeCall, part: number): Promise<string> {
  const { record, children: known } = call.state;
  const { tenant } = record.owner;
  const parents = record.fork?.mode === "replay" ? effectRuns(record.fork) : [record.runId];
  const ids = parents.map((parentId) => childRunId(call, part, parentId));
  const [own = ""] = ids;
  if (ids.length === 1) return own;
  for (const id of ids) if (known.has(id) || (await children.look(tenant, id)) !== undefined) return id;
  return own;
}

/** A child that has ended; undefined while it goes on. Its parent hears of its end, a replay that looks at it asks to be told. */
async function endOf(children: Children, call: NodeCall, child: RunState): Promise<RunState | undefined> {
  const { runId, parent } = child.record;
  const own = parent?.runId === call.state.record.runId;
  const now = own || TERMINAL_STATUS.has(child.status) ? child : await children.watch(call, runId);
  return TERMINAL_STATUS.has(now.status) ? now : undefined;
}

/** The same child for the same turn of the same node, however often it is started. */
function childRunId(call: NodeCall, part: number, parentId: string): string {
  const { record } = call.state;
  const digest = createHash("sha256")
    .update([record.owner.tenant, parentId, call.node.id, call.own.iterations, part].join("\0"))
    .digest("hex");
  return `${digest.slice(0, 8)}-${digest.slice(8, 12)}-8${digest.slice(13, 16)}-a${digest.slice(17, 20)}-${digest.slice(20, 32)}`;
}

export function childNodes(children: Children): readonly NodeType[] {
  const subWorkflow: NodeType = {
    typeId: "core.subWorkflow",
    mode: "parked",
    async run(call) {
      const { config, state, node } = call;
      const workflowId = textOr(config["workflowId"], "");
      const runId = await childOf(children, call, 0);
      const { tenant } = state.record.owner;
      if (!state.children.has(runId)) {
        if (!(await children.exists(tenant, workflowId)))
          return failed("unknown_child_workflow", `there is no workflow ${workflowId}`, {
            retryable: false,
            details: { workflowId },
          });
        return { kind: "waits", until: call.now, events: [dispatched(node.id, runId, workflowId)] };
      }
      const child = await children.look(tenant, runId);
      if (child === undefined) {
        const inputs = { ...mapped(objectOr(config["inputMapping"]), state.variables), ...call.inputs };
        await children.start(call, {
          runId,
          workflowId,
          inputs,
          propagateCancellation: config["propagateCancellation"] !== false,
        });
        if (config["waitForCompletion"] === false) return completed({ childRunId: runId, childStatus: "running" });
        return { kind: "waits" };
      }
      // It was running when it was started: what has become of it since is not asked, so that a replay says the same.
      if (config["waitForCompletion"] === false) return completed({ childRunId: runId, childStatus: "running" });
      const ended = await endOf(children, call, child);
      if (ended === undefined) return { kind: "waits" };
      return childEnded(call, ended, config["onChildFailure"] === "absorb", objectOr(config["outputMapping"]));
    },
    check: (node, field) => needsText(node.config, field, "workflowId"),
  };

  /** Runs what the newest decision names, one child after the other. */
  const dispatch: NodeType = {
    typeId: "core.dispatch",
    mode: "parked",
    async run(call) {
      const { config, state, node } = call;
      const decision = state.decision?.value ?? { kind: "terminate" };
      const cause = state.decision?.eventId;
      if (decision["kind"] === "terminate")
        return completed({ continue: false, ...(decision["reason"] !== undefined && { reason: decision["reason"] }) });
      if (decision["kind"] === "ask-user") {
        const data = { questions: [{ id: "answer", question: textOr(decision["prompt"], "How should this go on?") }] };
        return { kind: "asks", question: { kind: "clarification", data } };
      }
      const workers = Array.isArray(decision["nextWorkerIds"]) ? decision["nextWorkerIds"].map(String) : [];
      if (workers.length > 1 && config["fanOutPolicy"] === "reject")
        return failed("fan_out_unsupported", "the dispatch takes one worker at a time", { retryable: false });
      const { tenant } = state.record.owner;
      const outcomes: Json[] = [];
      const harvested: Record<string, unknown> = {};
      const events: NewEvent[] = [];
      for (const [part, workflowId] of workers.entries()) {
        const runId = await childOf(children, call, part);
        const known = state.children.get(runId);
        if (known === undefined) {
          if (!(await children.exists(tenant, workflowId)))
            return failed("unknown_child_workflow", `there is no workflow ${workflowId}`, {
              retryable: false,
              details: { workflowId },
            });
          return {
            kind: "waits",
            until: call.now,
            events: [...events, dispatched(node.id, runId, workflowId, undefined, cause)],
          };
        }
        const seen = await children.look(tenant, runId);
        if (seen === undefined) {
          const mapping = objectOr(objectOr(config["perWorkerInputMappings"])[workflowId] ?? config["inputMapping"]);
          await children.start(call, {
            runId,
            workflowId,
            inputs: mapped(mapping, state.variables),
            propagateCancellation: true,
          });
          return { kind: "waits", events };
        }
        const child = await endOf(children, call, seen);
        if (child === undefined) return { kind: "waits", events };
        if (known.status !== child.status) events.push(dispatched(node.id, runId, workflowId, child.status, cause));
        outcomes.push({ childRunId: runId, workflowId, childStatus: child.status });
        const mapping = objectOr(objectOr(config["perWorkerOutputMappings"])[workflowId] ?? config["outputMapping"]);
        if (child.status === "completed") Object.assign(harvested, mapped(mapping, child.variables));
        if (child.status === "failed")
          return {
            ...failed(
              child.error?.code ?? "child_failed",
              `worker ${workflowId} failed: ${child.error?.message ?? ""}`,
              { retryable: false, details: { childRunId: runId } },
            ),
            events,
          };
      }
      const last = outcomes.at(-1);
      return {
        kind: "completed",
        outputs: {
          continue: true,
          workers: outcomes,
          ...(last !== undefined && { childRunId: last["childRunId"], childStatus: last["childStatus"] }),
        },
        variables: harvested,
        events,
      };
    },
    resume: (_call, value) => completed({ continue: true, answer: value }),
    check({ config }, field) {
      const wrong = (name: string, what: string): BeamlineError =>
        new BeamlineError("validation_error", `${field}.config.${name} ${what}`, { field: `${field}.config.${name}` });
      const { askUserRouting, workerDispatchModel, fanOutPolicy, iterationCap } = config;
      if (![undefined, "auto", "clarification"].includes(askUserRouting as string | undefined))
        throw wrong("askUserRouting", "must be auto or clarification: this host has no conversations");
      if (![undefined, "child-run"].includes(workerDispatchModel as string | undefined))
        throw wrong("workerDispatchModel", "must be child-run");
      if (![undefined, "sequential", "reject"].includes(fanOutPolicy as string | undefined))
        throw wrong("fanOutPolicy", "must be sequential or reject");
      if (iterationCap !== undefined && !(Number.isInteger(iterationCap) && Number(iterationCap) >= 1))
        throw wrong("iterationCap", "must be a whole number of at least 1");
    },
  };
  return [subWorkflow, dispatch, supervisor];
}

/** Decides what comes next: the decisions of its configuration in order, or the one its input `decision` brings. */
const supervisor: NodeType = {
  typeId: "core.orchestrator.supervisor",
  mode: "instant",
  run(call) {
    const { config, own, node, state } = call;
    const agentId = node.agent?.agentId ?? `beamline.supervisor.${node.id}`;
    const held = config["mockPendingDecision"];
    const threshold =
      typeof state.record.configurable["escalationThreshold"] === "number"
        ? state.record.configurable["escalationThreshold"]
        : 0.7;
    const observed = config["mockConfidence"];
    if (typeof observed === "number" && observed < threshold) {
      return {
        kind: "asks",
        question: {
          kind: "low-confidence",
          data: { agentId, threshold, observed, ...(held !== undefined && { decision: held }) },
        },
      };
    }
    const listed = Array.isArray(config["decisions"] ?? config["mockDecisions"])
      ? ((config["decisions"] ?? config["mockDecisions"]) as unknown[])
      : [];
    const brought = call.inputs["decision"];
    const decision = isObject(brought)
      ? brought
      : objectOr(listed[own.iterations - 1] ?? { kind: "terminate", reason: "goal-reached" });
    return decided(agentId, node.id, decision);
  },
  resume({ config, node }, value) {
    const agentId = node.agent?.agentId ?? `beamline.supervisor.${node.id}`;
    const ratified = at(value, "decision") ?? config["mockPendingDecision"];
    return decided(agentId, node.id, objectOr(ratified ?? { kind: "terminate" }));
  },
};

function decided(agentId: string, nodeId: string, decision: Json): NodeResult {
  const event = { type: "runOrchestrator.decided", nodeId, payload: { agentId, decision } };
  return { kind: "completed", outputs: { decision }, events: [event] };
}

function dispatched(
  nodeId: string,
  childRunId: string,
  childWorkflowId: string,
  childStatus?: string,
  cause?: string,
): NewEvent {
  const payload = { childRunId, childWorkflowId, ...(childStatus !== undefined && { childStatus }) };
  return { type: "node.dispatched", nodeId, payload, ...(cause !== undefined && { causationId: cause }) };
}

function childEnded(call: NodeCall, child: RunState, absorb: boolean, outputMapping: Json): NodeResult {
  const { runId } = child.record;
  const outputs = { childRunId: runId, childStatus: child.status };
  if (child.status === "completed")
    return { kind: "completed", outputs, variables: mapped(outputMapping, { ...child.variables, ...child.channels }) };
  if (absorb) return completed({ ...outputs, ...(child.error !== undefined && { error: child.error }) });
  const what = child.status === "failed" ? (child.error?.message ?? "it failed") : "it was cancelled";
  return failed(child.error?.code ?? "child_cancelled", `sub-workflow ${child.record.workflowId}: ${what}`, {
    retryable: false,
    details: { ...outputs, nodeId: call.node.id },
  });
}

/** `{to: from}` over variables; what is undefined there is left alone. */
function mapped(mapping: Json, variables: Json): Json {
  const values: Record<string, unknown> = {};
  for (const [to, from] of Object.entries(mapping)) {
    const value = at(variables, String(from));
    if (value !== undefined) values[to] = value;
  }
  return values;
}
