import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { Server as GrpcServer, ServerCredentials } from "@grpc/grpc-js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { header } from "../../../contracts/headers.ts";
import { ExecuteRequest, ExecuteResponse } from "../../../contracts/gen/aios/tools.ts";
import { startTestbed, type Testbed } from "../testbed.ts";
import type { Json } from "../tool.ts";

let bed: Testbed;
let grpc: GrpcServer;
let grpcPort: number;
let mcp: HttpServer;
let mcpPort: number;
let directory: string;
const ODD = "_odd";
/** Sessions of the MCP server are those of its present life. */
let epoch = 1;
const asked: ExecuteRequest[] = [];

beforeAll(async () => {
  grpc = new GrpcServer();
  grpc.addService(
    {
      execute: {
        path: "/aios.tools.ToolRegistry/Execute",
        requestStream: false,
        responseStream: false,
        requestDeserialize: (bytes: Buffer) => ExecuteRequest.decode(bytes),
        requestSerialize: (message: ExecuteRequest) => Buffer.from(ExecuteRequest.encode(message).finish()),
        responseSerialize: (message: ExecuteResponse) => Buffer.from(ExecuteResponse.encode(message).finish()),
        responseDeserialize: (bytes: Buffer) => ExecuteResponse.decode(bytes),
      },
    },
    {
      execute(call: { request: ExecuteRequest }, done: (error: null, answer: ExecuteResponse) => void) {
        asked.push(call.request);
        const input = JSON.parse(call.request.input_json.toString()) as Json;
        if (input["hang"] === true) return;
        const output = input["bad"] === true ? { wrong: 1 } : { echo: input["say"] ?? "" };
        const success = input["fail"] !== true;
        done(
          null,
          ExecuteResponse.fromPartial({
            success,
            output_json: Buffer.from(JSON.stringify(output)),
            error: success ? "" : "no luck",
          }),
        );
      },
    },
  );
  grpcPort = await new Promise<number>((resolve, reject) =>
    grpc.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    ),
  );
  mcp = createServer((request, response) => {
    void (async () => {
      const session = request.headers["mcp-session-id"];
      if (session !== undefined && session !== String(epoch)) {
        response.writeHead(404).end();
        return;
      }
      response.setHeader("mcp-session-id", String(epoch));
      const server = newMcp(String(request.headers["x-key"] ?? "nobody"));
      const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined } as never);
      response.on("close", () => void transport.close().then(() => server.close()));
      await server.connect(transport);
      await transport.handleRequest(request, response);
    })();
  });
  await new Promise<void>((resolve) => mcp.listen(0, "127.0.0.1", resolve));
  mcpPort = (mcp.address() as AddressInfo).port;
  directory = await mkdtemp(join(tmpdir(), "beamline-mcp-"));
  const script = join(directory, "server.mjs");
  const sdk = new URL("../../../node_modules/@modelcontextprotocol/sdk/dist/esm/", import.meta.url).href;
  await writeFile(
    script,
    `import { McpServer } from "${sdk}server/mcp.js"; import { StdioServerTransport } from "${sdk}server/stdio.js";
     const server = new McpServer({ name: "s", version: "1" });
     server.registerTool("pid", { description: "its pid" }, async () => ({ content: [{ type: "text", text: String(process.pid) + (process.env.REDIS_URL ?? "") }] }));
     await server.connect(new StdioServerTransport());`,
  );
  const file = join(directory, "mcp.json");
  await writeFile(
    file,
    JSON.stringify({
      mcpServers: { local: { command: process.execPath, args: [script] }, gone: { command: "no-such-program" } },
    }),
  );
  bed = await startTestbed(
    { BEAMLINE_TOOLS_EGRESS_ALLOW: `127.0.0.1:${grpcPort},127.0.0.1:${mcpPort}`, BEAMLINE_TOOLS_MCP: file },
    2,
  );
}, 60_000);

afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  grpc.forceShutdown();
  mcp.closeAllConnections();
  mcp.close();
  await rm(directory, { recursive: true, force: true });
});

function newMcp(caller: string): McpServer {
  const server = new McpServer({ name: "test", version: "1.0.0" });
  server.registerTool("greet", { description: "greets", annotations: { readOnlyHint: true } }, async () => ({
    content: [{ type: "text", text: "hello" }],
  }));
  server.registerTool("whoami", { description: "says who asks" }, async () => ({
    content: [{ type: "text", text: caller }],
  }));
  server.registerTool(ODD, { description: "has a name no tool may have" }, async () => ({ content: [] }));
  server.registerTool("fails", { description: "fails" }, async () => ({
    content: [{ type: "text", text: "out of tea" }],
    isError: true,
  }));
  return server;
}

const says = (text: string): unknown => expect.stringContaining(text);
const definition = (name: string, more: Json = {}): Json => ({
  name,
  description: "echoes",
  input_schema: JSON.stringify({ type: "object", properties: { say: { type: "string" } } }),
  output_schema: JSON.stringify({ type: "object", required: ["echo"] }),
  timeout_ms: 1_000,
  ...more,
});
const register = (tool: Json | undefined, handler_address: string): Promise<Json> =>
  bed.rpc("register", { ...(tool && { tool }), handler_address });

describe("registration", () => {
  test.each([
    ["no name", definition(""), "127.0.0.1:1", "tool.name"],
    ["a name without namespace", definition("echo"), "127.0.0.1:1", "tool.name"],
    ["another namespace", definition("custom.echo", { namespace: "other" }), "127.0.0.1:1", "tool.namespace"],
    ["a built-in tool", definition("fs.read"), "127.0.0.1:1", "built in"],
    ["a built-in namespace", definition("fs.echo"), "127.0.0.1:1", "belongs to the built-in tools"],
    [
      "a schema that is no JSON",
      definition("custom.echo", { input_schema: "{" }),
      "127.0.0.1:1",
      "tool.input_schema is not JSON",
    ],
    [
      "a schema that is none",
      definition("custom.echo", { output_schema: '{"type":"nonsense"}' }),
      "127.0.0.1:1",
      "tool.output_schema",
    ],
    [
      "a pattern that explodes",
      definition("custom.echo", { input_schema: '{"pattern":"^(a+)+$"}' }),
      "127.0.0.1:1",
      "pattern",
    ],
    [
      "an input that is no object",
      definition("custom.echo", { input_schema: '{"type":"array"}' }),
      "127.0.0.1:1",
      "tool.input_schema must be of type object",
    ],
    [
      "capabilities that would fill the ledger",
      definition("custom.echo", { required_capabilities: ["x".repeat(1_000_000)] }),
      "127.0.0.1:1",
      "tool.required_capabilities",
    ],
    [
      "too many capabilities",
      definition("custom.echo", { required_capabilities: Array.from({ length: 100 }, (_, n) => `cap_${n}`) }),
      "127.0.0.1:1",
      "tool.required_capabilities has more than 64",
    ],
    ["a version without end", definition("custom.echo", { version: "1".repeat(100) }), "127.0.0.1:1", "tool.version"],
    ["an unknown risk", definition("custom.echo", { risk_level: "dire" }), "127.0.0.1:1", "tool.risk_level"],
    [
      "a timeout beyond all bounds",
      definition("custom.echo", { timeout_ms: 900_000 }),
      "127.0.0.1:1",
      "tool.timeout_ms",
    ],
    ["no address", definition("custom.echo"), "", "handler_address is missing"],
    ["no address at all", definition("custom.echo"), "not an address", "handler_address"],
    ["loopback", definition("custom.echo"), "127.0.0.1:9", "loopback"],
    ["loopback by name", definition("custom.echo"), "localhost:9", "loopback"],
    ["the metadata service", definition("custom.echo"), "http://169.254.169.254:80", "linkLocal"],
    ["a subject of ours", definition("custom.echo"), "nats:aios.tools.v1.execute", "beamline.ext.tools."],
    ["an imported server", definition("custom.echo"), "mcp:local/pid", "not for registering"],
  ])("refuses %s, with the RPC OK", async (_what, tool, address, text) => {
    expect(await register(tool, address)).toMatchObject({ error: says(text) });
    await expect(bed.rpc("get_tool", { name: "custom.echo" })).rejects.toMatchObject({ code: "not_found" });
  });

  test("without a tool it is an error of the RPC", async () => {
    await expect(register(undefined, "a:1")).rejects.toMatchObject({
      code: "invalid_argument",
      message: says("Missing tool definition"),
    });
  });

  test("is seen by every worker, runs, is replaced, and goes", async () => {
    expect(await register(definition("custom.echo"), `127.0.0.1:${grpcPort}`)).toEqual({ accepted: true });
    for (let n = 0; n < 6; n++) {
      expect(await bed.run("custom.echo", { say: `n${n}` }, { reason: "why", task: "t" })).toMatchObject({
        success: true,
        output: { echo: `n${n}` },
      });
    }
    expect(asked.at(-1)).toMatchObject({
      tool_name: "custom.echo",
      agent_id: "task-agent",
      task_id: "t",
      reason: "why",
    });
    expect(await bed.rpc("list_tools", { namespace: "custom" })).toMatchObject({
      tools: [{ name: "custom.echo", version: "1.0.0", risk_level: "medium" }],
    });
    await expect(bed.run("custom.echo", {}, { tenant: "other" })).rejects.toMatchObject({ code: "not_found" });
    expect(await bed.run("custom.echo", {}, { agent: "stranger" })).toMatchObject({
      error: "Capability denied: missing []",
    });
    await register(definition("custom.echo", { required_capabilities: ["custom.use"] }), `127.0.0.1:${grpcPort}`);
    expect(await bed.run("custom.echo")).toMatchObject({ error: 'Capability denied: missing ["custom_use"]' });
    await bed.run("sec.grant", { agent_id: "task-agent", capabilities: ["custom_use"] }, { agent: "autonomy-loop" });
    expect(await bed.run("custom.echo", { say: "granted" })).toMatchObject({ success: true });
    expect(await bed.rpc("deregister", { tool_name: "custom.echo" })).toEqual({
      success: true,
      message: "Tool custom.echo deregistered",
    });
    await expect(bed.run("custom.echo")).rejects.toMatchObject({ code: "not_found" });
    expect(await bed.rpc("deregister", { tool_name: "custom.echo" })).toMatchObject({
      message: "Tool not found: custom.echo",
    });
    expect(await bed.rpc("deregister", { tool_name: "fs.read" })).toMatchObject({ message: says("built in") });
    expect(await bed.rpc("get_tool", { name: "fs.read" })).toMatchObject({ name: "fs.read" });
  });
});

describe("handlers", () => {
  test("one that fails, answers nonsense, never answers or is gone is reported in the answer", async () => {
    await register(definition("odd.echo"), `127.0.0.1:${grpcPort}`);
    expect(await bed.run("odd.echo", { fail: true })).toMatchObject({ success: false, error: "no luck" });
    expect(await bed.run("odd.echo", { bad: true })).toMatchObject({
      success: false,
      output: {},
      error: says("does not match its schema"),
    });
    expect(await bed.run("odd.echo", { say: 5 })).toMatchObject({ success: false, error: says("/say must be string") });
    const hung = await bed.run("odd.echo", { hang: true });
    expect(hung).toMatchObject({ success: false, error: says("timed out after 1000 ms") });
    expect(hung.duration_ms).toBeLessThan(2_500);
    await bed.rpc("register", {
      tool: definition("odd.nats", { timeout_ms: 300 }),
      handler_address: "nats:beamline.ext.tools.nobody",
    });
    expect(await bed.run("odd.nats")).toMatchObject({
      success: false,
      error: says("no tool handler worker is serving"),
    });
    expect((await bed.ledger.query("default", { limit: 1, tool_name: "odd.nats" }))[0]).toMatchObject({
      success: false,
    });
  });

  test("one on the bus answers too", async () => {
    const outside = await bed.nats.connect("handler", "publisher");
    outside.nc.subscribe("beamline.ext.tools.echo", {
      callback: (_error, message) => {
        const request = JSON.parse(new TextDecoder().decode(message.data)) as { input_json: string };
        message.respond(JSON.stringify({ success: true, output_json: JSON.stringify({ echo: request.input_json }) }));
      },
    });
    await outside.flush();
    expect(await register(definition("bus.echo"), "nats:beamline.ext.tools.echo")).toEqual({ accepted: true });
    expect(await bed.run("bus.echo", { say: "x" })).toMatchObject({ success: true, output: { echo: '{"say":"x"}' } });
  });

  test("one that can undo its doing is asked to", async () => {
    await register(definition("undo.back"), `127.0.0.1:${grpcPort}`);
    await register(definition("undo.do", { reversible: true, rollback_tool: "undo.back" }), `127.0.0.1:${grpcPort}`);
    const done = await bed.run("undo.do", { say: "x" });
    expect(done.backup_id).not.toBe("");
    expect(await bed.rpc("rollback", { execution_id: done.execution_id })).toMatchObject({ success: true });
    expect(asked.at(-1)?.tool_name).toBe("undo.back");
    expect(JSON.parse(asked.at(-1)?.input_json.toString() ?? "")).toEqual({
      say: "x",
      execution_id: done.execution_id,
    });
  });
});

describe("what is registered cannot", () => {
  test("reach by its rollback_tool what the agent may not use, nor give it what it does not take", async () => {
    const made = join(bed.root, "made-by-a-rollback");
    const address = `127.0.0.1:${grpcPort}`;
    await register(definition("sly.do", { reversible: true, rollback_tool: "process.spawn" }), address);
    const input = { command: "touch", args: [made] };
    const done = await bed.run("sly.do", input, { agent: "system-agent" });
    expect(done.success).toBe(true);
    expect(await bed.rpc("rollback", { execution_id: done.execution_id })).toEqual({
      error: 'Capability denied: missing ["process_manage"]',
    });
    const allowed = await bed.run("sly.do", { args: [made] });
    expect(await bed.rpc("rollback", { execution_id: allowed.execution_id })).toMatchObject({
      error: says("missing required field 'command'"),
    });
    await expect(access(made)).rejects.toThrow();
  });

  test("hold everyone up with its schema", async () => {
    const address = `127.0.0.1:${grpcPort}`;
    const schema = (input: Json): Json => ({ input_schema: JSON.stringify(input) });
    await register(definition("slow.round", schema({ $ref: "#" })), address);
    expect(await bed.run("slow.round", { say: "x" })).toMatchObject({ error: says("refers to itself without end") });
    const items = Array.from({ length: 40_000 }, (_, n) => ({ n }));
    await register(definition("slow.unique", schema({ properties: { items: { uniqueItems: true } } })), address);
    const unique = await bed.run("slow.unique", { items, say: "each once" });
    expect(unique).toMatchObject({ success: true, output: { echo: "each once" } });
    expect(
      await bed.run("slow.unique", {
        items: [
          { a: 1, b: 2 },
          { b: 2, a: 1 },
        ],
      }),
    ).toMatchObject({
      error: says("/items must NOT have duplicate items"),
    });
    const choices = Array.from({ length: 2_000 }, (_, n) => ({ required: [n < 1_999 ? `x${n}` : "n"] }));
    await register(definition("slow.any", schema({ properties: { items: { items: { anyOf: choices } } } })), address);
    expect(await bed.run("slow.any", { items })).toMatchObject({ error: says("takes more than 500 ms to check") });
  });
});

describe("MCP servers", () => {
  test("of one name and address are called with each tenant's own headers", async () => {
    const url = `http://127.0.0.1:${mcpPort}/mcp`;
    for (const tenant of ["one", "two"])
      await bed.caller.request(
        "beamline.tools.v1.mcp.import",
        { name: "shared", url, headers: { "x-key": `key of ${tenant}` } },
        { timeoutMs: 20_000, headers: { [header.tenantId]: tenant } },
      );
    for (const tenant of ["one", "two", "one"])
      expect(await bed.run("mcp_shared.whoami", {}, { tenant })).toMatchObject({
        output: { text: `key of ${tenant}` },
      });
  });

  test("of the operator's file are imported at start, and run with a cleared environment", async () => {
    const pid = await bed.run("mcp_local.pid");
    expect(pid).toMatchObject({ success: true, output: { text: expect.stringMatching(/^\d+$/) as string } });
  });

  test("over HTTP are imported while running, guarded", async () => {
    const load = (url: string) =>
      bed.caller.request("beamline.tools.v1.mcp.import", { name: "web", url }, { timeoutMs: 20_000 });
    expect(await load(`http://127.0.0.1:${mcpPort}/mcp`)).toEqual({
      tools: ["mcp_web.fails", "mcp_web.greet", "mcp_web.whoami"],
      skipped: [{ tool: ODD, error: says("tool.name must be") }],
    });
    expect(await bed.run("mcp_web.greet")).toMatchObject({ success: true, output: { text: "hello" } });
    expect(await bed.run("mcp_web.fails")).toMatchObject({ success: false, error: "out of tea" });
    expect(await bed.run("mcp_web.whoami")).toMatchObject({ output: { text: "nobody" } });
    epoch++; // the server forgets its sessions
    for (let n = 0; n < 4; n++) expect(await bed.run("mcp_web.whoami")).toMatchObject({ success: true });
    epoch++;
    expect(await load(`http://127.0.0.1:${mcpPort}/mcp`)).toMatchObject({ tools: { length: 3 } });
    await expect(load("http://127.0.0.1:1/mcp")).rejects.toMatchObject({ message: says("may not be reached") });
  });
});
