import { execFile, spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BeamlineError } from "../../contracts/errors.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { until } from "../../test/kit/until.ts";
import type { Execution } from "./executions.ts";
import { startTestbed, type Answer, type Testbed } from "./testbed.ts";

let bed: Testbed;
const running = new Set<ChildProcess>();

beforeAll(async () => {
  bed = await startTestbed({}, 0);
}, 60_000);
afterAll(async () => {
  for (const child of running) child.kill("SIGKILL");
  await bed[Symbol.asyncDispose]();
});

async function startProcess(): Promise<ChildProcess> {
  const credentials = bed.nats.credentials.worker;
  const child = spawn(process.execPath, [fileURLToPath(new URL("testworker.ts", import.meta.url))], {
    env: {
      PATH: process.env["PATH"],
      ...bed.environment(),
      NATS_URL: bed.nats.server.url,
      NATS_USER: credentials.user,
      NATS_PASSWORD: credentials.password,
      NATS_INBOX_PREFIX: credentials.inboxPrefix,
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  running.add(child);
  child.once("exit", () => running.delete(child));
  if (child.stdout !== null) await once(child.stdout, "data");
  return child;
}

/** Runs `beamline tools ...` as an operator does, in a process of its own; gives what it printed. Throws when it fails. */
async function commandLine(...args: string[]): Promise<string> {
  const operator = bed.nats.credentials.operator;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [fileURLToPath(new URL("../../cli/beamline.ts", import.meta.url)), "tools", ...args],
    {
      env: {
        PATH: process.env["PATH"],
        ...bed.environment(),
        NATS_URL: bed.nats.server.url,
        NATS_USER: operator.user,
        NATS_PASSWORD: operator.password,
        NATS_INBOX_PREFIX: operator.inboxPrefix,
      },
      maxBuffer: 64 * 1024 * 1024,
    },
  );
  return stdout;
}

/** Calls until somebody answers: what a client does that was given an idempotency key. */
async function persist(call: () => Promise<Answer>): Promise<Answer> {
  return until(
    () =>
      call().catch((thrown: unknown) => {
        if (thrown instanceof BeamlineError && ["unavailable", "deadline_exceeded"].includes(thrown.code))
          return undefined;
        throw thrown;
      }),
    "an answer",
    60_000,
  );
}

/** Processes whose command line holds a text. */
async function withText(text: string): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return pids.filter((_, n) => lines[n]?.includes(text));
}

verifies(
  "crash-safe",
  "tools: a plugin ends with the worker that runs it, also when that is killed",
  async () => {
    const worker = await startProcess();
    const name = `endless_${process.pid}`;
    const code = "import signal\ndef main(data):\n    signal.pause()\n";
    const made = await bed.run("plugin.create", { name, description: "sleeps", code });
    expect(made.error).toBe("");
    bed.run(`plugin.${name}`, {}, { timeoutMs: 20_000 }).catch(() => undefined); // nobody answers it
    await until(async () => (await withText(`${name}.py`)).length > 0, "the plugin to run");
    worker.kill("SIGKILL");
    await until(async () => (await withText(`${name}.py`)).length === 0, "the plugin to end");
  },
  { timeout: 60_000 },
);

verifies(
  "effect-once",
  "four workers killed again and again leave one chain, and no call done twice",
  async () => {
    const workers = await Promise.all(Array.from({ length: 4 }, startProcess));
    const acked: { answer: Answer; path: string; content: string }[] = [];
    let going = true;
    const client = async (name: number): Promise<void> => {
      for (let n = 0; going; n++) {
        const path = join(bed.root, `c${name}`, `f${n}`);
        const content = `${name}-${n}`;
        // mkdir of a fresh directory fails when it is done twice: only a call that is done once succeeds.
        const made = await persist(() =>
          bed.run("fs.mkdir", { path: `${path}.d`, recursive: false }, { key: `m${name}-${n}`, timeoutMs: 4_000 }),
        );
        if (!made.success) expect(made.error).toMatch(/outcome unknown|already exists|no such file/);
        const answer = await persist(() =>
          bed.run("fs.write", { path, content }, { key: `w${name}-${n}`, task: `task-${name}`, timeoutMs: 4_000 }),
        );
        if (answer.success) acked.push({ answer, path, content });
        else expect(answer.error).toMatch(/outcome unknown/);
      }
    };
    const clients = Array.from({ length: 6 }, (_, name) => client(name));
    for (let round = 0; round < 5; round++) {
      const before = acked.length;
      await until(() => acked.length > before + 10, "work to go on", 30_000);
      const victim = workers.shift();
      victim?.kill("SIGKILL");
      workers.push(await startProcess());
    }
    going = false;
    await Promise.all(clients);
    expect(acked.length).toBeGreaterThan(50);
    for (const { path, content } of acked) expect(await readFile(path, "utf8")).toBe(content);
    const verdict = await bed.ledger.verify("default");
    expect(verdict).toMatchObject({ ok: true });
    const audited = new Map<string, number>();
    for await (const row of bed.ledger.rows("default"))
      if (row.success) audited.set(row.execution_id, (audited.get(row.execution_id) ?? 0) + 1);
    expect(Math.max(...audited.values())).toBe(1);
    // The same by command line, and the export by a verifier that knows the published rule only.
    const verified = await commandLine("audit", "verify", "--json");
    expect(JSON.parse(verified)).toMatchObject({ ok: true, rows: verdict.rows });
    const exported = (await commandLine("audit", "export")).trimEnd().split("\n");
    expect(exported.length).toBe(verdict.rows);
    let previous = "genesis";
    for (const line of exported) {
      const row = JSON.parse(line) as Record<string, string>;
      const { execution_id, tool_name, agent_id, timestamp } = row;
      expect(row["prev_hash"]).toBe(previous);
      const text = `${previous}${execution_id}${tool_name}${agent_id}${timestamp}`;
      previous = createHash("sha256").update(text).digest("hex");
      expect(row["hash"]).toBe(previous);
    }
    // What one worker did, another undoes.
    for (const { answer, path } of acked.slice(-5)) {
      expect(await bed.rpc("rollback", { execution_id: answer.execution_id })).toMatchObject({ success: true });
      await expect(readFile(path)).rejects.toThrow("ENOENT");
    }
  },
  { timeout: 120_000 },
);

test("an execution whose worker vanished is recorded as unknown, told to whoever asks again, and never run again", async () => {
  const started: Execution = {
    execution_id: "11111111-1111-4111-8111-111111111111",
    tenant: "default",
    task_id: "lost",
    tool_name: "fs.write",
    agent_id: "task-agent",
    reason: "",
    state: "started",
    input_hash: "",
    idempotent: false,
    backup_id: "",
    node: hostname(),
    steps: [],
    started_at: Date.now() - 60_000,
    due_at: Date.now() - 30_000,
  };
  await bed.startWorker();
  await bed.executions.start(started);
  await bed.startWorker(); // it looks at what was left behind first
  await until(
    async () => (await bed.executions.find("default", started.execution_id))?.execution.state === "unknown",
    "the sweep",
    40_000,
  );
  const row = await until(async () =>
    (await bed.ledger.query("default", { limit: 20 })).find(
      ({ execution_id }) => execution_id === started.execution_id,
    ),
  );
  expect(row).toMatchObject({ success: false, error: expect.stringContaining("outcome unknown") as string });
  expect(await bed.rpc("rollback", { execution_id: started.execution_id })).toMatchObject({
    error: expect.stringContaining("unknown") as string,
  });
  const path = join(bed.root, "keyed");
  const first = await bed.run("fs.write", { path, content: "1" }, { key: "lost" });
  const known = await bed.executions.find("default", first.execution_id);
  if (known === undefined) throw new Error("nothing was recorded");
  await bed.executions.change(known, { state: "unknown" }, Date.now());
  await rm(path);
  expect(await bed.run("fs.write", { path, content: "1" }, { key: "lost" })).toMatchObject({
    success: false,
    error: expect.stringContaining(`outcome unknown: execution ${first.execution_id}`) as string,
  });
  await expect(readFile(path)).rejects.toThrow("ENOENT");
}, 60_000);
