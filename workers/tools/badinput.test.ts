/** Every kind of bad input, over the bus; each with a look at the host, which a refused call never changes. */
import { chmod, lstat, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, beforeAll, afterEach, expect, test } from "vitest";
import { fingerprint } from "./files/tree.ts";
import { startTestbed, type Testbed } from "./testbed.ts";
import type { Json } from "./tool.ts";

let bed: Testbed;
let outside: string;
let before: string;

beforeAll(async () => {
  bed = await startTestbed({ BEAMLINE_TOOLS_APPROVAL_MS: "60000" });
  outside = await mkdtemp(join(tmpdir(), "beamline-outside-"));
  await writeFile(join(outside, "secret.txt"), "outside");
  await writeFile(at("kept"), "kept", { mode: 0o640 });
}, 60_000);
afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  await rm(outside, { recursive: true, force: true });
});

const at = (...names: string[]): string => join(bed.root, ...names);
const says = (text: string): unknown => expect.stringContaining(text);
const host = async (): Promise<string> => `${await fingerprint(bed.root)} ${await fingerprint(outside)}`;

// Whatever a test sends, the host is as it was.
beforeEach(async () => void (before = await host()));
afterEach(async () => expect(await host()).toBe(before));

const refused = async (tool: string, input: Json, text: string): Promise<void> => {
  const answer = await bed.run(tool, input);
  expect(answer, `${tool} ${JSON.stringify(input).slice(0, 200)}`).toMatchObject({
    success: false,
    output: {},
    error: says(text),
  });
  expect(answer.execution_id).not.toBe("");
};

test("names no store could keep are refused in the answer, and audited with everyone else's calls", async () => {
  const input = { path: at("kept") };
  const large = "\u0001".repeat(1_000_000); // six bytes each where it is kept: two are more than the bus takes
  const calls = [
    bed.run("fs.stat", input, { agent: "x".repeat(5_000) }),
    bed.run("fs.stat", input, { agent: "字".repeat(200) }),
    bed.run("fs.stat", input, { task: large }),
    bed.run("fs.stat", input, { task: large }),
    bed.run("fs.stat", input, { task: "beside" }),
  ];
  expect(await Promise.all(calls)).toMatchObject([
    { success: false, error: "agent_id is longer than 256 bytes" },
    { success: false, error: "agent_id is longer than 256 bytes" },
    { success: false, error: "task_id is longer than 1024 bytes" },
    { success: false, error: "task_id is longer than 1024 bytes" },
    { success: true },
  ]);
  const audited = new Set((await bed.ledger.query("default", { limit: 20 })).map(({ execution_id }) => execution_id));
  for (const call of calls) expect(audited).toContain((await call).execution_id);
});

test.each([
  "../x",
  "a/../../x",
  "/etc/passwd",
  "//etc/passwd",
  "/proc/self/root/etc/passwd",
  "~/../../etc/passwd\u0000",
])("path traversal: %j", async (path) => {
  const text = path.includes("\0") ? "NUL byte" : "outside the allowed roots";
  await refused("fs.write", { path, content: "owned" }, text);
  await refused("fs.delete", { path, recursive: true }, text);
  await refused("fs.move", { source: at("kept"), destination: path }, text);
  await refused("fs.copy", { source: path, destination: at("copied") }, text);
  await refused("web.download", { url: "http://192.0.2.1/", destination: path }, text);
  await refused("sec.cert_generate", { service_name: "x", cert_dir: `${path}/certs` }, text);
});

test.each([
  ["fs.write", { path: "a\0b", content: "x" }],
  ["fs.symlink", { target: "a\0b", link: "l" }],
  ["process.spawn", { command: "tou\0ch", args: [] }],
  ["process.spawn", { command: "touch", args: ["a\0b"] }],
  ["process.spawn", { command: "touch", args: ["a"], env: { A: "b\0c" } }],
  ["git.clone", { url: "/a\0b", destination: "c" }],
  ["net.dns", { hostname: "local\0host" }],
  ["fs.disk_usage", { path: "/\0" }],
  ["sec.check_perms", { path: "/etc\0" }],
])("a NUL byte: %s %j", async (tool, input) => {
  const { success, error } = await bed.run(tool, input);
  expect(success).toBe(false);
  expect(error).not.toContain("internal error");
});

test("huge, deep and broken inputs", async () => {
  await refused("fs.write", { path: at("huge"), content: "x".repeat(1_100_000) }, "larger than 1048576 bytes");
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  for (const [text, error] of [
    [`{"template":"file_processor","config":{"name":"deep","x":${deep}}}`, "nested deeper than 128 levels"],
    [`{"path":${deep},"content":""}`, "nested deeper than 128 levels"],
    ['{"path":', "not JSON"],
    ["[]", "must be an object"],
    ["null", "must be an object"],
    ['"text"', "must be an object"],
  ] as const) {
    const tool_name = text.includes("template") ? "plugin.from_template" : "fs.write";
    const reply = await bed.rpc("execute", { tool_name, agent_id: "task-agent", input_json: text });
    expect(reply, text.slice(0, 80)).toMatchObject({ error: says(error) });
    expect(reply["success"] ?? false).toBe(false);
  }
});

test("a schema's violations, each by its path", async () => {
  const { error } = await bed.run("container.create", {
    image: "-x",
    ports: ["80", "; rm"],
    env: { A: 1 },
  });
  for (const place of ["/image", "/ports/1", "/env/A"]) expect(error).toContain(place);
  await refused("fs.write", { path: at("kept") }, "fs.write: missing required field 'content'");
  await refused("fs.write", { path: at("kept"), content: 5 }, "/content must be string");
});

test("an unknown tool is an error of the RPC, and nothing is recorded for it", async () => {
  const rows = (await bed.ledger.query("default", { limit: 1_000 })).length;
  for (const name of ["fs.nope", "", "fs", "FS.WRITE", "fs.write ", "__proto__", "constructor", "x".repeat(10_000)]) {
    await expect(bed.run(name, { path: at("kept"), content: "x" }), name.slice(0, 20)).rejects.toMatchObject({
      code: "not_found",
    });
  }
  expect((await bed.ledger.query("default", { limit: 1_000 })).length).toBe(rows);
});

test("the wrong agent", async () => {
  for (const agent of ["monitoring-agent", "stranger", "", "Task-Agent", "task-agent ", "__proto__", "toString"]) {
    expect(await bed.run("fs.write", { path: at("kept"), content: "x" }, { agent }), agent).toMatchObject({
      success: false,
      error: says("Capability denied: missing"),
    });
  }
});

test("an expired grant", async () => {
  await bed.run("sec.grant", { agent_id: "late", capabilities: ["fs_write"], duration_hours: 1 / 3_600_000_000 });
  expect(await bed.run("fs.write", { path: at("kept"), content: "x" }, { agent: "late" })).toMatchObject({
    success: false,
    error: 'Capability denied: missing ["fs_write"]',
  });
});

test("a replayed approval", async () => {
  await using strict = await startTestbed({ BEAMLINE_TOOLS_CONFIRM: "high" });
  const path = join(strict.root, "f");
  await writeFile(path, "x", { mode: 0o600 });
  const call = () => strict.run("fs.chmod", { path, mode: "700" });
  const id = /approval (\S+) is pending/.exec((await call()).error)?.[1];
  const decide = () =>
    strict.caller.request(
      "beamline.tools.v1.approvals.decide",
      { approval_id: id, approve: true, by: "ann" },
      { timeoutMs: 5_000 },
    );
  await decide();
  const answers = await Promise.all(Array.from({ length: 8 }, call));
  expect(answers.filter(({ success }) => success).length).toBe(1);
  await chmod(path, 0o600);
  // Of the seven some came second, and some found the approval used and asked for another: so does this one, or it finds that one.
  const again = await call();
  expect(again.success).toBe(false);
  const asked = /approval (\S+) is pending/.exec(again.error)?.[1];
  expect([id, undefined]).not.toContain(asked);
  for (const { success, error } of answers.filter((one) => !one.success))
    expect([success, error]).toEqual([false, expect.stringMatching(/was already used|is pending/)]);
  await expect(decide()).rejects.toMatchObject({
    code: expect.stringMatching(/failed_precondition|not_found/) as string,
  });
  expect((await lstat(path)).mode & 0o777).toBe(0o600);
});

test("rolled back twice", async () => {
  const written = await bed.run("fs.write", { path: at("twice"), content: "tool" });
  expect(await bed.rpc("rollback", { execution_id: written.execution_id })).toMatchObject({ success: true });
  await writeFile(at("twice"), "tool");
  for (const reason of ["again", "force: again"])
    expect(await bed.rpc("rollback", { execution_id: written.execution_id, reason })).toMatchObject({
      error: says("rolled back before"),
    });
  expect(await readFile(at("twice"), "utf8")).toBe("tool");
  await rm(at("twice"));
});

test.each([
  "127.0.0.1:9",
  "127.1:9",
  "2130706433:9",
  "0x7f.1:9",
  "[::1]:9",
  "[::ffff:127.0.0.1]:9",
  "[::]:9",
  "0.0.0.0:9",
  "localhost:9",
  "http://localhost:9",
  "169.254.169.254:80",
  "http://169.254.169.254",
  "[fd00:ec2::254]:80",
  "[fe80::1]:80",
  "10.0.0.1:50052",
  "192.168.1.1:50052",
  "172.16.0.1:50052",
  "100.64.0.1:50052",
])("a handler at %s", async (handler_address) => {
  const answer = await bed.rpc("register", { tool: { name: "custom.inside" }, handler_address });
  expect(answer["accepted"] ?? false).toBe(false);
  expect(answer["error"]).toMatch(/may not be reached|handler_address/);
  await expect(bed.run("custom.inside")).rejects.toMatchObject({ code: "not_found" });
});

test("a handler that may no longer be reached when it is called", async () => {
  await using two = await startTestbed({ BEAMLINE_TOOLS_EGRESS_ALLOW: "127.0.0.1:9" }, 0);
  const lenient = await two.startWorker();
  const registered = { tool: { name: "custom.once" }, handler_address: "127.0.0.1:9" };
  expect(await two.rpc("register", registered)).toEqual({ accepted: true });
  await lenient.close();
  await two.startWorker({ BEAMLINE_TOOLS_EGRESS_ALLOW: "" });
  expect(await two.run("custom.once")).toMatchObject({ success: false, error: says("may not be reached") });
});

test("handlers whose output violates its schema, is too deep, or never comes", async () => {
  const handler = await bed.nats.connect("handler", "publisher");
  let output = "";
  handler.nc.subscribe("beamline.ext.tools.odd", {
    callback: (_error, message) => {
      if (output !== "") message.respond(JSON.stringify({ success: true, output_json: output }));
    },
  });
  await handler.flush();
  const tool = { name: "bad.odd", output_schema: '{"type":"object","required":["echo"]}', timeout_ms: 2_000 };
  expect(await bed.rpc("register", { tool, handler_address: "nats:beamline.ext.tools.odd" })).toEqual({
    accepted: true,
  });
  for (const [sent, text] of [
    ['{"wrong":1}', "does not match its schema"],
    ["[1]", "does not match its schema"],
    ["no json", "JSON"],
    [`{"echo":${"[".repeat(50_000)}${"]".repeat(50_000)}}`, "nested deeper than 128 levels"],
    ["", "timed out after 2000 ms"],
  ] as const) {
    output = sent;
    await refused("bad.odd", {}, text);
  }
});

test("links that lead out, swapped or not, are in gates.test.ts and fence.test.ts; here: one put there at the last moment", async () => {
  await symlink(outside, at("door"));
  for (const [tool, input] of [
    ["fs.write", { path: at("door", "new"), content: "owned" }],
    ["fs.write", { path: at("door", "deep", "new"), content: "owned" }],
    ["fs.delete", { path: at("door", "secret.txt") }],
    ["code.scaffold", { name: "demo", path: at("door", "demo") }],
    ["git.init", { path: at("door", "repo") }],
    ["sec.cert_generate", { service_name: "x", cert_dir: at("door", "certs") }],
  ] as const)
    await refused(tool, input, "outside the allowed roots");
  await rm(at("door"));
});
