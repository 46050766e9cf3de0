/**
 * The tool registry as an MCP server, streamable HTTP without sessions, on `POST /mcp`: `tools/list` asks ListTools, `tools/call` asks Execute,
 * over the bus as any client. Nothing is kept here.
 *
 * The agent whose capabilities decide is named by the header `x-agent-id`; a caller that names none is `task-agent` where callers need no
 * credentials, and refused elsewhere.
 */
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CallToolRequestSchema, ErrorCode, ListToolsRequestSchema, McpError } from "@modelcontextprotocol/sdk/types.js";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Caller } from "../bus/call.ts";
import { codecOf, opaque } from "../contracts/codec.ts";
import { BeamlineError, meaning } from "../contracts/errors.ts";
import { ToolRegistryDefinition, type ExecuteResponse, type ListToolsResponse } from "../contracts/gen/aios/tools.ts";
import { header, type Headers } from "../contracts/headers.ts";
import { routesOf, type Route } from "../contracts/routes.ts";
import { acceptTraceparent } from "../runtime/trace.ts";
import { VERSION } from "../runtime/version.ts";
import { authenticate, LOCAL, type AuthPolicy } from "./auth.ts";
import { isForeign, refusePages } from "./origin.ts";

export interface McpDeps {
  readonly caller: Caller;
  readonly auth: AuthPolicy;
  readonly maxBodyBytes: number;
}

const routes = routesOf(ToolRegistryDefinition);

/** Adds the route. */
export function mcpRoutes(app: FastifyInstance, { caller, auth, maxBodyBytes }: McpDeps): void {
  app.post("/mcp", { bodyLimit: maxBodyBytes }, async (request, reply) => {
    let visit: Visit;
    try {
      visit = visitOf(request, auth);
    } catch (thrown) {
      const { code, message } = BeamlineError.from(thrown);
      return reply.code(meaning(code).http).send({
        jsonrpc: "2.0",
        id: null,
        error: { code: ErrorCode.InvalidRequest, message },
      });
    }
    const server = serverFor(caller, visit);
    const transport = new StreamableHTTPServerTransport({});
    reply.raw.once("close", () => void server.close());
    void reply.hijack();
    await server.connect(transport);
    await transport.handleRequest(request.raw, reply.raw, request.body);
    return reply;
  });
  for (const method of ["GET", "DELETE"] as const) {
    app.route({
      method,
      url: "/mcp",
      handler: (_request, reply) => reply.code(405).header("allow", "POST").send(),
    });
  }
}

interface Visit {
  readonly headers: Headers;
  readonly agent: string;
}

/** Who calls. Throws `unauthenticated`, `permission_denied` for a page of another origin, `invalid_argument`. */
function visitOf({ headers: given }: FastifyRequest, auth: AuthPolicy): Visit {
  const { authorization } = given;
  // Wanted by the protocol of every server, credential or not.
  if (isForeign(given)) throw new BeamlineError("permission_denied", "origin is not this server");
  const principal = authenticate(auth, authorization, {
    ownKey: false,
    always: false,
  });
  refusePages(given, principal);
  const named = given["x-agent-id"];
  const agent = typeof named === "string" && named !== "" ? named : principal === LOCAL ? "task-agent" : "";
  if (agent === "")
    throw new BeamlineError("invalid_argument", "x-agent-id is missing", {
      field: "x-agent-id",
    });
  const trace = given["traceparent"];
  return {
    agent,
    headers: {
      [header.traceparent]: acceptTraceparent(typeof trace === "string" ? trace : undefined),
      [header.tenantId]: principal.tenant ?? "default",
      [header.principal]: principal.id,
      [header.scopes]: principal.scopes.join(" "),
    },
  };
}

function serverFor(caller: Caller, { headers, agent }: Visit): Server {
  const server = new Server({ name: "beamline-tools", version: VERSION }, { capabilities: { tools: {} } });
  const ask = async <T>(route: Route, request: object, signal: AbortSignal): Promise<T> => {
    const type = opaque(route.method.requestType);
    const { timeoutMs, worker, subject } = route;
    const deadline = { [header.deadline]: String(Date.now() + timeoutMs) };
    const json = codecOf(type).toJson(type.fromPartial(request));
    try {
      const answer = await caller.request(subject, json, {
        timeoutMs,
        worker,
        signal,
        headers: { ...headers, ...deadline },
      });
      return codecOf(opaque(route.method.responseType)).fromJson(answer) as T;
    } catch (thrown) {
      const { code, message } = BeamlineError.from(thrown);
      throw new McpError(code === "not_found" ? ErrorCode.InvalidParams : ErrorCode.InternalError, message);
    }
  };
  server.setRequestHandler(ListToolsRequestSchema, async (_request, { signal }) => {
    const { tools } = await ask<ListToolsResponse>(routes.listTools, {}, signal);
    return {
      tools: tools.map((tool) => ({
        name: tool.name,
        description: tool.description,
        inputSchema: inputSchemaOf(tool.input_schema),
        annotations: {
          idempotentHint: tool.idempotent,
          destructiveHint: tool.risk_level === "high" || tool.risk_level === "critical",
        },
      })),
    };
  });
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, { signal }) => {
    const input_json = Buffer.from(JSON.stringify(params.arguments ?? {}));
    const request = {
      tool_name: params.name,
      agent_id: agent,
      input_json,
      reason: "called over MCP",
    };
    const { success, error, output_json, execution_id } = await ask<ExecuteResponse>(routes.execute, request, signal);
    const _meta = { execution_id };
    if (!success)
      return {
        isError: true,
        content: [{ type: "text" as const, text: error }],
        _meta,
      };
    const text = output_json.toString();
    return {
      content: [{ type: "text" as const, text }],
      structuredContent: JSON.parse(text) as Record<string, unknown>,
      _meta,
    };
  });
  return server;
}

/** A schema as the protocol carries it: of type `object` alone, each property an object. One that is not would spoil the list for every tool. */
function inputSchemaOf(bytes: Uint8Array): { type: "object"; properties?: Record<string, object> } {
  const parsed: unknown = bytes.length === 0 ? {} : JSON.parse(Buffer.from(bytes).toString());
  const schema = typeof parsed === "object" && parsed !== null ? parsed : {};
  const given: unknown = "properties" in schema ? schema.properties : undefined;
  if (typeof given !== "object" || given === null) return { ...schema, type: "object" };
  const properties = Object.fromEntries(
    Object.entries(given).map(([name, value]: [string, unknown]) => [name, asObject(value)]),
  );
  return { ...schema, type: "object", properties };
}

/** What `true` and `false` stand for. */
function asObject(schema: unknown): object {
  if (typeof schema === "object" && schema !== null) return schema;
  return schema === false ? { not: {} } : {};
}
