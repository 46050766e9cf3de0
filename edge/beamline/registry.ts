/** The registry of blocks over REST (BeamLine, REST gateway): 201 for a new one, 200, 404 for none, 409 for what contradicts the path or what is there. */
import type { FastifyReply, FastifyRequest, HTTPMethods } from "fastify";
import type { JsonObject } from "../../contracts/codec.ts";
import { asObject, badRequest, jsonOr, type Gateway, type Rules } from "./gateway.ts";

type Add = (
  method: HTTPMethods,
  url: string,
  rules: Rules,
  run: (request: FastifyRequest, reply: FastifyReply) => unknown,
) => void;

const PATH = "/api/v1/registry/blocks";

export function registryRoutes(route: Add, gateway: Gateway): void {
  const rules = { endpoint: "registry" } as const;
  const ask = (request: FastifyRequest, word: string, more: JsonObject = {}): Promise<JsonObject> => {
    const { headers, tenant } = gateway.visitOf(request);
    const { tenant_id } = asObject(request.query);
    const named = tenant || (typeof tenant_id === "string" ? tenant_id : "");
    if (named === "") throw badRequest("X-Tenant-ID", "is required");
    const { type, version } = asObject(request.params);
    return gateway.askJson(
      `beamline.router.v1.registry.${word}`,
      { tenant_id: named, type, version, ...more },
      headers,
    );
  };
  route("POST", `${PATH}/:type/:version`, rules, async (request, reply) => {
    const { block, created } = await ask(request, "create", { block: blockIn(request) });
    void reply.code(created === true ? 201 : 200);
    return block;
  });
  route("PUT", `${PATH}/:type/:version`, rules, async (request) => {
    return (await ask(request, "replace", { block: blockIn(request) }))["block"];
  });
  route("DELETE", `${PATH}/:type/:version`, rules, async (request) => ({
    status: "deleted",
    ...(await ask(request, "delete")),
  }));
  route("GET", `${PATH}/:type/:version`, rules, async (request) => (await ask(request, "get"))["block"]);
  route("GET", PATH, rules, (request) => ask(request, "list"));
}

function blockIn(request: FastifyRequest): unknown {
  const block = typeof request.body === "string" ? jsonOr(request.body) : undefined;
  if (typeof block !== "object" || block === null || Array.isArray(block))
    throw badRequest("body", "must be a JSON object");
  return block;
}
