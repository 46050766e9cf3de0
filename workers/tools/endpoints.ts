/**
 * What the tools worker answers beside its RPCs, as JSON on `beamline.tools.v1.*`: for the orchestrator (capabilities), for the operator and the
 * command line (approvals, ledger, whole tasks, MCP). Outside programs may not publish there.
 */
import { parseJson, type Caller } from "../../bus/call.ts";
import { tokenOf } from "../../bus/keys.ts";
import { header } from "../../contracts/headers.ts";
import type { Endpoint } from "../../bus/endpoint.ts";
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";
import type { CallContext } from "../../contracts/handlers.ts";
import type { Approvals } from "./approval.ts";
import type { Executions } from "./executions.ts";
import type { Grants } from "./grants.ts";
import type { Ledger } from "./audit/ledger.ts";
import type { McpServers } from "./external/mcp.ts";
import { lacking, parseHeld } from "./capabilities.ts";
import { builtInTools, type Registry } from "./registry.ts";
import type { AskHost, Rollbacks, Undone } from "./rollback.ts";
import { compile, list, num, object, str, bool, int, texts } from "./schema.ts";
import type { Json, Schema } from "./tool.ts";
import { ToolFailure } from "./failure.ts";

export interface EndpointPorts {
  readonly grants: Grants;
  readonly approvals: Approvals;
  readonly ledger: Ledger;
  readonly rollbacks: Rollbacks;
  readonly executions: Executions;
  readonly registry: Registry;
  readonly mcp: McpServers;
  /** Name of this host. */
  readonly node: string;
}

const PREFIX = "beamline.tools.v1";
const TIMEOUT_MS = 60_000;
const UNDO_TIMEOUT_MS = 300_000;

const agent_id = str("", { minLength: 1, maxLength: 256 });

/** Name of the endpoint that undoes what was done on a host. */
const rollbackAt = (node: string): string => `node.${tokenOf(node)}.rollback`;

/** Asks another host over the bus. */
export function askHost(caller: Caller): AskHost {
  return async (node, execution_id, reason, { tenant, principal, deadline }, patient) => {
    const headers = {
      [header.tenantId]: tenant,
      [header.principal]: principal,
      [header.deadline]: String(deadline),
    };
    const options = { timeoutMs: Math.max(1, deadline - Date.now()), worker: `tools on ${node}`, headers };
    return (await caller.request(
      `${PREFIX}.${rollbackAt(node)}`,
      { execution_id, reason, patient },
      options,
    )) as Undone;
  };
}

export function toolEndpoints(ports: EndpointPorts): Endpoint[] {
  const { grants, approvals, ledger, rollbacks, executions, registry, mcp, node } = ports;
  return [
    /** A refusal is `granted: false` with `denial_reason`. */
    endpoint<{
      agent_id: string;
      capabilities: string[];
      reason: string;
      duration_hours: number;
      granted_by: string;
      own_request: boolean;
    }>(
      "capabilities.grant",
      object({
        agent_id,
        "own_request?": bool("The agent asked for it itself: nothing that critical tools need.", { default: false }),
        capabilities: list(str(), "", { minItems: 1 }),
        "reason?": str("", { default: "" }),
        "duration_hours?": num("", { default: 0 }),
        "granted_by?": str("", { default: "" }),
      }),
      async (request, { tenant }) => {
        const { agent_id: agent, capabilities, reason, duration_hours: hours, granted_by: by } = request;
        try {
          const critical = request.own_request ? capabilities.filter(isCritical) : [];
          if (critical.length > 0)
            throw new ToolFailure(`an agent cannot ask for what critical tools need: ${critical.join(", ")}`);
          const { expiresAt } = await grants.grant(tenant, { agent, capabilities, reason, hours, by });
          return {
            granted: true,
            granted_capabilities: capabilities,
            expires_at: new Date(expiresAt).toISOString(),
            denial_reason: "",
          };
        } catch (thrown) {
          if (thrown instanceof ToolFailure)
            return { granted: false, granted_capabilities: [], expires_at: "", denial_reason: thrown.message };
          throw thrown;
        }
      },
    ),
    /** All grants only when `revoke_all` says so (aiOS orchestrator, CapabilityRevocation). */
    endpoint<{ agent_id: string; capabilities: string[]; revoke_all: boolean }>(
      "capabilities.revoke",
      object({
        agent_id,
        "capabilities?": list(str(), "", { default: [] }),
        "revoke_all?": bool("", { default: false }),
      }),
      async ({ agent_id, capabilities, revoke_all }, { tenant }) => ({
        revoked: (await grants.revoke(tenant, agent_id, revoke_all ? undefined : capabilities)).count,
      }),
    ),
    endpoint<{ agent_id: string; capabilities: string[]; paths: string[] }>(
      "capabilities.check",
      object({ agent_id, capabilities: list(str()), "paths?": list(str(), "", { default: [] }) }),
      async ({ agent_id, capabilities, paths }, { tenant }) => {
        const { missing, known } = await grants.check(tenant, agent_id, capabilities, async () => paths);
        return { missing, known };
      },
    ),
    endpoint<{ agent_id: string }>("capabilities.list", object({ agent_id }), async ({ agent_id }, { tenant }) => ({
      grants: (await grants.list(tenant, agent_id)).map((grant) => ({ ...grant })),
    })),
    endpoint("approvals.list", object(), async (_request, { tenant }) => ({
      approvals: (await approvals.list(tenant)).map((each) => ({ ...each })),
    })),
    endpoint<{ approval_id: string; approve: boolean; by: string; note: string }>(
      "approvals.decide",
      object({ approval_id: str(), approve: bool(), by: str("", { minLength: 1 }), "note?": str("", { default: "" }) }),
      async ({ approval_id, approve, by, note }, { tenant }) => ({
        ...(await approvals.decide(tenant, approval_id, approve, by, note)),
      }),
    ),
    endpoint<{ agent_id?: string; tool_name?: string; since?: string; until?: string; limit: number }>(
      "audit.query",
      object({
        "agent_id?": str(),
        "tool_name?": str(),
        "since?": str(),
        "until?": str(),
        "limit?": int("", { default: 50, minimum: 1, maximum: 1_000 }),
      }),
      async (query, { tenant }) => {
        const { since = "", until = "" } = query;
        for (const [field, given] of Object.entries({ since, until }))
          if (given !== "" && Number.isNaN(Date.parse(given))) throw invalidArgument(field, `is not a time: ${given}`);
        return { rows: (await ledger.query(tenant, query)).map((row) => ({ ...row })) };
      },
    ),
    endpoint("audit.verify", object(), async (_request, { tenant }) => ({ ...(await ledger.verify(tenant)) })),
    /** Pages of rows, oldest first; `next` is where to go on, absent at the end. */
    endpoint<{ from: number; limit: number }>(
      "audit.rows",
      object({
        "from?": int("Stream sequence.", { default: 1, minimum: 1 }),
        "limit?": int("", { default: 500, minimum: 1, maximum: 2_000 }),
      }),
      async ({ from, limit }, { tenant }) => ({ ...(await ledger.page(tenant, from, limit)) }),
    ),
    endpoint<{ task_id: string; reason: string }>(
      "rollback_task",
      object({ task_id: str("", { minLength: 1 }), "reason?": str("", { default: "" }) }),
      async ({ task_id, reason }, context) => {
        const steps = await rollbacks.rollbackTask(task_id, reason, context);
        return { success: steps.every(({ success }) => success), steps: steps.map((step) => ({ ...step })) };
      },
      UNDO_TIMEOUT_MS,
    ),
    /** Files are undone where they are: workers of other hosts ask here. */
    endpoint<{ execution_id: string; reason: string; patient: boolean }>(
      rollbackAt(node),
      object({
        execution_id: str(),
        "reason?": str("", { default: "" }),
        "patient?": bool("Waits for the rate limit.", { default: false }),
      }),
      async ({ execution_id, reason, patient }, context) => ({
        ...(await rollbacks.rollback(execution_id, reason, context, patient)),
      }),
      UNDO_TIMEOUT_MS,
    ),
    endpoint<{ task_id: string }>("executions.list", object({ task_id: str() }), async ({ task_id }, { tenant }) => ({
      executions: (await executions.ofTask(tenant, task_id)).map(({ execution }) => ({
        execution_id: execution.execution_id,
        tool_name: execution.tool_name,
        agent_id: execution.agent_id,
        state: execution.state,
        success: execution.success ?? null,
        started_at: execution.started_at,
      })),
    })),
    endpoint<{ name: string; url: string; headers?: Record<string, string>; capabilities: string[] }>(
      "mcp.import",
      object({
        name: str(),
        url: str("", { minLength: 1 }),
        "headers?": texts(),
        "capabilities?": list(str(), "", { default: [] }),
      }),
      async ({ name, ...server }, { tenant, principal }) => ({
        ...(await mcp.import(registry, tenant, name, server, principal)),
      }),
    ),
  ];
}

const criticalNeeds = builtInTools()
  .filter(({ checkedRisk }) => checkedRisk === "critical")
  .flatMap(({ needs }) => needs);

/** Whether a capability as granted covers one that a tool of critical risk needs. */
function isCritical(text: string): boolean {
  const capability = parseHeld(text)?.capability;
  return capability !== undefined && criticalNeeds.some((need) => lacking([need], [{ capability }], []).length === 0);
}

/** @typeParam I the request, which has passed the schema */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
function endpoint<I>(
  name: string,
  schema: Schema,
  answer: (request: I, context: CallContext) => Promise<Json>,
  timeoutMs = TIMEOUT_MS,
): Endpoint {
  const subject = `${PREFIX}.${name}`;
  const check = compile(schema);
  return {
    kind: "request",
    subject,
    name: subject.replaceAll(/[^A-Za-z0-9_]/g, "-"),
    dialect: "aios",
    timeoutMs,
    async answer(text, context) {
      const request = text === "" ? {} : parseJson(text);
      const violations = check(request);
      const [first] = violations;
      if (first?.missing !== undefined) throw invalidArgument(first.missing, "is missing");
      if (first !== undefined) throw invalidArgument(first.at === "" ? "request" : first.at.slice(1), first.what);
      try {
        return JSON.stringify(await answer(request as I, context));
      } catch (thrown) {
        if (thrown instanceof ToolFailure) throw new BeamlineError("failed_precondition", thrown.message);
        throw thrown;
      }
    },
  };
}
