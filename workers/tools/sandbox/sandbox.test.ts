/** What plugins and spawned programs get of this machine, and what secrets leave behind. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../../test/kit/until.ts";
import { riskOf, TOO_RISKY } from "../plugins/pluginrisk.ts";
import { Programs } from "./run.ts";
import { startTestbed, type Answer, type Testbed } from "../testbed.ts";
import type { Json } from "../tool.ts";

const SECRET = "hunter2-and-more";

let bed: Testbed;
let echo: Server;
let base: string;
let directory: string;

beforeAll(async () => {
  echo = createServer((request, response) => response.end(JSON.stringify(request.headers)));
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  const { port } = echo.address() as AddressInfo;
  base = `http://127.0.0.1:${port}`;
  directory = await mkdtemp(join(tmpdir(), "beamline-secrets-"));
  const secrets = join(directory, "secrets.toml");
  await writeFile(secrets, `[keys]\nservice = "${SECRET}"\n`, { mode: 0o600 });
  bed = await startTestbed({
    BEAMLINE_TOOLS_EGRESS_ALLOW: `127.0.0.1:${port}`,
    BEAMLINE_TOOLS_SECRETS: secrets,
    BEAMLINE_TOOLS_SANDBOX_MEMORY_MB: "200",
    BEAMLINE_TOOLS_SANDBOX_FILES: "32",
    BEAMLINE_TOOLS_SANDBOX_PROCESSES: "4000",
    BEAMLINE_TOOLS_SANDBOX_SECONDS: "1",
  });
  process.env["BEAMLINE_TEST_LEAK"] = "leaked";
}, 60_000);
afterAll(async () => {
  delete process.env["BEAMLINE_TEST_LEAK"];
  await bed[Symbol.asyncDispose]();
  echo.closeAllConnections();
  echo.close();
  await rm(directory, { recursive: true, force: true });
});

const says = (text: string): unknown => expect.stringContaining(text);

async function plugin(name: string, body: string, more: Json = {}): Promise<void> {
  const code = `def main(data):\n${body.replaceAll(/^/gm, "    ")}\n`;
  const made = await bed.run("plugin.create", { name, description: name, code, ...more });
  expect(made.error).toBe("");
}

test("a plugin sees a cleared environment and has limits of memory, files, processes and processor time", async () => {
  const body = [
    "import resource, os",
    "names = ['AS', 'NOFILE', 'NPROC', 'CPU', 'CORE']",
    "return {'limits': {n: list(resource.getrlimit(getattr(resource, 'RLIMIT_' + n))) for n in names}, 'env': dict(os.environ)}",
  ].join("\n");
  await plugin("look", body);
  const { output } = await bed.run("plugin.look");
  const twice = (n: number): number[] => [n, n];
  expect(output["limits"]).toEqual({
    AS: twice(200 * 1024 * 1024),
    NOFILE: twice(32),
    NPROC: twice(4_000),
    CPU: twice(1),
    CORE: twice(0),
  });
  const env = output["env"] as Record<string, string>;
  const allowed = /^(PATH|HOME|LANG|LC_ALL|LC_CTYPE|PYTHONPATH|PYTHONIOENCODING|PWD|_|SHLVL)$/;
  // A python3 that is a wrapper of its own (pyenv) adds names of its own.
  const strange = Object.keys(env).filter((name) => !allowed.test(name) && !name.startsWith("PYENV_"));
  expect(strange).toEqual([]);
  expect(JSON.stringify(env)).not.toContain("leaked");
});

test("one that uses up its processor time, writes without end or opens too many files is stopped and reported", async () => {
  await plugin("spin", "while True:\n    pass");
  expect(await bed.run("plugin.spin")).toMatchObject({ success: false, error: says("plugin.spin failed") });
  await plugin("flood", "while True:\n    print('x' * 1000000)");
  expect(await bed.run("plugin.flood", {}, { timeoutMs: 20_000 })).toMatchObject({ success: false });
  await plugin("files", "held = [open('/dev/null') for _ in range(100)]\nreturn {'n': len(held)}");
  expect(await bed.run("plugin.files")).toMatchObject({ success: false, error: says("Too many open files") });
});

test("a spawned program has the same limits and nothing of our environment", async () => {
  const spawned = await bed.run("process.spawn", { command: "sleep", args: ["60"], env: { MINE: "yes" } });
  const { pid } = spawned.output as { pid: number };
  const limits = await until(async () => {
    const text = await readFile(`/proc/${pid}/limits`, "utf8");
    return /Max cpu time\s+1\s/.test(text) ? text : undefined;
  }, "the limits");
  for (const line of [/Max address space\s+209715200/, /Max open files\s+32\s/, /Max processes\s+4000\s/])
    expect(limits).toMatch(line);
  const names = (await readFile(`/proc/${pid}/environ`, "utf8")).split("\0").map((entry) => entry.split("=")[0]);
  expect(new Set(names.filter(Boolean))).toEqual(new Set(["PATH", "HOME", "LANG", "LC_ALL", "MINE"]));
  await bed.run("process.kill", { pid });
  for (const [name, value] of [["LD_PRELOAD"], ["GCONV_PATH"], ["a b"], ["A=B"], ["NUL", "a\0b"]] as const)
    expect(await bed.run("process.spawn", { command: "true", env: { [name]: value ?? "x" } })).toMatchObject({
      success: false,
      error: says(`env ${name} is not allowed`),
    });
  for (const command of ["no-such-program", "/etc/passwd", "/tmp", "./relative"])
    expect(await bed.run("process.spawn", { command })).toMatchObject({
      success: false,
      error: says(`the program ${command} is not available`),
    });
});

const way = await new Programs(process.env, tmpdir()).apart();

describe.skipIf(way === undefined)("a program others wrote", () => {
  test("cannot look into the worker: its environment, memory and open files are closed to it", async () => {
    const body = [
      "import os",
      "def tried(look, path):",
      "    try:",
      "        look(path)",
      "        return 'open'",
      "    except OSError as error:",
      "        return type(error).__name__",
      "names = {'environ': lambda p: open(p).read(), 'mem': lambda p: open(p, 'rb'), 'fd': lambda p: os.readlink(p + '/0'), 'cwd': os.readlink}",
      "return {name: tried(look, '/proc/%d/%s' % (data['pid'], name)) for name, look in names.items()}",
    ].join("\n");
    await plugin("nosy", body);
    const closed = "PermissionError";
    const { output } = await bed.run("plugin.nosy", { pid: process.pid });
    expect(output).toEqual({ environ: closed, mem: closed, fd: closed, cwd: closed });
    const script = `cat /proc/${process.pid}/environ > seen; echo "$?" > end`;
    expect((await bed.run("process.spawn", { command: "sh", args: ["-c", script] })).error).toBe("");
    const end = await until(
      async () => (await readFile(join(bed.root, "end"), "utf8").catch(() => "")) || undefined,
      "the end",
    );
    expect(end).toBe("1\n");
    expect(await readFile(join(bed.root, "seen"), "utf8")).toBe("");
  });

  test.skipIf(way?.name !== "namespaces")(
    "takes everything it started along, whatever session it moved to",
    async () => {
      const body = [
        "import os, time",
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork() == 0:",
        "        time.sleep(600)",
        "    os._exit(0)",
        "time.sleep(data['stay'])",
        "return {'done': True}",
      ].join("\n");
      await plugin("breeds", body);
      // The one left behind holds the output open: an answer must not wait for it.
      expect(await bed.run("plugin.breeds", { stay: 0 })).toMatchObject({ success: true, output: { done: true } });
      await until(async () => (await running("breeds.py")) === 0, "the end of what it left behind");
      const late = bed.run("plugin.breeds", { stay: 600 }, { timeoutMs: 5_000 });
      await until(async () => (await running("breeds.py")) > 0, "its start");
      expect(await late).toMatchObject({ success: false, error: says("was stopped") });
      await until(async () => (await running("breeds.py")) === 0, "the end of all of it");
    },
  );
});

/** Processes whose command line names something. */
async function running(what: string): Promise<number> {
  const ids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(ids.map((id) => readFile(`/proc/${id}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.includes(what)).length;
}

test("plugins hand on: piped or merged, refused when the next is gone, ended when they go round", async () => {
  await plugin("second", "return {'b': data.get('a', 0) + 1}");
  await plugin("piped", "return {'a': 1}", { next_plugins: ["second"] });
  await plugin("merged", "return {'a': 1}", { next_plugins: ["second"], output_mode: "merge" });
  expect((await bed.run("plugin.piped")).output).toEqual({ b: 2 });
  expect((await bed.run("plugin.merged")).output).toEqual({ a: 1, b: 2 });
  await plugin("round", "return data", { next_plugins: ["round"] });
  expect(await bed.run("plugin.round", { x: 1 })).toMatchObject({ success: false, error: says("in a chain") });
  await bed.run("plugin.delete", { name: "second" });
  expect(await bed.run("plugin.piped")).toMatchObject({ success: false, error: says("second it hands on to is gone") });
});

test("a script is refused from the contract's score on, and not before", async () => {
  const script = (lines: string[]): string => `${lines.join("\n")}\ndef main(d):\n    return {}\n`;
  const allowed = ["os.system('x')", "eval('x')", "os.remove('x')"];
  const refused = ["os.system('x')", "eval('x')", "compile('x')"];
  expect([riskOf(script(allowed)).score, riskOf(script(refused)).score]).toEqual([65, 70]);
  expect(TOO_RISKY).toBe(70);
  const make = (name: string, lines: string[]): Promise<Answer> =>
    bed.run("plugin.create", { name, description: "", code: script(lines) });
  expect(await make("below", allowed)).toMatchObject({ success: true });
  expect(await make("at", refused)).toMatchObject({ success: false, error: says("too risky") });
  expect(JSON.stringify((await bed.run("plugin.list")).output)).not.toContain('"plugin.at"');
});

test("a secret is put in by reference, and is in nothing that leaves or stays", async () => {
  const task = "secretive";
  const input = { url: base, headers: { "x-key": "secret:keys.service" }, auth_bearer: "secret:keys.service" };
  const answer = await bed.run("web.http_request", input, { task });
  expect(answer).toMatchObject({ success: true });
  expect(JSON.stringify(answer)).toContain("Bearer [REDACTED]");
  await plugin("fails", "raise Exception('no: ' + data['key'])");
  const failed = await bed.run("plugin.fails", { key: "secret:keys.service" }, { task });
  expect(failed).toMatchObject({ success: false, error: says("no: [REDACTED]") });
  expect(await bed.run("plugin.fails", { key: "secret:keys.nothing" })).toMatchObject({
    success: false,
    error: says("there is no secret keys.nothing"),
  });
  const rows = await bed.ledger.query("default", { limit: 1_000 });
  const kept = await bed.executions.ofTask("default", task);
  expect(rows.some(({ tool_name }) => tool_name === "web.http_request")).toBe(true);
  expect(kept.length).toBeGreaterThan(0);
  expect(JSON.stringify([answer, failed, rows, kept])).not.toContain(SECRET);
});
