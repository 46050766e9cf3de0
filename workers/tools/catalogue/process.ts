/** Processes (aiOS tools, namespace process), read from /proc; spawned ones run in the sandbox. */
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { constants, totalmem } from "node:os";
import { join } from "node:path";
import { missing, ToolFailure, reasonOf, systemCode } from "../failure.ts";
import { bool, int, list, num, object, str, texts } from "../schema.ts";
import { tool, type Call, type Json, type Namespace } from "../tool.ts";

const CGROUPS = "/sys/fs/cgroup";
const OURS = join(CGROUPS, "aios");
/** Clock ticks of the kernel's interface, per second (USER_HZ, fixed on Linux). */
const TICKS = 100;
const PAGE_BYTES = 4096;

/** What makes the programs that set the sandbox up load code of the caller's choice. */
const LOADS = /^(LD_\w*|GCONV_PATH|LOCPATH|GLIBC_TUNABLES)$/;

const pid = int("Process id.", { minimum: 1, maximum: 4_194_304 });

export interface ProcessFacts {
  readonly pid: number;
  readonly name: string;
  /** Percent of one processor since it started. */
  readonly cpu: number;
  /** Percent of main memory. */
  readonly memory: number;
  readonly status: string;
  readonly threads: number;
  readonly startedAt: Date;
}

export const process: Namespace<"process"> = {
  "process.list": tool({
    about:
      "All processes, busiest first: cpu in percent of one processor since the start, memory in percent of the machine's.",
    input: object(),
    output: object({ processes: list(object({ pid: int(), name: str(), cpu: num(), memory: num(), status: str() })) }),
    async run() {
      const all = await listProcesses();
      const processes = all.sort((a, b) => b.cpu - a.cpu || a.pid - b.pid);
      return { processes: processes.map(({ pid, name, cpu, memory, status }) => ({ pid, name, cpu, memory, status })) };
    },
  }),

  "process.spawn": tool<{ command: string; args?: string[]; env?: Record<string, string> }>({
    about:
      "Starts a program and does not wait for it. It sees a cleared environment and runs under limits of memory, files, processes and processor time.",
    input: object({
      command: str("Name or full path.", { minLength: 1, maxLength: 4096 }),
      "args?": list(str(), "", { maxItems: 1_000 }),
      "env?": texts("Added to PATH, HOME and LANG."),
    }),
    output: object({ pid: int() }),
    changes: true,
    async run({ command, args = [], env = {} }, { host }) {
      for (const name of Object.keys(env)) {
        if (!/^[A-Za-z_]\w*$/.test(name) || LOADS.test(name) || env[name]?.includes("\0") === true)
          throw new ToolFailure(`process.spawn: env ${name} is not allowed`);
      }
      return { pid: await host.programs.leave(command, args, { env, limits: host.limits, foreign: true }) };
    },
  }),

  "process.kill": tool<{ pid: number; signal: number }>({
    about: "Sends a signal by number; killed is false when there is no such process.",
    input: object({ pid, "signal?": int("", { default: 9 }) }),
    output: object({ killed: bool() }),
    changes: true,
    async run({ pid, signal }) {
      if (signal < 1 || signal > 64) throw new ToolFailure(`process.kill: invalid signal ${signal}`);
      return { killed: send("process.kill", pid, signal) };
    },
  }),

  "process.info": tool<{ pid: number }>({
    about: "One process in detail.",
    input: object({ pid }),
    output: object({
      pid: int(),
      name: str(),
      cmdline: str(),
      cpu: num(),
      memory: num(),
      threads: int(),
      started_at: str("RFC 3339"),
    }),
    async run({ pid }) {
      const facts = await readProcess(pid, await uptimeSeconds());
      if (facts === undefined) throw new ToolFailure(`Process ${pid} not found`);
      const cmdline = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).replaceAll("\0", " ").trim();
      const { name, cpu, memory, threads, startedAt } = facts;
      return { pid, name, cmdline, cpu, memory, threads, started_at: startedAt.toISOString() };
    },
  }),

  "process.signal": tool<{ pid: number; signal: string }>({
    about: "Sends a signal by name (HUP or SIGHUP, any case) or number; sent is false when there is no such process.",
    input: object({ pid, signal: str("", { minLength: 1, maxLength: 12 }) }),
    output: object({ sent: bool() }),
    changes: true,
    async run({ pid, signal }) {
      const upper = signal.toUpperCase();
      const name = upper.startsWith("SIG") ? upper : `SIG${upper}`;
      const number = /^\d+$/.test(signal) ? Number(signal) : (constants.signals as Record<string, number>)[name];
      if (number === undefined || number < 1 || number > 64)
        throw new ToolFailure(`process.signal: unknown signal ${signal}`);
      return { sent: send("process.signal", pid, number) };
    },
  }),

  "process.cgroup": tool<CgroupInput>({
    about: "Control groups (version 2) below aios: create, assign a process, status, remove.",
    input: object({
      "action?": str("create, assign, status or remove", { default: "status" }),
      "group_name?": str("", { pattern: "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$" }),
      "pid?": pid,
      "cpu_weight?": int("1 to 10000", { minimum: 1, maximum: 10_000 }),
      "memory_max_mb?": int("", { minimum: 1 }),
      "io_weight?": int("1 to 10000", { minimum: 1, maximum: 10_000 }),
    }),
    output: object({ success: bool(), action: str(), group_name: str(), details: object() }),
    changes: true,
    async prepare({ action, group_name = "", pid }) {
      const again = (input: Json) => [{ op: "run" as const, tool: "process.cgroup", input }];
      if (action === "create" && (await limitsOf(group_name)) === undefined)
        return again({ action: "remove", group_name });
      if (action === "remove") {
        const before = await limitsOf(group_name);
        return before === undefined ? [] : again({ action: "create", group_name, ...before });
      }
      if (action === "assign" && pid !== undefined) {
        const where = await groupOf(pid);
        return where === undefined ? [] : again({ action: "assign", pid, back_to: where });
      }
      if (action === "status") return [{ op: "nothing" }];
      return [];
    },
    /** Of a group its limits and processes; of a process the group it is in. */
    async seen({ action, group_name = "", pid }) {
      if (action === "assign") return (await groupOf(pid)) ?? "absent";
      const limits = await limitsOf(group_name);
      const inside = await readFile(join(OURS, group_name, "cgroup.procs"), "utf8").catch(() => "");
      return JSON.stringify([limits ?? "absent", inside]);
    },
    run: cgroup,
  }),
};

interface CgroupInput {
  readonly action: string;
  readonly group_name?: string;
  readonly pid?: number;
  readonly cpu_weight?: number;
  readonly memory_max_mb?: number;
  readonly io_weight?: number;
  /** Only when undone: the control group a process came from. */
  readonly back_to?: string;
}

async function cgroup(input: CgroupInput, call: Call): Promise<Json> {
  const { action, group_name = "", pid } = input;
  const answer = (success: boolean, details: Json): Json => ({ success, action, group_name, details });
  if (!["create", "assign", "status", "remove"].includes(action))
    return answer(false, { error: `unknown action ${action}` });
  if (
    await readFile(join(CGROUPS, "cgroup.controllers"), "utf8").then(
      () => false,
      () => true,
    )
  )
    throw missing("control groups version 2 (/sys/fs/cgroup)");
  const back = call.depth > 0 ? input.back_to : undefined;
  const group = back === undefined ? join(OURS, group_name) : join(CGROUPS, back);
  if (action !== "status" && group_name === "" && back === undefined)
    throw new ToolFailure("process.cgroup: group_name is missing");
  try {
    if (action === "status") {
      const names = group_name === "" ? await readdir(OURS, { withFileTypes: true }).catch(() => []) : [];
      const processes = await readFile(join(group, "cgroup.procs"), "utf8").catch(() => "");
      return answer(true, {
        groups: names.filter((entry) => entry.isDirectory()).map(({ name }) => name),
        processes: processes.split("\n").filter(Boolean).map(Number),
        ...(await limitsOf(group_name)),
      });
    }
    if (action === "remove") await rmdir(group);
    else if (action === "assign") {
      if (pid === undefined) throw new ToolFailure("process.cgroup: pid is missing");
      await writeFile(join(group, "cgroup.procs"), String(pid));
    } else {
      await create(group, [
        ["cpu.weight", input.cpu_weight],
        ["memory.max", input.memory_max_mb === undefined ? undefined : input.memory_max_mb * 1024 * 1024],
        ["io.weight", input.io_weight],
      ]);
    }
    return answer(true, pid === undefined ? {} : { pid });
  } catch (thrown) {
    if (thrown instanceof ToolFailure) throw thrown;
    throw new ToolFailure(`process.cgroup: ${action} of ${group_name} failed: ${reasonOf(thrown)}`);
  }
}

/** Makes a group with limits, or none at all. Controllers are handed down to it where the host has not done so. */
async function create(group: string, limits: readonly (readonly [string, number | undefined])[]): Promise<void> {
  const wanted = limits.flatMap(([file, value]) => (value === undefined ? [] : [{ file, value }]));
  const had = (await readFile(join(CGROUPS, "cgroup.controllers"), "utf8")).trim().split(" ");
  const controllers = wanted.map(({ file }) => file.split(".")[0] ?? "");
  const lacking = controllers.find((controller) => !had.includes(controller));
  if (lacking !== undefined)
    throw missing(`the controller ${lacking}`, "version 2 of control groups does not have it here");
  await mkdir(OURS, { recursive: true });
  for (const above of [CGROUPS, OURS])
    for (const controller of controllers) await writeFile(join(above, "cgroup.subtree_control"), `+${controller}`);
  const made = await mkdir(group, { recursive: true });
  try {
    for (const { file, value } of wanted) await writeFile(join(group, file), String(value));
  } catch (thrown) {
    if (made !== undefined) await rmdir(group);
    throw thrown;
  }
}

/** The control group a process is in, below the root of all; undefined when there is no such process. */
async function groupOf(pid: number | undefined): Promise<string | undefined> {
  return /^0::(\S+)$/m.exec(await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => ""))?.[1];
}

/** Limits of one of our groups; undefined when there is none. */
async function limitsOf(group: string): Promise<Json | undefined> {
  if (group === "") return undefined;
  const read = (file: string) =>
    readFile(join(OURS, group, file), "utf8").then(
      (text) => text.trim(),
      () => undefined,
    );
  if ((await read("cgroup.procs")) === undefined) return undefined;
  const [cpu, memory, io] = [await read("cpu.weight"), await read("memory.max"), await read("io.weight")];
  return {
    ...(cpu !== undefined && { cpu_weight: Number(cpu) }),
    ...(memory !== undefined && memory !== "max" && { memory_max_mb: Math.round(Number(memory) / 1024 / 1024) }),
    ...(io !== undefined && /\d+$/.test(io) && { io_weight: Number(/\d+$/.exec(io)?.[0]) }),
  };
}

/** False when there is no such process. The product itself, the first process and whoever started us are not to be had. */
function send(name: string, pid: number, signal: number): boolean {
  if (pid === 1 || pid === globalThis.process.pid || pid === globalThis.process.ppid)
    throw new ToolFailure(`${name}: process ${pid} is protected`);
  try {
    globalThis.process.kill(pid, signal);
    return true;
  } catch (thrown) {
    if (systemCode(thrown) === "ESRCH") return false;
    throw new ToolFailure(`${name}: process ${pid}: ${reasonOf(thrown)}`);
  }
}

/** Every process there is. */
export async function listProcesses(): Promise<ProcessFacts[]> {
  const uptime = await uptimeSeconds();
  const names = await readdir("/proc");
  const found = await Promise.all(
    names.filter((name) => /^\d+$/.test(name)).map((name) => readProcess(Number(name), uptime)),
  );
  return found.filter((facts) => facts !== undefined);
}

const states: Readonly<Record<string, string>> = {
  R: "running",
  S: "sleeping",
  D: "disk-sleep",
  Z: "zombie",
  T: "stopped",
  t: "traced",
  I: "idle",
  X: "dead",
};

async function readProcess(pid: number, uptime: number): Promise<ProcessFacts | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  // The name is in parentheses and may hold anything, also parentheses.
  const [open, close] = [stat.indexOf("("), stat.lastIndexOf(")")];
  const fields = stat.slice(close + 2).split(" ");
  const field = (number: number): number => Number(fields[number - 3]);
  const age = Math.max(0.01, uptime - field(22) / TICKS);
  const round = (value: number): number => Math.round(value * 100) / 100;
  return {
    pid,
    name: stat.slice(open + 1, close),
    cpu: round(((field(14) + field(15)) / TICKS / age) * 100),
    memory: round(((field(24) * PAGE_BYTES) / totalmem()) * 100),
    status: states[fields[0] ?? ""] ?? "unknown",
    threads: field(20),
    startedAt: new Date(Date.now() - age * 1000),
  };
}

async function uptimeSeconds(): Promise<number> {
  const text = await readFile("/proc/uptime", "utf8").catch(() => {
    throw missing("/proc");
  });
  return Number(text.split(" ")[0]);
}
