/**
 * What every REST route of BeamLine shares: who calls, how often, and how refusals look (BeamLine, REST gateway).
 *
 * W1 Conflicting refusals go by the contract's priority: limit (1), credential (2), the gateway's own look at the request (3), then whatever the
 *    router says (4, 5), then failures of the gateway (6). The limit is looked at before the body is read.
 * W2 Every refusal is the contract's error body, `intake_error_code` and `details` always there.
 * W3 The tenant of the credential wins, then `X-Tenant-ID`, then the request's own; the trace likewise. Both travel as headers, so a body is
 *    passed on byte for byte.
 */
import { createHash } from "node:crypto";
import type { FastifyReply, FastifyRequest } from "fastify";
import { isError, type Caller } from "../../bus/call.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { codeIn, errorOfBody } from "../../contracts/errorbody.ts";
import { BeamlineError, meaning } from "../../contracts/errors.ts";
import { header, type Headers } from "../../contracts/headers.ts";
import { gatewayMetrics } from "../../runtime/beamline.metrics.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Metrics, Registry } from "../../runtime/metrics.ts";
import { acceptTraceparent } from "../../runtime/trace.ts";
import { authenticate, bearerOf, type AuthPolicy, type Principal } from "../auth.ts";
import { refusePages } from "../origin.ts";
import { AbuseWatch, type AbuseRules } from "./abuse.ts";
import { Limiter, type Limit, type Standing } from "./limiter.ts";

export interface RestDeps {
  readonly caller: Caller;
  readonly auth: AuthPolicy;
  readonly registry: Registry;
  readonly log: Logger;
  /** Limits per window; 0 is none. */
  readonly limits: {
    readonly windowSeconds: number;
    readonly decide: number;
    readonly messages: number;
    readonly registry: number;
    readonly global: number;
  };
  /** How long an answer is given again to a request with the same `assignment_id`, `ack_id` or `usage_id`, milliseconds. */
  readonly idempotencyTtlMs: number;
  /** Undefined detects nothing. */
  readonly abuse: AbuseRules | undefined;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

/** A request that passed the limit and the credential. */
export interface Visit {
  readonly principal: Principal;
  /** Empty when nobody named one. */
  readonly tenant: string;
  readonly traceId: string;
  /** For the bus. */
  readonly headers: Headers;
}

/** How a route is looked at before it runs. */
export interface Rules {
  /** Name of its limit; undefined counts against the global one alone. */
  readonly endpoint?: "decide" | "messages" | "registry";
  /** The admin key is checked by the router; the gateway passes it on. */
  readonly admin?: boolean;
}

const tenantPattern = /^[\w.:-]{1,256}$/;
const TIMEOUT_MS = 5_000;

type Level = 1 | 2 | 3 | 4 | 5 | 6;
const levelNames = [
  "",
  "rate_limit",
  "auth_gateway",
  "request_gateway",
  "router_intake",
  "router_runtime",
  "internal_gateway",
] as const;

export class Gateway {
  readonly deps: RestDeps;
  readonly #limiter: Limiter;
  readonly #abuse: AbuseWatch | undefined;
  readonly #metrics: Metrics<typeof gatewayMetrics>;
  readonly #visits = new WeakMap<FastifyRequest, Visit>();

  constructor(deps: RestDeps) {
    this.deps = deps;
    this.#limiter = new Limiter(deps.limits.windowSeconds, deps.now);
    this.#abuse = deps.abuse && new AbuseWatch(deps.abuse, deps.now);
    this.#metrics = deps.registry.use(gatewayMetrics);
  }

  /** W1: before the body is read. Throws `rate_limit_exceeded`, `unauthorized`, `denied`, `invalid_request`. */
  admit(request: FastifyRequest, reply: FastifyReply, { endpoint, admin = false }: Rules): void {
    const authorization = textOf(request.headers["authorization"]);
    const named = textOf(request.headers["x-tenant-id"]) ?? "";
    this.#limit(request, reply, endpoint, authorization, named);
    const principal = authenticate(this.deps.auth, authorization, { ownKey: admin, always: false });
    refusePages(request.headers, principal);
    if (named !== "" && !tenantPattern.test(named))
      throw badRequest("X-Tenant-ID", "must be 1 to 256 letters, digits, dots, colons, dashes or underscores");
    if (principal.tenant !== undefined && named !== "" && named !== principal.tenant)
      throw new BeamlineError("permission_denied", "X-Tenant-ID is not the tenant of the credential", {
        field: "X-Tenant-ID",
      });
    const tenant = principal.tenant ?? named;
    this.#lookForAbuse(request, tenant, authorization);
    const traceId = textOf(request.headers["x-trace-id"]) ?? "";
    const headers: Record<string, string> = {
      [header.traceparent]: acceptTraceparent(textOf(request.headers["traceparent"])),
      [header.deadline]: String(this.deps.now() + TIMEOUT_MS),
    };
    if (tenant !== "") headers[header.tenantId] = tenant;
    if (traceId !== "") headers[header.traceId] = traceId;
    if (principal.id !== "") {
      headers[header.principal] = principal.id;
      headers[header.scopes] = principal.scopes.join(" ");
    }
    const key = textOf(request.headers["x-api-key"]) ?? bearerOf(authorization);
    if (admin && key !== undefined) headers[header.apiKey] = key;
    this.#visits.set(request, { principal, tenant, traceId, headers });
  }

  visitOf(request: FastifyRequest): Visit {
    const visit = this.#visits.get(request);
    if (visit === undefined) throw new BeamlineError("internal", "the request was not admitted");
    return visit;
  }

  /** Asks the router and passes its answer on as it is. Throws what it refused. */
  async ask(subject: string, text: string, headers: Headers): Promise<string> {
    const { caller } = this.deps;
    const sent = this.#metrics.gateway_nats_messages_sent_total;
    try {
      const answer = await caller.call(subject, text, { headers, timeoutMs: TIMEOUT_MS, worker: workerOf(subject) });
      sent.with({ subject }).add();
      if (isError(answer.headers)) throw errorOfBody(jsonOr(answer.text), answer.headers[header.serviceError]);
      return answer.text;
    } catch (thrown) {
      const error = BeamlineError.from(thrown);
      if (error.code === "unavailable")
        this.#metrics.gateway_nats_publish_failures_total.with({ subject, error: error.code }).add();
      throw error;
    }
  }

  /** The same with JSON. */
  async askJson(subject: string, body: object, headers: Headers): Promise<JsonObject> {
    return JSON.parse(await this.ask(subject, JSON.stringify(body), headers)) as JsonObject;
  }

  /** W2. */
  refuse(request: FastifyRequest, reply: FastifyReply, thrown: unknown): FastifyReply {
    const error = fromHttp(thrown);
    const code = codeIn("beamline", error.code);
    const status = statusOf(error);
    const visit = this.#visits.get(request);
    const ids = idsIn(request.body);
    const level = levelOf(error, visit !== undefined);
    const { log } = this.deps;
    log[level === 6 ? "error" : "debug"]("a REST request was refused", {
      error_type: levelNames[level],
      conflict_priority_level: level,
      code,
      path: pathOf(request),
      ...(level === 6 && { error: error.cause ?? error }),
    });
    if (error.retryAfterSeconds !== undefined) void reply.header("Retry-After", String(error.retryAfterSeconds));
    return reply
      .code(status)
      .type("application/json; charset=utf-8")
      .send(
        JSON.stringify({
          ok: false,
          error: {
            code,
            message: error.message || code,
            intake_error_code: error.intakeErrorCode ?? null,
            details: {
              ...error.details,
              ...(error.field !== undefined && { field: error.field }),
              ...(error.retryAfterSeconds !== undefined && { retry_after_seconds: error.retryAfterSeconds }),
            },
          },
          context: {
            request_id: ids.requestId || request.id,
            trace_id: visit?.traceId || ids.traceId,
            tenant_id: visit?.tenant || ids.tenant,
          },
        }),
      );
  }

  /** Counts an answered request under its route's pattern. */
  count(request: FastifyRequest, status: number, ms: number): void {
    const { method } = request;
    const path = pathOf(request);
    this.#metrics.gateway_http_requests_total.with({ method, path, status: String(status) }).add();
    this.#metrics.gateway_http_request_duration_seconds.with({ method, path }).record(ms / 1_000);
    this.#metrics.gateway_nats_connection_status.with().set(this.deps.caller.bus.connected ? 1 : 0);
  }

  /** Of callers whose credential was looked at, so that nobody is refused for what a stranger did in his name. Throws `rate_limit_exceeded`. */
  #lookForAbuse(request: FastifyRequest, tenant: string, authorization: string | undefined): void {
    if (this.#abuse === undefined) return;
    const length = request.headers["content-length"];
    const payloadBytes = length === undefined ? undefined : Number(length);
    const key = digestOf(authorization);
    for (const { kind, retryAfterSeconds } of this.#abuse.look({ tenant, address: request.ip, key, payloadBytes })) {
      this.#metrics.gateway_abuse_detected_total.with({ kind }).add();
      if (kind !== "blocked") this.deps.log.warn("a REST caller behaves like abuse", { kind, tenant_id: tenant });
      if (retryAfterSeconds === undefined) continue;
      throw new BeamlineError("rate_limit_exceeded", "refused because of abuse", {
        retryAfterSeconds,
        details: { endpoint: "abuse", reason: kind },
      });
    }
  }

  /** Callers are told apart by credential, else by address, and by the tenant they name. */
  #limit(
    request: FastifyRequest,
    reply: FastifyReply,
    endpoint: Rules["endpoint"],
    authorization: string | undefined,
    tenant: string,
  ): void {
    const who = digestOf(authorization) || request.ip;
    const limits: Limit[] = [{ endpoint: "global", max: this.deps.limits.global }];
    if (endpoint !== undefined) limits.unshift({ endpoint, max: this.deps.limits[endpoint] });
    const standing = this.#limiter.take(`${who} ${tenant}`, limits);
    if (standing === undefined) return;
    tell(reply, standing);
    const labels = { endpoint: standing.endpoint, tenant_id: tenantPattern.test(tenant) ? tenant : "" };
    this.#metrics.gateway_rate_limit_hits_total.with(labels).add();
    if (!standing.exceeded) return this.#metrics.gateway_rate_limit_allowed_total.with(labels).add();
    this.#metrics.gateway_rate_limit_exceeded_total.with(labels).add();
    throw new BeamlineError("rate_limit_exceeded", "rate limit exceeded", {
      retryAfterSeconds: standing.retryAfterSeconds,
      details: { endpoint: standing.endpoint, limit: standing.limit },
    });
  }
}

/** Tells one credential from another without knowing it; empty for none. */
function digestOf(authorization: string | undefined): string {
  return authorization === undefined ? "" : createHash("sha256").update(authorization).digest("hex").slice(0, 16);
}

/** A mistake the gateway itself found. */
export function badRequest(field: string, what: string): BeamlineError {
  return new BeamlineError("invalid_request", `${field} ${what}`, { field });
}

function tell(reply: FastifyReply, { limit, remaining, resetSeconds }: Standing): void {
  void reply
    .header("X-RateLimit-Limit", String(limit))
    .header("X-RateLimit-Remaining", String(remaining))
    .header("X-RateLimit-Reset", String(resetSeconds));
}

/** A key used with another body is 409 over HTTP (BeamLine, consumers, fate rules). */
function statusOf(error: BeamlineError): number {
  if (error.intakeErrorCode === "IDEMPOTENCY_VIOLATION" || error.code === "already_exists") return 409;
  if (error.details["reason"] === "conflict") return 409;
  return meaning(codeIn("beamline", error.code)).http;
}

function levelOf(error: BeamlineError, admitted: boolean): Level {
  const code = codeIn("beamline", error.code);
  if (error.details["endpoint"] !== undefined && code === "rate_limit_exceeded") return 1;
  if (!admitted) return code === "unauthorized" || code === "denied" ? 2 : 3;
  if (error.cause !== undefined) return 6;
  if (error.intakeErrorCode !== undefined || meaning(code).http < 500) return 4;
  return 5;
}

/** What the HTTP library throws, in our words; its status says whose fault it is. */
function fromHttp(thrown: unknown): BeamlineError {
  if (thrown instanceof BeamlineError) return thrown;
  const status = (thrown as { statusCode?: unknown } | undefined)?.statusCode;
  if (status === 413) return new BeamlineError("invalid_request", "Payload size exceeds limit", { field: "body" });
  if (typeof status === "number" && status >= 400 && status < 500)
    return new BeamlineError("invalid_request", "the request cannot be read", { field: "body" });
  return BeamlineError.from(thrown);
}

function idsIn(body: unknown): { requestId: string; traceId: string; tenant: string } {
  const whole = asObject(typeof body === "string" ? jsonOr(body) : body);
  const message = asObject(whole["message"]);
  const find = (name: string): string => words(message[name]) || words(whole[name]);
  return {
    requestId: words(whole["request_id"]) || find("message_id"),
    traceId: find("trace_id"),
    tenant: find("tenant_id"),
  };
}

function workerOf(subject: string): string {
  return subject === "beamline.router.v1.usage" ? "usage" : "routing";
}

function pathOf(request: FastifyRequest): string {
  return request.routeOptions.url ?? "unknown";
}

export function asObject(value: unknown): JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

/** JSON, else undefined. */
export function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function words(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function textOf(value: string | string[] | undefined): string | undefined {
  const text = (Array.isArray(value) ? value[0] : value)?.trim();
  return text === "" ? undefined : text;
}
