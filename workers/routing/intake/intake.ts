/**
 * The router's subjects as they arrive: raw text in, raw text out (BeamLine, NATS request and reply forms). Deciding is the hot path: the
 * body is parsed once, the reply is mostly made of texts that are kept, and nothing is awaited unless state is shared.
 *
 * I1 Size is checked before parsing, then shape, version, tenant, and only then the policy: what is refused changed nothing.
 * I2 Every refusal is an error envelope with the ids of the request as far as they can be read.
 */
import type { Answer } from "../../../bus/endpoint.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { RouterDefinition } from "../../../contracts/gen/beamline/flow/v1/flow.ts";
import type { CallContext } from "../../../contracts/handlers.ts";
import { header, type Headers } from "../../../contracts/headers.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { sampledParent, withSpan, type Span } from "../../../runtime/trace.ts";
import { backpressureStatus, noStatus, overloaded } from "./backpressure.ts";
import type { Policy } from "../policies/compile.ts";
import { decide } from "../choice/decide.ts";
import { speak, type Spoken } from "../choice/decision.ts";
import { isObject } from "../policies/fields.ts";
import { idsOf, readRequest, type RoutingRequest } from "./forms.ts";
import type { Measures } from "../measures.ts";
import type { Assignments, DeadLetters, Decisions, Load, Pipeline, Policies, Promised } from "../ports.ts";
import { intakeCodes, malformed, missing, refuse, type IntakeCode } from "./refusal.ts";
import { inEnvelope, reply } from "./replies.ts";
import { decideShared, enter, leave, needsShared, type Outcome, type SharedPorts } from "../shared/shared.ts";

/** Largest decide message, bytes (BeamLine, limits). */
export const MAX_REQUEST_BYTES = 1_048_576;

export interface IntakePorts extends SharedPorts {
  readonly policies: Policies;
  readonly decisions: Decisions;
  readonly measures: Measures;
  readonly load: Load;
  /** An id for a request that brings none. */
  readonly newId: () => string;
  /** Milliseconds with a fraction, for durations. */
  readonly monotonic: () => number;
  /** Tenants that may route; all when undefined. */
  readonly tenants?: ReadonlySet<string> | undefined;
  readonly pipeline?: Pipeline | undefined;
  readonly assignments?: Assignments | undefined;
  readonly deadLetters?: DeadLetters | undefined;
}

/** Spans of sampled calls under way. */
const spans = new WeakMap<CallContext, Span>();

/** What answers each RPC of the Router; total, so that a missing one does not compile. */
export type RouterAnswers = { readonly [K in keyof (typeof RouterDefinition)["methods"]]: Answer };

export function routerAnswers(ports: IntakePorts): RouterAnswers {
  const answer: Answer = (text, context) => {
    const started = ports.monotonic();
    let body: unknown;
    const fail = (thrown: unknown): never => {
      throw failure(thrown, text, body, context, ports);
    };
    try {
      body = parse(text);
      const request = validated(text, bodyOf(body), context.headers);
      if (ports.load.refusing) throw overloaded();
      const policy = policyFor(request, ports);
      if (request.dryRun) return reply(identified(request, ports), decide(policy, request, ports, { dry: true }));
      if (policy.pipeline || request.pushAssignment) return piped(policy, request, context, ports, started).catch(fail);
      if (needsShared(policy, request, ports)) {
        const made = decideShared(policy, request, request, ports);
        return made instanceof Promise
          ? made.then((one) => conclude(policy, request, one, context, ports, started)).catch(fail)
          : conclude(policy, request, made, context, ports, started);
      }
      return finish(policy, request, decide(policy, request, ports), context, ports, started);
    } catch (thrown) {
      return fail(thrown);
    }
  };
  return {
    /** A sampled call has a span of its own; the others do not even look for one. */
    decide: (text, context) =>
      sampledParent(context.traceparent)
        ? withSpan("beamline.router.decide", context.traceparent, undefined, (_onward, span) => {
            if (span !== undefined) spans.set(context, span);
            return answer(text, context);
          })
        : answer(text, context),

    getDecision: async (text, context) => {
      let body: unknown;
      try {
        body = text === "" ? {} : parse(text);
        return await findDecision(bodyOf(body), context, ports.decisions);
      } catch (thrown) {
        const { requestId, traceId } = idsOf(body, context.headers);
        throw inEnvelope(BeamlineError.from(thrown), requestId || ports.newId(), traceId);
      }
    },

    getBackpressureStatus: async (text) => {
      let body: unknown;
      try {
        body = text === "" ? {} : parse(text);
      } catch (thrown) {
        return JSON.stringify(noStatus(BeamlineError.from(thrown).message));
      }
      return JSON.stringify(await backpressureStatus(body, ports.load, ports.now()));
    },
  };
}

function parse(text: string): unknown {
  if (text.length * 3 > MAX_REQUEST_BYTES && Buffer.byteLength(text) > MAX_REQUEST_BYTES) {
    throw refuse("SCHEMA_VALIDATION_FAILED", "Payload size exceeds limit", undefined, { max_bytes: MAX_REQUEST_BYTES });
  }
  try {
    return JSON.parse(text);
  } catch {
    throw refuse("SCHEMA_VALIDATION_FAILED", "Failed to parse JSON");
  }
}

/** What validation itself cannot cope with is its own failure, not the caller's (BeamLine, intake codes). */
function validated(text: string, body: JsonObject, headers: Headers): RoutingRequest {
  try {
    return readRequest(text, body, headers);
  } catch (thrown) {
    if (thrown instanceof BeamlineError) throw thrown;
    throw new BeamlineError("internal", "the request could not be validated", {
      intakeErrorCode: "INTERNAL_VALIDATION_ERROR" satisfies IntakeCode,
      cause: thrown,
    });
  }
}

function bodyOf(body: unknown): JsonObject {
  if (isObject(body)) return body;
  throw refuse("SCHEMA_VALIDATION_FAILED", "Schema validation failed: the request must be a JSON object", undefined, {
    type: "invalid_value",
  });
}

/** The policy a request is decided by. Throws `unauthorized` for a tenant that may not route, `policy_not_found`. */
function policyFor({ tenant, policyId }: RoutingRequest, { tenants, policies }: IntakePorts): Policy {
  if (tenants !== undefined && !tenants.has(tenant))
    throw refuse("TENANT_FORBIDDEN", "Tenant validation failed: tenant_not_allowed");
  const policy = policies.find(tenant, policyId) ?? policies.find(tenant, unqualified(policyId));
  if (policy === undefined)
    throw new BeamlineError("policy_not_found", "Policy not found in store", {
      details: { tenant_id: tenant, policy_id: policyId },
    });
  return policy;
}

/** `policy:default` is how the samples of the extended form write `default`; a policy of the whole name goes before. */
function unqualified(policyId: string): string {
  return policyId.startsWith("policy:") ? policyId.slice("policy:".length) : policyId;
}

/** A decision with extensions before and after, or with an assignment that is on the disk before the reply. */
async function piped(
  policy: Policy,
  request: RoutingRequest,
  call: CallContext,
  ports: IntakePorts,
  started: number,
): Promise<string> {
  const pipeline = policy.pipeline ? pipelineOf(policy, ports) : undefined;
  const shared = needsShared(policy, request, ports);
  const entered = shared && pipeline !== undefined;
  const replayed = entered ? await enter(policy, request, ports) : undefined;
  if (replayed !== undefined) return conclude(policy, request, replayed, call, ports, started);
  const before = pipeline?.before(policy, request, call).catch((thrown: unknown) => {
    if (entered) leave(request, ports);
    throw thrown;
  });
  const prepared = (await before) ?? { context: request.context, executed: [] };
  const facts = { tenant: request.tenant, context: prepared.context };
  const known = identified(request, ports);
  let promised: Promised | undefined;
  const finishing = async (made: Spoken): Promise<Spoken> => {
    const spoken = pipeline ? speak(await pipeline.after(policy, request, prepared, made.decision, call)) : made;
    if (known.pushAssignment) {
      const { payload } = prepared;
      const handover = { request: known, decision: spoken.decision, payload, traceparent: call.traceparent };
      promised = await ports.assignments?.promise(handover);
    }
    return spoken;
  };
  const made = shared
    ? await decideShared(policy, request, facts, ports, { finishing, entered })
    : await finishing(decide(policy, facts, ports));
  const text = conclude(policy, known, made, call, ports, started);
  // Always after the reply, which leaves with the messages of this tick.
  if (promised !== undefined) setImmediate(() => promised?.keep());
  return text;
}

function pipelineOf({ id }: Policy, { pipeline }: IntakePorts): Pipeline {
  if (pipeline !== undefined) return pipeline;
  throw new BeamlineError("extension_not_found", `policy ${id} has extensions, and none is registered`, {
    details: { policy_id: id },
  });
}

function conclude(
  policy: Policy,
  request: RoutingRequest,
  made: Outcome,
  call: CallContext,
  ports: IntakePorts,
  started: number,
): string {
  if ("replayed" in made) {
    ports.measures.replayed(request.idempotencyKey);
    return reply(identified(request, ports), made.replayed);
  }
  if (request.idempotencyKey !== "") ports.measures.first(request.idempotencyKey);
  return finish(policy, request, made, call, ports, started);
}

function finish(
  policy: Policy,
  request: RoutingRequest,
  spoken: Spoken,
  call: CallContext,
  ports: IntakePorts,
  started: number,
): string {
  if (request.messageId !== "") ports.decisions.remember(request.tenant, request.messageId, spoken.sessionless);
  const ms = ports.monotonic() - started;
  ports.measures.decided(policy, request.tenant, spoken.decision, ms);
  ports.load.took(ms);
  const known = identified(request, ports);
  if (sampledParent(call.traceparent)) {
    const { provider_id, reason, policy_id } = spoken.decision;
    spans.get(call)?.setAttributes({ tenant_id: request.tenant, policy_id, provider_id, decision_reason: reason });
  }
  return reply(known, spoken);
}

/** A request that its reply can be told apart by. */
function identified(request: RoutingRequest, { newId }: IntakePorts): RoutingRequest {
  return request.requestId === "" ? { ...request, requestId: newId() } : request;
}

/** Any failure as the envelope of I2; what intake refused also stands on the dead-letter subject. */
function failure(
  thrown: unknown,
  text: string,
  body: unknown,
  context: CallContext,
  ports: IntakePorts,
): BeamlineError {
  const error = BeamlineError.from(thrown);
  const ids = idsOf(body, context.headers);
  const intake = error.intakeErrorCode as IntakeCode | undefined;
  ports.measures.failed(error.code, intake, "");
  const { scope } = error.details;
  if ((error.code === "rate_limit_exceeded" || error.code === "quota_exceeded") && typeof scope === "string")
    ports.measures.limited(ids.tenant, scope);
  if (intake !== undefined && intakeCodes[intake].deadLetter) {
    ports.deadLetters?.refused({
      subject: context.subject,
      text,
      code: intake,
      message: error.message,
      stage: intakeCodes[intake].stage,
      ...ids,
    });
  }
  return inEnvelope(error, ids.requestId || ports.newId(), ids.traceId);
}

/**
 * The decision of a message. The tenant is the header's, else the request's. BeamLine's gateways name none and hold a bus login of their own:
 * they get the decision when one tenant alone used the id; a caller of the edge without a tenant is tenant `default`.
 */
async function findDecision(body: JsonObject, context: CallContext, decisions: Decisions): Promise<string> {
  const messageId = body["message_id"];
  if (messageId === undefined || messageId === null || messageId === "") throw missing("message_id");
  if (typeof messageId !== "string") throw malformed("message_id", "must be a string");
  const given = body["tenant_id"] ?? "";
  if (typeof given !== "string") throw malformed("tenant_id", "must be a string");
  const named = context.headers[header.tenantId] || given;
  const tenant = named || (context.principal === "" ? undefined : context.tenant);
  const decision = await decisions.recall(tenant, messageId);
  if (decision === undefined)
    throw new BeamlineError("policy_not_found", "no decision is known for this message", {
      details: { message_id: messageId },
    });
  return decision;
}
