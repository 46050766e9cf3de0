import { join } from "node:path";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ToolRegistryDefinition } from "../../contracts/gen/aios/tools.ts";
import { grpcClient } from "../../test/kit/grpc.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { startWorld, type World } from "../../test/kit/world.ts";
import type { Json } from "./tool.ts";

let world: World;
let root: string;
let tools: ReturnType<typeof grpcClient<typeof ToolRegistryDefinition>>;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "beamline-contract-"));
  world = await startWorld({
    workers: ["tools"],
    syncInterval: "10s",
    env: { BEAMLINE_TOOLS_ROOTS: root, BEAMLINE_TOOLS_AGENT_RATE: "0", BEAMLINE_TOOLS_TOOL_RATE: "0" },
  });
  tools = grpcClient(ToolRegistryDefinition, world.grpc);
}, 60_000);
afterAll(async () => {
  tools[Symbol.dispose]();
  await world[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

const execute = (tool_name: string, input: Json, metadata: Record<string, string> = {}) =>
  tools.call(
    "execute",
    {
      tool_name,
      agent_id: "task-agent",
      task_id: "t1",
      input_json: Buffer.from(JSON.stringify(input)),
      reason: "contract",
    },
    { metadata },
  );
const says = (text: string): unknown => expect.stringContaining(text);

test("the six RPCs over gRPC, as existing clients use them", async () => {
  const { tools: all } = await tools.call("listTools", {});
  expect(all.length).toBe(88);
  expect(all.map(({ name }) => name)).toEqual(all.map(({ name }) => name).sort());
  expect((await tools.call("listTools", { namespace: "fs" })).tools.length).toBe(13);
  expect((await tools.call("listTools", { namespace: "FS" })).tools).toEqual([]);
  expect(await tools.call("getTool", { name: "fs.chown" })).toMatchObject({
    namespace: "fs",
    version: "1.0.0",
    required_capabilities: ["fs.admin"],
    risk_level: "critical",
    requires_confirmation: true,
    idempotent: true,
    reversible: true,
    timeout_ms: 5_000,
  });
  await expect(tools.call("getTool", { name: "fs.nope" })).rejects.toMatchObject({
    code: status.NOT_FOUND,
    details: says("Tool not found: fs.nope"),
  });
  await expect(execute("fs.nope", {})).rejects.toMatchObject({ code: status.NOT_FOUND });
  await expect(tools.call("register", { handler_address: "x:1" })).rejects.toMatchObject({
    code: status.INVALID_ARGUMENT,
  });
  expect(await tools.call("register", { tool: { name: "custom.x" }, handler_address: "127.0.0.1:9" })).toMatchObject({
    accepted: false,
    error: says("loopback"),
  });
  expect(await tools.call("deregister", { tool_name: "custom.x" })).toMatchObject({ success: false });
  const path = join(root, "a.txt");
  const written = await execute("fs.write", { path, content: "x" });
  expect(written).toMatchObject({ success: true, error: "" });
  expect(typeof written.duration_ms).toBe("bigint");
  expect(written.execution_id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(await tools.call("rollback", { execution_id: written.execution_id, reason: "undo" })).toEqual({
    success: true,
    error: "",
  });
  const again = await tools.call("rollback", { execution_id: written.execution_id, reason: "undo" });
  expect(again).toMatchObject({ success: false, error: says("rolled back before") });
});

verifies("effect-once", "a key in the metadata makes a tool call happen once, however the key is spelt", async () => {
  for (const name of ["idempotency-key", "idempotency_key"]) {
    const path = join(root, name);
    const first = await execute("fs.mkdir", { path }, { [name]: name });
    const second = await execute("fs.mkdir", { path }, { [name]: name });
    expect(second).toEqual(first);
    expect(first.success).toBe(true);
  }
});

verifies("clear-failure", "what a tool cannot do travels in the answer, and names the field", async () => {
  expect(await execute("fs.read", { path: 5 })).toMatchObject({
    success: false,
    error: "fs.read: /path must be string",
    output_json: Buffer.alloc(0),
  });
  expect(await execute("fs.read", { path: "/etc/shadow" })).toMatchObject({
    success: false,
    error: says("outside the allowed roots"),
  });
});

test("many at once, all answered and audited", async () => {
  const path = join(root, "many");
  await writeFile(path, "x");
  const answers = await Promise.all(Array.from({ length: 2_000 }, () => execute("fs.stat", { path })));
  expect(answers.every(({ success }) => success)).toBe(true);
  const { output_json } = await execute("sec.audit", { tool_name: "fs.stat", limit: 1_000 });
  expect(JSON.parse(output_json.toString())).toMatchObject({ total: 1_000 });
});
