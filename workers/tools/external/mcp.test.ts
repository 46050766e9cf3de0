/** Connections to MCP servers, against a program that answers by hand. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createEgress, type Egress } from "../../../runtime/egress.ts";
import { until } from "../../../test/kit/until.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import type { Registered } from "../registry.ts";
import { Programs } from "../sandbox/run.ts";
import type { Call, Json } from "../tool.ts";
import { McpServers } from "./mcp.ts";

/** `refuse` is answered with an error of the protocol, `break` like a lost connection; `slow` is answered when `go` is called; what is told to end lingers. */
const SERVER = `
let slow;
const answer = (id, more) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...more }) + "\\n");
const text = (id, text) => answer(id, { result: { content: [{ type: "text", text }] } });
const tools = {
  pid: (id) => text(id, String(process.pid)),
  slow: (id) => (slow = id),
  go: (id) => { text(slow, "at last"); text(id, "gone"); },
  refuse: (id) => answer(id, { error: { code: -32602, message: "no such thing" } }),
  break: (id) => answer(id, { error: { code: -32000, message: "broken" } }),
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (method === "initialize")
    answer(id, { result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "s", version: "1" } } });
  else if (method === "tools/call") tools[params.name](id);
});
setInterval(() => undefined, 1000);
`;

let directory: string;
let egress: Egress;
let servers: McpServers;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "beamline-mcp-"));
  const script = join(directory, "server.cjs");
  await writeFile(script, SERVER);
  egress = createEgress();
  servers = new McpServers({
    egress,
    programs: new Programs(process.env, directory),
    servers: { mine: { command: process.execPath, args: [script] } },
    version: "1",
  });
});
afterAll(async () => {
  await servers?.close();
  await egress?.close();
  await rm(directory, { recursive: true, force: true });
});

async function call(tool: string): Promise<string> {
  const registered = { handler_address: `mcp:mine/${tool}` } as Registered;
  const answer: Json = await servers.call(registered, {}, { signal: new AbortController().signal } as Call);
  return String(answer["text"]);
}

verifies(
  "crash-safe",
  "tools: a call that an MCP server refuses ends no other call of the same connection",
  async () => {
    const slow = call("slow");
    slow.catch(() => undefined); // awaited below
    await expect(call("refuse")).rejects.toThrow("no such thing");
    expect(await call("go")).toBe("gone");
    expect(await slow).toBe("at last");
  },
);

test("a connection that broke takes the one that was made in its place with it neither at once nor when it ends", async () => {
  const first = await call("pid");
  const broken = expect(call("break")).rejects.toThrow("broken");
  const second = await until(async () => {
    const now = await call("pid");
    return now !== first && now;
  }, "another connection");
  await broken; // the first program has ended
  expect(await call("pid")).toBe(second);
});
