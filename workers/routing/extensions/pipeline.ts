/**
 * The extensions of a policy, in order: pre, validators, the selection itself (elsewhere), post (BeamLine, extensions pipeline).
 *
 * E1 What a pre extension answers is what the next one sees: `payload` replaces, `metadata` is merged into the context.
 * E2 An optional one that fails is recorded and passed over; a required one ends the request. A validator that fails or cannot be asked has said no,
 *    and its `on_fail` says what that means.
 * E3 One that is not registered is a mistake in the policy, whatever its mode; one that is disabled, or whose `when` does not match, is skipped.
 * E4 Between phases the deadline is looked at: the caller's, and the context's `deadline`.
 */
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Policy } from "../policies/compile.ts";
import type { Decision } from "../choice/decision.ts";
import { callExtension, type CallPorts, type ExtensionCall } from "./extensioncalls.ts";
import { noExtension } from "./extensions.nats.ts";
import { isObject } from "../policies/fields.ts";
import { payloadOf, type RoutingRequest } from "../intake/forms.ts";
import { compileWhen, numberOf } from "../policies/match.ts";
import { limits, type ExtensionEntry } from "../policies/policy.ts";
import type { ExecutedExtension, Extensions, OwnedExtension, Pipeline, PipelineCall } from "../ports.ts";

export interface PipelinePorts extends CallPorts {
  readonly extensions: Extensions;
}

type Phase = ExecutedExtension["type"];

/** What goes through the pipeline before a provider is selected. */
interface Passing {
  /** The message as extensions see it. */
  message: JsonObject;
  context: JsonObject;
  /** Whether an extension put another payload in. */
  replaced: boolean;
  readonly executed: ExecutedExtension[];
}

export function busPipeline(ports: PipelinePorts): Pipeline {
  return {
    async before(policy, request, call) {
      checkDepth(policy);
      const passing: Passing = {
        message: messageOf(request),
        context: { ...request.context },
        replaced: false,
        executed: [],
      };
      checkDeadline(passing.context, call, ports.now());
      for (const entry of policy.document.pre ?? []) await preprocess(policy, request, entry, passing, call, ports);
      checkDeadline(passing.context, call, ports.now());
      for (const entry of policy.document.validators ?? [])
        await validate(policy, request, entry, passing, call, ports);
      checkDeadline(passing.context, call, ports.now());
      const payload = passing.message["payload"];
      return {
        context: passing.context,
        executed: passing.executed,
        ...(passing.replaced && { payload: typeof payload === "string" ? payload : JSON.stringify(payload ?? {}) }),
      };
    },

    async after(policy, request, prepared, decision, call) {
      checkDeadline(prepared.context, call, ports.now());
      const executed = [...prepared.executed];
      let current = decision;
      const context = { ...prepared.context };
      for (const entry of policy.document.post ?? []) {
        const owned = find(policy, request, "post", entry, context, executed, ports);
        if (owned === undefined) continue;
        const asked = { ...current, metadata: { ...current.metadata } };
        try {
          const reply = await callExtension(owned, callOf(request, entry, asked, context, call), ports);
          if (isObject(reply["payload"])) current = amended(current, reply["payload"]);
          if (isObject(reply["metadata"])) Object.assign(context, reply["metadata"]);
          executed.push({ type: "post", id: entry.id, status: "ok" });
        } catch (thrown) {
          executed.push({ type: "post", id: entry.id, status: "error" });
          if (entry.mode !== "required") continue;
          const cause = BeamlineError.from(thrown);
          throw new BeamlineError("post_processor_failed", `post_processor_failed: ${cause.message}`, {
            details: { extension_id: entry.id, reason: cause.code },
          });
        }
      }
      return { ...current, metadata: { ...current.metadata, executed_extensions: JSON.stringify(executed) } };
    },
  };
}

/** E1, E2. */
async function preprocess(
  policy: Policy,
  request: RoutingRequest,
  entry: ExtensionEntry,
  passing: Passing,
  call: PipelineCall,
  ports: PipelinePorts,
): Promise<void> {
  const owned = find(policy, request, "pre", entry, passing.context, passing.executed, ports);
  if (owned === undefined) return;
  try {
    const reply = await callExtension(owned, callOf(request, entry, passing.message, passing.context, call), ports);
    const { payload, metadata } = reply;
    if (typeof payload === "string") passing.message = { ...passing.message, payload };
    else if (isObject(payload)) passing.message = payload;
    passing.replaced ||= typeof payload === "string" || isObject(payload);
    if (isObject(metadata)) passing.context = { ...passing.context, ...metadata };
    passing.executed.push({ type: "pre", id: entry.id, status: "ok" });
  } catch (thrown) {
    passing.executed.push({ type: "pre", id: entry.id, status: "error" });
    if (entry.mode === "required") throw thrown;
  }
}

async function validate(
  policy: Policy,
  request: RoutingRequest,
  entry: ExtensionEntry,
  passing: Passing,
  call: PipelineCall,
  ports: PipelinePorts,
): Promise<void> {
  const owned = find(policy, request, "validator", entry, passing.context, passing.executed, ports);
  if (owned === undefined) return;
  let reason = "";
  let details: unknown;
  try {
    const reply = await callExtension(owned, callOf(request, entry, passing.message, passing.context, call), ports);
    if (reply["status"] !== "reject" && reply["valid"] !== false) {
      passing.executed.push({ type: "validator", id: entry.id, status: "ok" });
      return;
    }
    reason = typeof reply["reason"] === "string" ? reply["reason"] : "rejected";
    details = reply["details"];
  } catch (thrown) {
    reason = BeamlineError.from(thrown).message;
  }
  const { on_fail = "block" } = entry;
  passing.executed.push({ type: "validator", id: entry.id, status: on_fail === "block" ? "error" : on_fail });
  if (on_fail !== "block") return;
  throw new BeamlineError("validator_blocked", `validator ${entry.id} blocked the request: ${reason}`, {
    details: { extension_id: entry.id, reason, ...(isObject(details) && { details }) },
  });
}

/** E3. Throws `extension_not_found`. */
function find(
  policy: Policy,
  { tenant }: RoutingRequest,
  type: Phase,
  entry: ExtensionEntry,
  context: Readonly<JsonObject>,
  executed: ExecutedExtension[],
  { extensions }: PipelinePorts,
): OwnedExtension | undefined {
  const owned = extensions.find(tenant, entry.id);
  if (owned === undefined || owned.extension.type !== type) throw noExtension(entry.id, tenant, type);
  if (owned.extension.enabled && conditionOf(policy, entry)({ tenant, context })) return owned;
  executed.push({ type, id: entry.id, status: "skipped" });
  return undefined;
}

const conditions = new WeakMap<ExtensionEntry, ReturnType<typeof compileWhen>>();

function conditionOf(_policy: Policy, entry: ExtensionEntry): ReturnType<typeof compileWhen> {
  let condition = conditions.get(entry);
  if (condition === undefined) conditions.set(entry, (condition = compileWhen(entry.when, "when")));
  return condition;
}

/** Policies are checked when they are stored; one that was stored by another hand is checked here. */
function checkDepth({ document: { pre = [], validators = [], post = [] } }: Policy): void {
  const lists = { pre, validators, post };
  const deep = Object.entries(lists).find(([, items]) => items.length > limits.extensionsPerList);
  const total = pre.length + validators.length + post.length;
  if (deep === undefined && total <= limits.extensions) return;
  throw new BeamlineError("invalid_request", `Pipeline is too deep: ${deep === undefined ? "in all" : deep[0]}`, {
    details: { total, max_total: limits.extensions, max_per_list: limits.extensionsPerList },
  });
}

/** E4. */
function checkDeadline(context: Readonly<JsonObject>, { deadline }: PipelineCall, now: number): void {
  const own = numberOf(context["deadline"]) ?? Number.POSITIVE_INFINITY;
  if (Math.min(own, deadline) > now) return;
  throw new BeamlineError("deadline_exceeded", "the deadline passed between two phases of the pipeline");
}

function callOf(
  { tenant, traceId }: RoutingRequest,
  entry: ExtensionEntry,
  payload: unknown,
  metadata: Readonly<JsonObject>,
  { deadline, traceparent }: PipelineCall,
): ExtensionCall {
  return { tenant, traceId, traceparent, deadline, payload, metadata, timeoutMs: entry.timeout_ms, retry: entry.retry };
}

/** The message of a request, whatever its form, as extensions see it. */
function messageOf(request: RoutingRequest): JsonObject {
  const { body, form, messageId, tenant, traceId, messageType } = request;
  const own = form === "seed" || form === "hybrid" ? (body["message"] as JsonObject) : form === "flat" ? body : {};
  const { payload: _payload, policy_id: _policy, context: _context, ...rest } = own;
  return {
    ...rest,
    message_id: messageId,
    tenant_id: tenant,
    ...(traceId !== "" && { trace_id: traceId }),
    message_type: messageType,
    payload: payloadOf(request) ?? "",
  };
}

/** A decision with what a post extension may change; what it says of a wrong type, or beyond what the contract can hold, is passed over. */
function amended(decision: Decision, payload: JsonObject): Decision {
  const { provider_id, expected_latency_ms, expected_cost, metadata } = payload;
  const figure = (value: unknown): value is number =>
    typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER;
  const labels = isObject(metadata)
    ? Object.fromEntries(
        Object.entries(metadata).map(([key, value]) => [
          key,
          typeof value === "string" ? value : JSON.stringify(value),
        ]),
      )
    : {};
  return {
    ...decision,
    ...(typeof provider_id === "string" && provider_id !== "" && { provider_id }),
    ...(figure(expected_latency_ms) && { expected_latency_ms: Math.round(expected_latency_ms) }),
    ...(figure(expected_cost) && { expected_cost }),
    metadata: { ...decision.metadata, ...labels },
  };
}
