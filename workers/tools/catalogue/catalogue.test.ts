import { createServer, type Server } from "node:http";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { createServer as createTcp } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fingerprint } from "../files/tree.ts";
import { builtInTools } from "../registry.ts";
import { until } from "../../../test/kit/until.ts";
import { startTestbed, type Testbed } from "../testbed.ts";
import { facts } from "./facts.ts";

let bed: Testbed;
let web: Server;
let port: number;
let mailDirectory: string;
let smtp: ReturnType<typeof createTcp>;
const mails: string[] = [];

beforeAll(async () => {
  web = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      if (request.url === "/page") {
        response.end(
          "<html><head><title>Hi</title><script>x()</script></head><body><p class='a'>One</p><p>Two</p></body></html>",
        );
      } else
        response.end(
          JSON.stringify({
            method: request.method,
            url: request.url,
            body,
            secret: request.headers["x-webhook-secret"] ?? "",
          }),
        );
    });
  });
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  port = (web.address() as AddressInfo).port;
  smtp = createTcp((socket) => {
    let inData = false;
    socket.write("220 test\r\n");
    socket.on("data", (chunk) => {
      const text = chunk.toString();
      if (inData) {
        mails.push(text);
        if (text.endsWith("\r\n.\r\n")) inData = false;
        else return;
        socket.write("250 kept\r\n");
      } else if (text.startsWith("DATA")) {
        inData = true;
        socket.write("354 go\r\n");
      } else if (text.startsWith("QUIT")) socket.end("221 bye\r\n");
      else socket.write("250 ok\r\n");
    });
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => smtp.listen(0, "127.0.0.1", resolve));
  mailDirectory = await mkdtemp(join(tmpdir(), "beamline-mail-"));
  const config = join(mailDirectory, "smtp.json");
  await writeFile(
    config,
    JSON.stringify({
      host: "127.0.0.1",
      port: (smtp.address() as AddressInfo).port,
      from_address: "me@example.org",
      ssl: false,
    }),
  );
  bed = await startTestbed({ BEAMLINE_TOOLS_EGRESS_ALLOW: `127.0.0.1:${port}`, BEAMLINE_TOOLS_SMTP: config });
}, 60_000);

afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  web.closeAllConnections();
  web.close();
  smtp.close();
  await rm(mailDirectory, { recursive: true, force: true });
});

const at = (...names: string[]): string => join(bed.root, ...names);

/** A tool that this host can run must succeed; one that it cannot must say what is missing. */
async function succeedsOrSaysWhy(
  tool: string,
  input: Record<string, unknown> = {},
): Promise<Record<string, unknown> | undefined> {
  const answer = await bed.run(tool, input);
  if (answer.success) return answer.output;
  expect(answer.error, tool).toMatch(/is not available on this host/);
  return undefined;
}

test("the catalogue has the contract's 88 tools in 16 namespaces, each with schemas that compile", async () => {
  const tools = builtInTools();
  expect(tools.length).toBe(88);
  expect(new Set(tools.map(({ definition }) => definition.namespace)).size).toBe(16);
  for (const { definition, checkInput, checkOutput } of tools) {
    expect(definition.requires_confirmation).toBe(definition.risk_level === "critical");
    expect(definition.description, definition.name).not.toBe("");
    checkInput({});
    checkOutput({});
    expect(JSON.parse(definition.input_schema.toString())).toMatchObject({
      $schema: expect.stringContaining("2020-12") as string,
      type: "object",
    });
  }
  expect(tools.map(({ definition }) => definition.name).sort()).toEqual(Object.keys(facts).sort());
});

describe("reading the host", () => {
  test("process", async () => {
    const listed = await bed.run("process.list");
    expect(JSON.stringify(listed.output)).toContain(`"pid":${process.pid}`);
    expect(await bed.run("process.info", { pid: process.pid })).toMatchObject({
      output: { pid: process.pid, threads: expect.any(Number) as number },
    });
    expect(await bed.run("process.info", { pid: 4_194_303 })).toMatchObject({
      success: false,
      error: "Process 4194303 not found",
    });
    const spawned = await bed.run("process.spawn", { command: "sleep", args: ["30"] });
    expect(spawned.error).toBe("");
    const { pid } = spawned.output as { pid: number };
    await until(async () => {
      const limits = await readFile(`/proc/${pid}/limits`, "utf8");
      return /Max address space\s+268435456/.test(limits) && /Max open files\s+64/.test(limits);
    }, "the limits of the sandbox");
    expect(await readFile(`/proc/${pid}/environ`, "utf8")).not.toContain("REDIS");
    expect(await bed.run("process.signal", { pid, signal: "term" })).toMatchObject({ output: { sent: true } });
    expect(await bed.run("process.kill", { pid: 4_194_303 })).toMatchObject({
      success: true,
      output: { killed: false },
    });
    expect(await bed.run("process.kill", { pid: process.pid })).toMatchObject({
      success: false,
      error: expect.stringContaining("protected") as string,
    });
    expect(await bed.run("process.signal", { pid: 4_194_303, signal: "NOPE" })).toMatchObject({ success: false });
    expect(await bed.run("process.cgroup", { action: "dance" })).toMatchObject({
      success: true,
      output: { success: false },
    });
  });

  test("monitor and hw, with the aliases agents read", async () => {
    const cpu = (await bed.run("monitor.cpu")).output;
    expect(cpu["cpu_percent"]).toBe(cpu["percent"]);
    const memory = (await bed.run("monitor.memory")).output;
    expect(memory["used_percent"]).toBe(memory["percent"]);
    expect(memory["total_mb"]).toBeGreaterThan(0);
    expect((await bed.run("monitor.disk")).output["used_percent"]).toBeGreaterThanOrEqual(0);
    expect((await bed.run("monitor.network")).output["rx_bytes"]).toBeGreaterThanOrEqual(0);
    expect(await bed.run("monitor.network", { interface: "en0" })).toMatchObject({
      success: false,
      error: expect.stringContaining("en0") as string,
    });
    await succeedsOrSaysWhy("monitor.logs", { lines: 5 });
    const traced = await bed.run("monitor.ebpf_trace", { duration_secs: 1, trace_type: "network_connections" });
    expect(traced.output).toMatchObject({ method: "proc_fallback" });
    await writeFile(at("fresh.txt"), "x");
    expect(JSON.stringify((await bed.run("monitor.fs_watch", { path: bed.root })).output)).toContain("fresh.txt");
    expect((await bed.run("hw.info")).output["ram_mb"]).toBeGreaterThan(0);
    expect(await bed.run("fs.disk_usage", { path: "/" })).toMatchObject({ success: true });
  });

  test("services, packages, firewall, containers say what is missing or answer", async () => {
    await succeedsOrSaysWhy("service.list");
    await succeedsOrSaysWhy("service.status", { name: "ssh" });
    await succeedsOrSaysWhy("firewall.rules");
    await succeedsOrSaysWhy("container.list");
    await succeedsOrSaysWhy("pkg.list_installed");
    expect(
      await bed.run("firewall.add_rule", { chain: "input; flush ruleset", rule: "x", action: "accept" }),
    ).toMatchObject({ success: false });
    expect(await bed.run("service.start", { name: "--help" })).toMatchObject({
      success: false,
      error: expect.stringContaining("/name") as string,
    });
  });

  test("sec looks, and keeps a baseline", async () => {
    expect(await bed.run("sec.check_perms", { path: "/etc/passwd" })).toMatchObject({
      output: { owner: "root", writable_by_others: false },
    });
    expect(await bed.run("sec.scan", { checks: ["open_ports", "weak_perms"] })).toMatchObject({ success: true });
    expect(await bed.run("sec.scan", { checks: ["nope"] })).toMatchObject({ success: false });
    expect(
      await bed.run("sec.scan_rootkits", { checks: ["suspicious_modules", "proc_anomalies", "dev_shm_scripts"] }),
    ).toMatchObject({ success: true });
    await writeFile(at("watched"), "one");
    expect((await bed.run("sec.file_integrity", { mode: "baseline", paths: [at("watched")] })).output).toMatchObject({
      checked: 1,
    });
    await writeFile(at("watched"), "two");
    expect((await bed.run("sec.file_integrity", { paths: [at("watched"), at("other")] })).output).toMatchObject({
      modified: [{ path: at("watched") }],
    });
  });

  test("self", async () => {
    expect((await bed.run("self.inspect")).output).toMatchObject({ version: expect.any(String) as string });
    expect((await bed.run("self.health")).output).toHaveProperty("issues");
    expect(await bed.run("self.update")).toMatchObject({
      success: false,
      error: expect.stringContaining("not allowed") as string,
    });
  });
});

describe("the network", () => {
  test("net and web reach what is allowed, and nothing else on this machine", async () => {
    const base = `http://127.0.0.1:${port}`;
    expect(await bed.run("net.http_get", { url: `${base}/x` })).toMatchObject({ output: { status: 200 } });
    expect(await bed.run("net.http_get", { url: "http://127.0.0.1:1/" })).toMatchObject({
      success: false,
      error: expect.stringContaining("may not be reached") as string,
    });
    expect(await bed.run("net.http_get", { url: "http://169.254.169.254/latest/" })).toMatchObject({
      success: false,
      error: expect.stringContaining("linkLocal") as string,
    });
    expect(await bed.run("net.port_scan", { host: "127.0.0.1", port })).toMatchObject({ output: { open: true } });
    expect(await bed.run("net.port_scan", { host: "127.0.0.1", port: 22 })).toMatchObject({ success: false });
    expect(await bed.run("net.dns", { host: "localhost" })).toMatchObject({ success: true });
    expect((await bed.run("net.interfaces")).output["interfaces"]).not.toEqual([]);
    expect(
      (await bed.run("web.http_request", { url: `${base}/y`, method: "post", body: "b" })).output["body"],
    ).toContain('"body":"b"');
    expect((await bed.run("web.api_call", { url: `${base}/z`, query_params: { a: 1 } })).output).toMatchObject({
      success: true,
      data: { url: "/z?a=1" },
    });
    expect(
      (await bed.run("web.webhook", { url: `${base}/h`, payload: { n: 1 }, secret: "shh-secret" })).output,
    ).toMatchObject({ success: true });
    expect((await bed.run("web.scrape", { url: `${base}/page` })).output).toMatchObject({
      title: "Hi",
      text: "One\nTwo",
      truncated: false,
    });
    expect((await bed.run("web.scrape", { url: `${base}/page`, selector: ".a" })).output).toMatchObject({
      text: "One",
    });
    const saved = await bed.run("web.download", { url: `${base}/file`, destination: at("dl", "f.json") });
    expect(saved).toMatchObject({ success: true });
    expect(await readFile(at("dl", "f.json"), "utf8")).toContain("/file");
    expect(await bed.rpc("rollback", { execution_id: saved.execution_id })).toMatchObject({ success: true });
    await expect(readFile(at("dl", "f.json"))).rejects.toThrow("ENOENT");
  });

  test("email is sent by the configured server", async () => {
    expect(await bed.run("email.send", { to: "you@example.org", subject: "s", body: "hello there" })).toMatchObject({
      success: true,
    });
    expect(mails.join("")).toContain("hello there");
    expect(await bed.run("email.send", { to: "you@example.org\r\nBcc: x@y.z", subject: "s", body: "b" })).toMatchObject(
      { success: false },
    );
  });
});

describe("code, certificates, plugins", () => {
  test("code and certificates, and back", async () => {
    const made = await bed.run("code.scaffold", { name: "demo", path: at("demo"), project_type: "python" });
    expect(made.output["files_created"]).toContain(at("demo", "pyproject.toml"));
    expect(await bed.rpc("rollback", { execution_id: made.execution_id })).toMatchObject({ success: true });
    const generated = await bed.run("code.generate", { file_path: at("gen", "x.py"), description: "does x" });
    expect(generated.output).toMatchObject({ language: "python", generated_by: "template" });
    expect(await bed.rpc("rollback", { execution_id: generated.execution_id })).toMatchObject({ success: true });
    await expect(readFile(at("gen", "x.py"))).rejects.toThrow("ENOENT");
    await mkdir(at("certs"));
    const cert = await bed.run("sec.cert_generate", { service_name: "tools", cert_dir: at("certs") });
    if (cert.success) {
      const before = await readFile(at("certs", "server.crt"), "utf8");
      const rotated = await bed.run("sec.cert_rotate", { service_name: "tools", cert_dir: at("certs") });
      expect(rotated.error).toBe("");
      expect(await readFile(at("certs", "server.crt.bak"), "utf8")).toBe(before);
      expect(await bed.rpc("rollback", { execution_id: rotated.execution_id })).toMatchObject({ success: true });
      expect(await readFile(at("certs", "server.crt"), "utf8")).toBe(before);
      await expect(readFile(at("certs", "server.crt.bak"))).rejects.toThrow("ENOENT");
      // Made over others, the others come back; made where nothing was, nothing stays.
      const there = await fingerprint(bed.root);
      for (const cert_dir of [at("certs"), at("no", "such", "directory")]) {
        const again = await bed.run("sec.cert_generate", { service_name: "tools", cert_dir });
        expect(again).toMatchObject({ success: true, output: { server_cert_path: join(cert_dir, "server.crt") } });
        expect(await fingerprint(bed.root)).not.toBe(there);
        expect(await bed.rpc("rollback", { execution_id: again.execution_id })).toMatchObject({ success: true });
        expect(await fingerprint(bed.root)).toBe(there);
      }
    } else expect(cert.error).toContain("openssl");
  });

  test("plugins: made, run, chained, limited, refused, undone", async () => {
    const code = "def main(data):\n    print('noise')\n    return {'sum': sum(data['n'])}\n";
    const made = await bed.run("plugin.create", { name: "adder", description: "adds", code });
    expect(made).toMatchObject({ success: true, output: { tool_name: "plugin.adder" } });
    expect(await bed.run("plugin.adder", { n: [1, 2, 3] })).toMatchObject({
      success: true,
      output: { sum: 6, stderr: "noise" },
    });
    expect(await bed.run("plugin.adder", { n: [1] }, { agent: "web-agent" })).toMatchObject({
      error: 'Capability denied: missing ["plugin_execute"]',
    });
    expect(await bed.run("plugin.adder", { n: "x" })).toMatchObject({
      success: false,
      error: expect.stringContaining("unsupported operand") as string,
    });
    await bed.run("plugin.create", {
      name: "doubler",
      description: "",
      code: "def main(d):\n    return {'n': [x * 2 for x in d['n']]}\n",
      next_plugins: ["adder"],
    });
    expect((await bed.run("plugin.doubler", { n: [1, 2] })).output).toMatchObject({ sum: 6 });
    expect(
      await bed.run("plugin.create", {
        name: "evil",
        description: "",
        code: "import os\ndef main(d):\n    os.system('a'); os.setuid(0)\n    eval('1')\n",
      }),
    ).toMatchObject({
      success: false,
      error: expect.stringContaining("too risky") as string,
    });
    await bed.run("plugin.create", {
      name: "hungry",
      description: "",
      code: "def main(d):\n    return {'x': len(bytearray(10**9))}\n",
    });
    expect(await bed.run("plugin.hungry")).toMatchObject({
      success: false,
      error: expect.stringContaining("MemoryError") as string,
    });
    expect((await bed.run("plugin.list")).output["count"]).toBe(3);
    expect(await bed.rpc("rollback", { execution_id: made.execution_id })).toMatchObject({ success: true });
    await expect(bed.run("plugin.adder", { n: [] })).rejects.toMatchObject({ code: "not_found" });
    expect(await bed.run("plugin.delete", { name: "nope" })).toMatchObject({ success: false });
    const from = await bed.run("plugin.from_template", { template: "file_processor", config: { name: "fp" } });
    expect(from.output).toMatchObject({ tool_name: "plugin.fp" });
    expect((await bed.run("plugin.fp", { content: "a b" })).output).toMatchObject({ words: 2 });
    expect(await bed.rpc("rollback", { execution_id: from.execution_id })).toMatchObject({ success: true });
    await expect(bed.run("plugin.fp", {})).rejects.toMatchObject({ code: "not_found" });
  });
});

test("git.push and git.pull name the remote there is none of", async () => {
  await bed.run("git.init", { path: at("lonely") });
  for (const [tool, more] of [
    ["git.push", {}],
    ["git.pull", { remote: "upstream" }],
  ] as const)
    expect(await bed.run(tool, { repo_path: at("lonely"), branch: "main", ...more })).toMatchObject({
      success: false,
      error: `${tool}: the repository has no remote ${tool === "git.push" ? "origin" : "upstream"}`,
    });
});
