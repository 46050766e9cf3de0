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

test("the contract's cases of Execute, Rollback, Register and Deregister, each with the RPC OK", async () => {
  const as = (agent_id: string, tool_name: string, input: string) =>
    tools.call("execute", { tool_name, agent_id, task_id: "", input_json: Buffer.from(input), reason: "" });
  const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  // 1.2: empty input where nothing is mandatory, and where something is.
  expect(await as("task-agent", "monitor.memory", "")).toMatchObject({ success: true, backup_id: "" });
  expect(await as("task-agent", "fs.read", "")).toMatchObject({ error: "fs.read: missing required field 'path'" });
  expect(await as("task-agent", "fs.read", "{")).toMatchObject({ error: "Invalid JSON input: not JSON" });
  // 1.2, 1.4: capabilities; the execution has an id all the same.
  const denied = await as("monitoring-agent", "fs.delete", '{"path":"x"}');
  expect(denied).toMatchObject({ success: false, error: 'Capability denied: missing ["fs_write", "fs_delete"]' });
  expect(denied.execution_id).toMatch(uuid);
  expect(denied.output_json.length).toBe(0);
  expect((await as("task-7", "fs.read", '{"path":"x"}')).error).toBe('Capability denied: missing ["fs_read"]');
  // 1.2: a reversible tool has a backup id, even when it fails.
  const failed = await execute("fs.write", { path: root, content: "x" });
  expect(failed).toMatchObject({ success: false, error: says("fs.write") });
  expect(failed.backup_id).toMatch(uuid);
  expect((await execute("fs.stat", { path: root })).backup_id).toBe("");
  // 1.3
  expect(await tools.call("rollback", { execution_id: "nope", reason: "" })).toMatchObject({
    success: false,
    error: says("there is no execution nope"),
  });
  expect(await tools.call("rollback", { execution_id: failed.execution_id, reason: "" })).toMatchObject({
    success: false,
    error: says("could be rolled back"),
  });
  // 1.1
  const own = { name: "custom.own", namespace: "custom", description: "mine" };
  const address = "nats:beamline.ext.tools.own";
  for (const [tool, handler_address, text] of [
    [{ ...own, name: "" }, address, "tool.name"],
    [{ ...own, namespace: "other" }, address, "tool.namespace"],
    [{ ...own, name: "fs.read", namespace: "fs" }, address, "built in"],
    [{ ...own, input_schema: Buffer.from("{") }, address, "tool.input_schema"],
    [own, "", "handler_address"],
  ] as const)
    expect(await tools.call("register", { tool, handler_address })).toMatchObject({
      accepted: false,
      error: says(text),
    });
  expect(await tools.call("register", { tool: own, handler_address: address })).toEqual({ accepted: true, error: "" });
  expect((await tools.call("listTools", { namespace: "custom" })).tools).toMatchObject([{ name: "custom.own" }]);
  expect(await as("task-agent", "custom.own", "{}")).toMatchObject({ success: false, error: says("no tool handler") });
  expect(await as("stranger", "custom.own", "{}")).toMatchObject({ error: "Capability denied: missing []" });
  expect(await tools.call("deregister", { tool_name: "custom.own" })).toEqual({
    success: true,
    message: "Tool custom.own deregistered",
  });
  expect(await tools.call("deregister", { tool_name: "fs.read" })).toMatchObject({
    success: false,
    message: says("built in"),
  });
  expect(await tools.call("getTool", { name: "fs.read" })).toMatchObject({ name: "fs.read" });
  // 1.5: the fields existing agents read.
  const read = async (name: string, input: Json = {}): Promise<Json> =>
    JSON.parse((await execute(name, input)).output_json.toString()) as Json;
  const [cpu, memory, disk] = [await read("monitor.cpu"), await read("monitor.memory"), await read("monitor.disk")];
  expect(cpu["cpu_percent"]).toBe(cpu["percent"]);
  expect(memory["used_percent"]).toBe(memory["percent"]);
  expect(disk["used_percent"]).toBe(disk["percent"]);
  expect((await read("net.dns", { host: "localhost" }))["addresses"]).not.toEqual([]);
});

test("a message larger than the listener takes is refused, and nothing is run", async () => {
  const path = join(root, "too-large");
  await expect(execute("fs.write", { path, content: "x".repeat(20 * 1024 * 1024) })).rejects.toMatchObject({
    code: status.RESOURCE_EXHAUSTED,
  });
  expect(await execute("fs.stat", { path })).toMatchObject({ success: false });
});

test("many at once, all answered and audited", async () => {
  const path = join(root, "many");
  await writeFile(path, "x");
  const answers = await Promise.all(Array.from({ length: 2_000 }, () => execute("fs.stat", { path })));
  expect(answers.every(({ success }) => success)).toBe(true);
  const { output_json } = await execute("sec.audit", { tool_name: "fs.stat", limit: 1_000 });
  expect(JSON.parse(output_json.toString())).toMatchObject({ total: 1_000 });
});
