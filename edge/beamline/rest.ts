/**
 * BeamLine's REST gateway (BeamLine, REST gateway): each route asks the same subject a NATS client would, and passes the answer on.
 *
 * | route | asks |
 * |---|---|
 * | POST /api/v1/routes/decide, POST /api/v1/messages | beamline.router.v1.decide, in any of its request forms |
 * | GET /api/v1/routes/decide/:messageId, GET /api/v1/messages/:messageId | beamline.router.v1.get_decision |
 * | PUT, DELETE /api/v1/messages/:messageId | nobody: as the C gateway answers |
 * | GET /api/v1/messages/stream, GET /api/v1/results/stream | events |
 * | /api/v1/policies/..., /api/v1/extensions/... | beamline.router.v1.admin.*, with the admin key |
 * | /api/v1/registry/blocks/... | beamline.router.v1.registry.* |
 * | GET /api/v1/usage | beamline.router.v1.usage |
 */
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from "fastify";
import type { JsonObject } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { header } from "../../contracts/headers.ts";
import { asObject, badRequest, Gateway, jsonOr, type RestDeps, type Rules } from "./gateway.ts";
import { registryRoutes } from "./registry.ts";
import { ResultHub } from "./results.ts";
import { MessageFeed, streamResults } from "./streams.ts";

const ROUTER = "beamline.router.v1";
/** Largest body, bytes: the contract's limit of a message, so that what is beyond it is refused before it is read. */
const MAX_BODY_BYTES = 1_048_576;

type Run = (request: FastifyRequest, reply: FastifyReply) => unknown;

/** Adds the routes. */
export function beamlineRest(app: FastifyInstance, deps: RestDeps): void {
  const gateway = new Gateway(deps);
  const hub = new ResultHub(deps.caller.bus, (error) =>
    deps.log.warn("results are not followed for the moment", { error }),
  );
  const feed = new MessageFeed();
  void app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", { parseAs: "string", bodyLimit: MAX_BODY_BYTES }, (_request, text, done) =>
      done(null, text),
    );
    scope.setErrorHandler((thrown, request, reply) => gateway.refuse(request, reply, thrown));
    scope.addHook("onResponse", async (request, reply) => gateway.count(request, reply.statusCode, reply.elapsedTime));
    scope.addHook("onClose", async () => hub.close());
    const route = (method: HTTPMethods, url: string, rules: Rules, run: Run): void => {
      scope.route({
        method,
        url,
        onRequest: async (request, reply) => gateway.admit(request, reply, rules),
        handler: async (request, reply) => run(request, reply),
      });
    };
    messageRoutes(route, gateway, feed);
    registryRoutes(route, gateway);
    adminRoutes(route, gateway);
    route("GET", "/api/v1/results/stream", {}, (request, reply) => streamResults(gateway, hub, request, reply));
    route("GET", "/api/v1/messages/stream", {}, (request, reply) => feed.stream(gateway, request, reply));
    route("GET", "/api/v1/usage", {}, async (request) => {
      const { tenant_id, start_date, end_date, provider_id } = request.query as JsonObject;
      const visit = gateway.visitOf(request);
      const asked = { tenant_id: tenant_id ?? visit.tenant, start_date, end_date, provider_id };
      return gateway.askJson(`${ROUTER}.usage`, asked, visit.headers);
    });
    scope.all("/api/v1/*", { onRequest: async (request, reply) => gateway.admit(request, reply, {}) }, (request) => {
      throw new BeamlineError("not_found", `no route ${request.method} ${request.url.split("?")[0] ?? ""}`);
    });
  });
}

type Add = (method: HTTPMethods, url: string, rules: Rules, run: Run) => void;

function messageRoutes(route: Add, gateway: Gateway, feed: MessageFeed): void {
  const decide = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { headers, tenant } = gateway.visitOf(request);
    const text = bodyText(request);
    const body = jsonOr(text);
    const named = tenant || tenantIn(body);
    if (body !== undefined && named === "")
      throw new BeamlineError("invalid_request", "Missing required field: tenant_id", {
        field: "tenant_id",
        details: { type: "required_field_missing" },
      });
    const answer = await gateway.ask(`${ROUTER}.decide`, text, { ...headers, ...keyed(body, gateway) });
    const { message_id } = { ...asObject(body), ...asObject(asObject(body)["message"]) };
    feed.tell(named, "message_created", { message_id, tenant_id: named, decision: jsonOr(answer) });
    return json(reply, answer);
  };
  const find: Run = async (request, reply) => {
    const { headers } = gateway.visitOf(request);
    const asked = { message_id: param(request, "messageId") };
    return json(reply, await gateway.ask(`${ROUTER}.get_decision`, JSON.stringify(asked), headers));
  };
  route("POST", "/api/v1/routes/decide", { endpoint: "decide" }, decide);
  route("GET", "/api/v1/routes/decide/:messageId", {}, find);
  route("POST", "/api/v1/messages", { endpoint: "messages" }, decide);
  route("GET", "/api/v1/messages/:messageId", {}, find);
  route("PUT", "/api/v1/messages/:messageId", { endpoint: "messages" }, (request, reply) => {
    const body = objectIn(request);
    const id = param(request, "messageId");
    if (body["message_id"] !== undefined && body["message_id"] !== id)
      throw new BeamlineError("already_exists", "message_id is not the one of the path", { field: "message_id" });
    const { tenant } = gateway.visitOf(request);
    feed.tell(tenant || tenantIn(body), "message_updated", { ...body, message_id: id });
    return json(reply, bodyText(request));
  });
  route("DELETE", "/api/v1/messages/:messageId", { endpoint: "messages" }, (request, reply) => {
    const message_id = param(request, "messageId");
    const { tenant } = gateway.visitOf(request);
    feed.tell(tenant, "message_deleted", { message_id });
    return json(reply, JSON.stringify({ status: "deleted", message_id }));
  });
}

function adminRoutes(route: Add, gateway: Gateway): void {
  const admin = { admin: true };
  const ask = (request: FastifyRequest, name: string, body: object, tenant?: string): Promise<JsonObject> => {
    const { headers } = gateway.visitOf(request);
    // The tenant of the path is the one that is meant.
    const named = tenant === undefined || tenant === "*" ? without(headers) : { ...headers, [header.tenantId]: tenant };
    return gateway.askJson(`${ROUTER}.admin.${name}`, { tenant_id: tenant, ...body }, named);
  };
  const policyOf = (request: FastifyRequest, tenant: string, policy_id: string): Promise<unknown> =>
    ask(request, "get_policy", { policy_id }, tenant).then(({ document }) => document);
  const put = async (request: FastifyRequest, tenant: string, policy_id: string): Promise<unknown> => {
    const body = objectIn(request);
    if (body["policy_id"] !== undefined && body["policy_id"] !== policy_id)
      throw badRequest("policy_id", "is not the one of the path");
    await ask(request, "upsert_policy", { policy: { ...body, policy_id } }, tenant);
    return policyOf(request, tenant, policy_id);
  };
  const documents = (request: FastifyRequest, tenant: string): Promise<unknown> =>
    ask(request, "list_policies", {}, tenant).then((reply) => reply["documents"]);

  route("GET", "/api/v1/policies/:tenantId", admin, async (request) => ({
    policies: await documents(request, param(request, "tenantId")),
  }));
  route("POST", "/api/v1/policies/:tenantId", admin, async (request, reply) => {
    const { policy_id } = objectIn(request);
    if (typeof policy_id !== "string" || policy_id === "") throw badRequest("policy_id", "is required");
    void reply.code(201);
    return put(request, param(request, "tenantId"), policy_id);
  });
  // The bucket is the one truth: there is nothing to bring into step, and the answer is what there is.
  for (const word of ["sync", "reconcile"])
    route("POST", `/api/v1/policies/:tenantId/${word}`, admin, async (request) => ({
      ok: true,
      policies: await documents(request, param(request, "tenantId")),
    }));
  route("GET", "/api/v1/policies/:tenantId/:policyId", admin, (request) =>
    policyOf(request, param(request, "tenantId"), param(request, "policyId")),
  );
  route("PUT", "/api/v1/policies/:tenantId/:policyId", admin, (request) =>
    put(request, param(request, "tenantId"), param(request, "policyId")),
  );
  route("DELETE", "/api/v1/policies/:tenantId/:policyId", admin, (request) =>
    ask(request, "delete_policy", { policy_id: param(request, "policyId") }, param(request, "tenantId")),
  );
  route("GET", "/api/v1/policies/:tenantId/:policyId/complexity", admin, async (request) => {
    const asked = { policy_id: param(request, "policyId") };
    const reply = await ask(request, "get_pipeline_complexity", asked, param(request, "tenantId"));
    return { complexity: reply["complexity"] };
  });
  route("POST", "/api/v1/policies/dry-run", admin, (request) => {
    const body = objectIn(request);
    const tenant = gateway.visitOf(request).tenant || tenantIn(body);
    return ask(request, "dry_run_pipeline", body, tenant === "" ? undefined : tenant);
  });
  route("GET", "/api/v1/extensions/health", admin, (request) => ask(request, "get_extension_health", {}));
  route("GET", "/api/v1/extensions/circuit-breakers", admin, (request) =>
    ask(request, "get_circuit_breaker_states", {}),
  );
}

/** Ids that make a request one request, however often it is sent (BeamLine, idempotency, gateway HTTP). */
const idempotencyIds = ["assignment_id", "ack_id", "usage_id"] as const;

/** The key such a request has at the router, which all edges share; a key of its own goes before it. */
function keyed(body: unknown, { deps }: Gateway): Readonly<Record<string, string>> {
  for (const name of idempotencyIds) {
    const id = asObject(body)[name];
    if (typeof id !== "string" || id === "") continue;
    if (id.length > 200) throw badRequest(name, "must have at most 200 characters");
    return { [header.idempotencyKey]: `gateway:${name}:${id}`, [header.idempotencyTtl]: String(deps.idempotencyTtlMs) };
  }
  return {};
}

function without(headers: Readonly<Record<string, string>>): Record<string, string> {
  const { [header.tenantId]: _tenant, ...rest } = headers;
  return rest;
}

/** Passes JSON text on as it is. */
function json(reply: FastifyReply, text: string): FastifyReply {
  return reply.type("application/json; charset=utf-8").send(text);
}

function param(request: FastifyRequest, name: string): string {
  return (request.params as Readonly<Record<string, string>>)[name] ?? "";
}

function bodyText(request: FastifyRequest): string {
  return typeof request.body === "string" ? request.body : "";
}

function objectIn(request: FastifyRequest): JsonObject {
  const body = jsonOr(bodyText(request));
  if (body === undefined) throw new BeamlineError("invalid_request", "Failed to parse JSON", { field: "body" });
  if (typeof body !== "object" || body === null || Array.isArray(body))
    throw badRequest("body", "must be a JSON object");
  return body as JsonObject;
}

/** The tenant a request names itself: its message's, else its own. */
function tenantIn(body: unknown): string {
  const whole = asObject(body);
  const found = asObject(whole["message"])["tenant_id"] ?? whole["tenant_id"];
  return typeof found === "string" ? found : "";
}
