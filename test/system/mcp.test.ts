/** The tool registry as an MCP server on the edge's HTTP listener, called by the official client. */
import { request } from "node:http";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startWorld, type World } from "../kit/world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({ workers: ["tools"], syncInterval: "1m" });
});
afterAll(() => world?.[Symbol.asyncDispose]());

test("tools are listed with their schemas, and called", async () => {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(`http://${world.http}/mcp`)));
  const { tools } = await client.listTools();
  expect(tools.length).toBeGreaterThan(80);
  expect(tools.find((tool) => tool.name === "fs.stat")?.inputSchema).toMatchObject({
    type: "object",
    required: ["path"],
  });
  const cpu = await client.callTool({ name: "monitor.cpu", arguments: {} });
  expect(cpu.isError).not.toBe(true);
  expect(await client.callTool({ name: "fs.read", arguments: {} })).toMatchObject({ isError: true });
  await client.close();
});

test("a registered tool whose schema the protocol cannot carry as it stands hides no other, and can be called", async () => {
  const register = (name: string, schema: unknown): Promise<unknown> =>
    world.caller.request(
      "aios.tools.v1.register",
      { tool: { name, input_schema: JSON.stringify(schema) }, handler_address: "nats:beamline.ext.tools.odd" },
      { timeoutMs: 10_000 },
    );
  const schemas: Record<string, unknown> = {
    "odd.booleans": { type: "object", properties: { any: true, none: false }, required: ["any"] },
    "odd.nullable": { type: ["object", "null"], properties: { text: { type: "string" } } },
    "odd.all": true,
  };
  for (const [name, schema] of Object.entries(schemas))
    expect(await register(name, schema)).toEqual({ accepted: true });
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(`http://${world.http}/mcp`)));
  const { tools } = await client.listTools();
  const listed = Object.fromEntries(tools.map(({ name, inputSchema }) => [name, inputSchema]));
  expect(listed["fs.stat"]).toBeDefined();
  expect(listed).toMatchObject({
    "odd.booleans": { type: "object", properties: { any: {}, none: { not: {} } }, required: ["any"] },
    "odd.nullable": { type: "object", properties: { text: { type: "string" } } },
    "odd.all": { type: "object" },
  });
  const call = await client.callTool({ name: "odd.booleans", arguments: { any: 1 } });
  expect(call).toMatchObject({
    isError: true,
    content: [{ text: expect.stringContaining("no tool handler") as string }],
  });
  await client.close();
});

test("a page of another origin is refused", async () => {
  for (const path of ["mcp", "api/v1/routes/decide"]) {
    const response = await fetch(`http://${world.http}/${path}`, {
      method: "POST",
      headers: { origin: "http://evil.example", "content-type": "application/json" },
      body: "{}",
    });
    expect([path, response.status]).toEqual([path, 403]);
  }
});

test("a page whose name was made to lead here is refused, one that is served from here is not", async () => {
  const { hostname, port } = new URL(`http://${world.http}`);
  const asked = (name: string, path: string, body: object): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const host = `${name}:${port}`;
      const headers = {
        host,
        origin: `http://${host}`,
        accept: "application/json, text/event-stream",
        "content-type": "application/json",
      };
      request({ hostname, port, path, method: "POST", headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end(JSON.stringify(body));
    });
  const names = ["rebound.example", "127.0.0.1.example", "localhost", "127.0.0.1"];
  const statuses = (path: string, body: object): Promise<(number | undefined)[]> =>
    Promise.all(names.map((name) => asked(name, path, body)));
  expect(await statuses("/mcp", { jsonrpc: "2.0", id: 1, method: "ping" })).toEqual([403, 403, 200, 200]);
  // What is wrong with the request itself is told to those who may ask.
  expect(await statuses("/api/v1/routes/decide", {})).toEqual([403, 403, 400, 400]);
});
