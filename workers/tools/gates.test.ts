import { lstat, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../test/kit/until.ts";
import { canonical } from "./canonical.ts";
import { startTestbed, type Testbed } from "./testbed.ts";

let bed: Testbed;
let outside: string;

beforeAll(async () => {
  outside = await mkdtemp(join(tmpdir(), "beamline-outside-"));
  await writeFile(join(outside, "secret.txt"), "outside");
  bed = await startTestbed();
}, 60_000);
afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  await rm(outside, { recursive: true, force: true });
});

const at = (...names: string[]): string => join(bed.root, ...names);
const says = (text: string): unknown => expect.stringContaining(text);
const decide = (approval_id: string, approve: boolean): Promise<unknown> =>
  bed.caller.request(
    "beamline.tools.v1.approvals.decide",
    { approval_id, approve, by: "ann", note: "no" },
    { timeoutMs: 5_000 },
  );

describe("input", () => {
  test("an unknown tool is an error of the RPC, and the only one", async () => {
    await expect(bed.run("fs.nope")).rejects.toMatchObject({
      code: "not_found",
      message: says("Unknown tool: fs.nope"),
    });
    await expect(bed.rpc("get_tool", { name: "no.such" })).rejects.toMatchObject({
      code: "not_found",
      message: "Tool not found: no.such",
    });
    expect(await bed.rpc("list_tools", { namespace: "nowhere" })).toEqual({});
  });

  test("schema violations list each path, in the contract's words", async () => {
    expect((await bed.run("fs.read")).error).toBe("fs.read: missing required field 'path'");
    expect((await bed.run("process.kill", { pid: "x", signal: 1.5 })).error).toBe(
      "Invalid JSON input: /pid must be integer; /signal must be integer",
    );
    const reply = await bed.rpc("execute", { tool_name: "fs.read", agent_id: "task-agent", input_json: "not json" });
    expect(reply).toMatchObject({ error: "Invalid JSON input: not JSON" });
    expect(await bed.rpc("execute", { tool_name: "monitor.cpu", agent_id: "task-agent" })).toMatchObject({
      success: true,
    });
  });

  test("what is not configured is named", async () => {
    const mail = { to: "you@example.org", subject: "s", body: "b" };
    expect(await bed.run("email.send", mail)).toMatchObject({ success: false, error: says("BEAMLINE_TOOLS_SMTP") });
    expect(await bed.run("self.rebuild")).toMatchObject({ success: false, error: says("not allowed") });
  });

  test("a huge input is refused and changes nothing", async () => {
    const answer = await bed.run("fs.write", { path: at("huge"), content: "x".repeat(1_100_000) });
    expect(answer).toMatchObject({ success: false, error: says("larger than 1048576 bytes") });
    await expect(lstat(at("huge"))).rejects.toThrow("ENOENT");
  });
});

describe("paths", () => {
  test.each([
    ["../../etc/passwd", "outside the allowed roots"],
    ["/etc/passwd", "outside the allowed roots"],
    ["a\0b", "NUL byte"],
    ["", "fewer than 1 characters"],
  ])("%j is refused by every tool that takes a path", async (path, text) => {
    const inputs: [string, Record<string, unknown>][] = [
      ["fs.read", { path }],
      ["fs.stat", { path }],
      ["fs.list", { path }],
      ["fs.write", { path, content: "x" }],
      ["fs.delete", { path, recursive: true }],
      ["fs.mkdir", { path, recursive: true }],
      ["fs.chmod", { path, mode: "777" }],
      ["fs.chown", { path, uid: 0, gid: 0 }],
      ["fs.move", { source: path, destination: at("moved") }],
      ["fs.move", { source: at("x"), destination: path }],
      ["fs.copy", { source: path, destination: at("copied") }],
      ["fs.symlink", { target: "x", link: path }],
      ["fs.search", { directory: path, pattern: "*" }],
      ["git.status", { repo_path: path }],
      ["code.generate", { file_path: path, description: "" }],
      ["monitor.fs_watch", { path }],
    ];
    await writeFile(at("x"), "x");
    for (const [tool, input] of inputs)
      expect(await bed.run(tool, input), tool).toMatchObject({ success: false, error: says(text) });
    expect(await readFile("/etc/passwd", "utf8")).toContain("root");
  });

  test("links that lead out are followed by nobody, and tell nobody what is there", async () => {
    await symlink(outside, at("door"));
    await symlink(join(outside, "secret.txt"), at("peep"));
    for (const [tool, input] of [
      ["fs.read", { path: at("peep") }],
      ["fs.read", { path: at("door", "secret.txt") }],
      ["fs.write", { path: at("peep"), content: "owned" }],
      ["fs.write", { path: at("door", "new.txt"), content: "owned" }],
      ["fs.write", { path: at("door", "deep", "new.txt"), content: "owned" }],
      ["fs.mkdir", { path: at("door", "secret.txt") }],
      ["fs.mkdir", { path: at("door", "nothing") }],
      ["fs.mkdir", { path: at("door", "a", "b"), recursive: true }],
      ["fs.stat", { path: at("door", "nothing", "x") }],
      ["fs.delete", { path: at("door", "secret.txt") }],
      ["fs.copy", { source: at("door"), destination: at("copy") }],
      ["fs.chmod", { path: at("peep"), mode: "777" }],
      ["fs.symlink", { target: "x", link: at("door", "l") }],
      ["fs.list", { path: at("door") }],
    ] as const) {
      expect(await bed.run(tool, input), `${tool} ${JSON.stringify(input)}`).toMatchObject({
        success: false,
        error: expect.stringMatching(/outside the allowed roots|symbolic link/) as string,
      });
    }
    expect(await readFile(join(outside, "secret.txt"), "utf8")).toBe("outside");
    expect(await readdir(outside)).toEqual(["secret.txt"]);
  });

  test("a directory that keeps turning into a link never lets a write out", async () => {
    await mkdir(at("race"));
    let going = true;
    const swapping = (async () => {
      while (going) {
        await rm(at("race"), { recursive: true, force: true }).catch(() => undefined);
        await symlink(outside, at("race")).catch(() => undefined);
        await rm(at("race"), { force: true }).catch(() => undefined);
        await mkdir(at("race")).catch(() => undefined);
      }
    })();
    const writes = Array.from({ length: 150 }, (_, n) =>
      bed.run("fs.write", { path: at("race", `f${n}`), content: "owned" }),
    );
    const answers = await Promise.all(writes);
    going = false;
    await swapping;
    expect(answers.length).toBe(150);
    expect(await readdir(outside)).toEqual(["secret.txt"]);
  });
});

describe("capabilities", () => {
  test("unknown agents and missing capabilities are denied in the contract's words, and audited", async () => {
    expect(await bed.run("fs.delete", { path: at("x") }, { agent: "monitoring-agent" })).toMatchObject({
      success: false,
      error: 'Capability denied: missing ["fs_write", "fs_delete"]',
      execution_id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
    });
    expect(await bed.run("fs.read", { path: at("x") }, { agent: "task-1a2b3c4d" })).toMatchObject({
      error: 'Capability denied: missing ["fs_read"]',
    });
    expect(await bed.run("fs.read", { path: at("x") }, { agent: "" })).toMatchObject({ success: false });
    expect((await bed.ledger.query("default", { limit: 1, tool_name: "fs.delete" }))[0]).toMatchObject({
      success: false,
      agent_id: "monitoring-agent",
    });
  });

  test("grants count at once, below a path only, until they expire, are revoked or rolled back", async () => {
    await mkdir(at("granted"));
    const asked = { agent_id: "newcomer", capabilities: [`fs_write:${at("granted")}/*`, "fs.read"], duration_hours: 1 };
    const grant = await bed.run("sec.grant", asked);
    expect(grant.output).toMatchObject({ granted: asked.capabilities });
    const write = (path: string) => bed.run("fs.write", { path, content: "x" }, { agent: "newcomer" });
    expect(await write(at("granted", "a"))).toMatchObject({ success: true });
    expect(await write(at("elsewhere"))).toMatchObject({ error: 'Capability denied: missing ["fs_write"]' });
    expect(await write(at("granted", "..", "elsewhere"))).toMatchObject({ success: false });
    await symlink(bed.root, at("granted", "up"));
    expect(await write(at("granted", "up", "elsewhere"))).toMatchObject({
      error: 'Capability denied: missing ["fs_write"]',
    });
    expect(await bed.rpc("rollback", { execution_id: grant.execution_id })).toMatchObject({ success: true });
    expect(await write(at("granted", "b"))).toMatchObject({ success: false });
    await bed.run("sec.grant", { agent_id: "newcomer", capabilities: ["fs_write"], duration_hours: 1 / 3_600_000 });
    await until(async () => !(await write(at("granted", "c"))).success, "the grant to expire");
    await bed.run("sec.grant", { agent_id: "newcomer", capabilities: ["fs_*"] });
    expect(await write(at("granted", "d"))).toMatchObject({ success: true });
    expect((await bed.run("sec.revoke", { agent_id: "newcomer", revoke_all: true })).output).toMatchObject({
      revoked_count: 1,
    });
    expect(await write(at("granted", "e"))).toMatchObject({ success: false });
    expect(
      await bed.run(
        "sec.grant",
        { agent_id: "security-agent", capabilities: ["fs_write"] },
        { agent: "security-agent" },
      ),
    ).toMatchObject({
      success: false,
      error: says("cannot grant itself"),
    });
    expect(await write(at("granted", "f"))).toMatchObject({ success: false });
  });

  test("are granted, checked, listed and revoked over the bus, for whoever coordinates agents", async () => {
    const ask = (what: string, request: Record<string, unknown>): Promise<unknown> =>
      bed.caller.request(`beamline.tools.v1.capabilities.${what}`, request, { timeoutMs: 5_000 });
    const asked = { agent_id: "planner", capabilities: [`fs_read:${at()}/*`], reason: "planning", granted_by: "ann" };
    expect(await ask("grant", asked)).toMatchObject({ granted: true, denial_reason: "" });
    const check = { agent_id: "planner", capabilities: ["fs_read"] };
    expect(await ask("check", { ...check, paths: [at("x")] })).toEqual({ missing: [], known: true });
    expect(await ask("check", { ...check, paths: ["/etc/x"] })).toEqual({ missing: ["fs_read"], known: true });
    expect(JSON.stringify(await ask("list", { agent_id: "planner" }))).toContain("planning");
    expect(await bed.run("fs.list", { path: at("granted") }, { agent: "planner" })).toMatchObject({ success: true });
    expect(await ask("revoke", { agent_id: "planner" })).toEqual({ revoked: 0 });
    expect(await ask("revoke", { agent_id: "planner", revoke_all: true })).toEqual({ revoked: 1 });
    expect(await bed.run("fs.list", { path: at("granted") }, { agent: "planner" })).toMatchObject({ success: false });
    expect(await ask("grant", { ...asked, capabilities: ["no capability"] })).toMatchObject({ granted: false });
  });

  test("tenants see nothing of each other", async () => {
    await bed.run("sec.grant", { agent_id: "guest", capabilities: ["fs_read"] });
    expect(await bed.run("fs.read", { path: at("x") }, { agent: "guest", tenant: "other" })).toMatchObject({
      success: false,
    });
    const written = await bed.run("fs.write", { path: at("mine"), content: "x" }, { task: "t" });
    expect(await bed.rpc("rollback", { execution_id: written.execution_id }, { tenant: "other" })).toMatchObject({
      error: says("there is no execution"),
    });
    expect(await bed.ledger.verify("other")).toMatchObject({ ok: true, rows: 1 });
    expect((await bed.run("sec.audit_query", {}, { tenant: "other" })).output).toMatchObject({
      entries: [{ tool: "fs.read" }],
    });
  });
});

describe("exactly once", () => {
  test("a repeated key gets the first answer; with other arguments it is refused", async () => {
    await writeFile(at("count"), "");
    const first = await bed.run("fs.write", { path: at("keyed"), content: "1" }, { key: "k1" });
    await rm(at("keyed"));
    const again = await bed.run("fs.write", { path: at("keyed"), content: "1" }, { key: "k1" });
    expect(again).toEqual(first);
    await expect(lstat(at("keyed"))).rejects.toThrow("ENOENT");
    expect(await bed.run("fs.write", { path: at("keyed"), content: "2" }, { key: "k1" })).toMatchObject({
      success: false,
      error: says("used for another call"),
    });
    const at64 = await Promise.all(
      Array.from({ length: 8 }, () => bed.run("fs.mkdir", { path: at("one") }, { key: "k2" })),
    );
    expect(new Set(at64.map(({ execution_id }) => execution_id)).size).toBe(1);
    expect(at64.every(({ success }) => success)).toBe(true);
  });

  test("the last call of a task, repeated word for word, is not done twice", async () => {
    const input = { path: at("idem") };
    const first = await bed.run("fs.mkdir", input, { task: "idem" });
    expect(await bed.run("fs.mkdir", input, { task: "idem" })).toMatchObject({
      success: true,
      execution_id: first.execution_id,
    });
    await bed.run("fs.chmod", { path: at("idem"), mode: "700" }, { task: "idem" });
    expect(await bed.run("fs.mkdir", input, { task: "idem" })).toMatchObject({
      success: false,
      error: says("already exists"),
    });
  });
});

describe("limits and approvals", () => {
  test("rates are kept across workers; both buckets are charged", async () => {
    await using limited = await startTestbed(
      {
        BEAMLINE_TOOLS_AGENT_RATE: "0.001",
        BEAMLINE_TOOLS_AGENT_BURST: "5",
        BEAMLINE_TOOLS_TOOL_RATE: "0.001",
        BEAMLINE_TOOLS_TOOL_BURST: "8",
      },
      2,
    );
    const burst = async (agent: string, count: number) => {
      const answers = await Promise.all(
        Array.from({ length: count }, () => limited.run("fs.list", { path: limited.root }, { agent })),
      );
      expect(answers.filter(({ success }) => !success).every(({ error }) => error === "Rate limit exceeded")).toBe(
        true,
      );
      return answers.filter(({ success }) => success).length;
    };
    expect(await burst("task-agent", 10)).toBe(5);
    expect(await burst("storage-agent", 10)).toBe(0); // the ten before emptied the tool's bucket of eight
    expect((await limited.ledger.query("default", { limit: 100 })).length).toBe(20);
  });

  test("an approval is for one exact call, once, in time", async () => {
    await using strict = await startTestbed({ BEAMLINE_TOOLS_CONFIRM: "high", BEAMLINE_TOOLS_APPROVAL_MS: "1500" });
    const file = join(strict.root, "f");
    await writeFile(file, "x");
    const chmod = (mode: string, agent = "task-agent") => strict.run("fs.chmod", { path: file, mode }, { agent });
    const ask = async (mode: string): Promise<string> => {
      const { error } = await chmod(mode);
      expect(error).toMatch(/^Confirmation required: approval \S+ is pending/);
      return /approval (\S+) is pending/.exec(error)?.[1] ?? "";
    };
    const rule = (id: string, approve: boolean) =>
      strict.caller.request(
        "beamline.tools.v1.approvals.decide",
        { approval_id: id, approve, by: "ann", note: "no" },
        { timeoutMs: 5_000 },
      );
    const id = await ask("700");
    expect((await lstat(file)).mode & 0o777).not.toBe(0o700);
    await rule(id, true);
    expect((await chmod("701")).error).toMatch(/Confirmation required/); // other arguments
    expect((await chmod("700", "storage-agent")).error).toMatch(/Confirmation required/); // another agent
    expect(await chmod("700")).toMatchObject({ success: true });
    expect((await chmod("700")).error).toMatch(/was already used/); // replayed
    const denied = await ask("755");
    await rule(denied, false);
    expect((await chmod("755")).error).toMatch(/Confirmation denied: approval \S+ \(no\)/);
    const late = await ask("644");
    await until(async () => (await chmod("644")).error.includes("(timeout)"), "the approval to time out");
    await expect(rule(late, true)).rejects.toMatchObject({ code: "failed_precondition" });
    const rows = await strict.ledger.query("default", { limit: 100 });
    expect(rows.some(({ reason, success }) => !success && reason.includes("nobody decided in time"))).toBe(true);
    expect((await strict.ledger.verify("default")).ok).toBe(true);
  });

  test("an approval nobody comes back for is a recorded denial, too", async () => {
    await using strict = await startTestbed({ BEAMLINE_TOOLS_CONFIRM: "high", BEAMLINE_TOOLS_APPROVAL_MS: "1000" });
    const asked = await strict.run("fs.chmod", { path: strict.root, mode: "700" });
    const id = /approval (\S+) is pending/.exec(asked.error)?.[1] ?? "";
    const { approvals } = (await strict.caller.request(
      "beamline.tools.v1.approvals.list",
      {},
      { timeoutMs: 5_000 },
    )) as { approvals: { approval_id: string; expires_at: number }[] };
    const expiry = approvals.find(({ approval_id }) => approval_id === id)?.expires_at ?? Infinity;
    await until(() => Date.now() > expiry, "the approval's time to be over");
    await strict.startWorker(); // whichever worker looks next
    const denial = await until(async () =>
      (await strict.ledger.query("default", { limit: 20 })).find(({ approval_id }) => approval_id === id),
    );
    expect(denial).toMatchObject({ success: false, tool_name: "fs.chmod", reason: says("nobody decided in time") });
  });

  test("what was registered and granted outlives every worker", async () => {
    await using lasting = await startTestbed({}, 0);
    const first = await lasting.startWorker();
    const tool = { name: "custom.lasting", description: "stays" };
    const handler_address = "nats:beamline.ext.tools.lasting";
    expect(await lasting.rpc("register", { tool, handler_address })).toEqual({ accepted: true });
    await lasting.run("sec.grant", { agent_id: "newcomer", capabilities: ["fs_read"] });
    const path = join(lasting.root, "f");
    const written = await lasting.run("fs.write", { path, content: "x" });
    await first.close();
    await lasting.startWorker();
    expect(await lasting.rpc("get_tool", { name: "custom.lasting" })).toMatchObject({ description: "stays" });
    expect(await lasting.run("fs.read", { path }, { agent: "newcomer" })).toMatchObject({ success: true });
    expect(await lasting.rpc("rollback", { execution_id: written.execution_id })).toMatchObject({ success: true });
    await expect(lstat(path)).rejects.toThrow("ENOENT");
  });

  test("decisions about what is not there are refused", async () => {
    await expect(decide("nope", true)).rejects.toMatchObject({ code: "not_found" });
  });

  test("a stuck tool is stopped and reported; others go on meanwhile", async () => {
    await bed.run("plugin.create", {
      name: "stuck",
      description: "",
      code: "import time\ndef main(d):\n    time.sleep(60)\n",
    });
    const stuck = bed.run("plugin.stuck", {}, { timeoutMs: 3_000 });
    expect(await bed.run("fs.stat", { path: bed.root })).toMatchObject({ success: true });
    expect(await stuck).toMatchObject({ success: false, error: says("timed out after") });
    await until(
      async () => (await bed.ledger.query("default", { limit: 1, tool_name: "plugin.stuck" })).length === 1,
      "the stuck call to be audited",
    );
    const processes = await bed.run("process.list");
    expect(JSON.stringify(processes.output)).not.toContain("plugins/default/stuck.py");
  });
});

test("the canonical form has one spelling", () => {
  expect(canonical({ b: [1, { d: undefined, c: "ü" }], a: null })).toBe('{"a":null,"b":[1,{"c":"ü"}]}');
});
