/**
 * Programs, run by argument vectors and never through a shell, with a cleared environment, in a process group of their own so that all of
 * it can be killed, with bounded output and, when asked, resource limits (aiOS tools, 1.7 sandbox).
 */
import { spawn, type ChildProcess } from "node:child_process";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import type { Environment } from "../../../runtime/config.ts";
import { findWay, type Way } from "./apart.ts";
import { missing, ToolFailure } from "../failure.ts";

/** Limits of a child, by prlimit(1) of util-linux. */
export interface Limits {
  readonly memoryBytes: number;
  readonly files: number;
  readonly processes: number;
  readonly cpuSeconds: number;
}

export interface RunOptions {
  readonly cwd?: string;
  /** Added to PATH, HOME and LANG, which is all a child sees otherwise. */
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  readonly signal?: AbortSignal | undefined;
  /** Bytes kept of each output. Default 1 MiB. */
  readonly maxBytes?: number;
  readonly limits?: Limits | undefined;
  /** Others wrote it: it is kept apart from this process (apart.ts). */
  readonly foreign?: boolean;
  /** Open files the child gets, as its numbers 3, 4 and so on. */
  readonly handles?: readonly number[];
}

export interface Ran {
  /** Exit code; null when a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly truncated: boolean;
}

const PROBE_MS = 5_000;
const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export class Programs {
  readonly #path: readonly string[];
  readonly #home: string;
  readonly #found = new Map<string, string | undefined>();
  #way: Promise<Way | undefined> | undefined;
  #tether: Promise<readonly string[]> | undefined;

  /** @param env the worker's environment, of which children see only PATH @param home working and home directory of children */
  constructor(env: Environment, home: string) {
    this.#path = [...new Set([...SYSTEM_PATH.split(":"), ...(env["PATH"] ?? "").split(delimiter)])].filter((dir) =>
      isAbsolute(dir),
    );
    this.#home = home;
  }

  /** Full path of a program; undefined when there is none. */
  async find(name: string): Promise<string | undefined> {
    if (name.includes("\0")) throw new ToolFailure("command contains a NUL byte");
    if (name.includes("/")) return isAbsolute(name) && (await executable(name)) ? name : undefined;
    if (this.#found.has(name)) return this.#found.get(name);
    let found: string | undefined;
    for (const dir of this.#path)
      if (found === undefined && (await executable(join(dir, name)))) found = join(dir, name);
    if (found !== undefined) this.#found.set(name, found);
    return found;
  }

  /** How programs others wrote are kept apart here; undefined when they cannot be. */
  apart(): Promise<Way | undefined> {
    this.#way ??= findWay(async ([name = "", ...args]) => {
      if ((await this.find(name)) === undefined) return false;
      return (await this.run(name, args, { signal: AbortSignal.timeout(PROBE_MS) }).catch(() => undefined))?.code === 0;
    });
    return this.#way;
  }

  /** What a child sees. */
  environment(more: Readonly<Record<string, string>> = {}): Record<string, string> {
    return { PATH: this.#path.join(":"), HOME: this.#home, LANG: "C.UTF-8", LC_ALL: "C.UTF-8", ...more };
  }

  /**
   * Runs a program to its end; its exit code is for the caller to judge. Throws `ToolFailure` when there is no such program, and the
   * signal's reason when it was aborted: then the whole group has been killed.
   */
  async run(name: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
    const { signal, input, maxBytes = 1024 * 1024 } = options;
    const child = await this.#start(name, args, options, "waited");
    const [stdout, stderr] = [collect(child.stdout, maxBytes), collect(child.stderr, maxBytes)];
    const onAbort = (): void => kill(child);
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      child.stdin?.on("error", () => undefined); // a child that reads nothing
      child.stdin?.end(input ?? "");
      const code = await new Promise<number | null>((resolve, reject) => {
        child.on("error", (error) => reject(new ToolFailure(`${name} could not be started: ${error.message}`)));
        child.on("close", resolve);
      });
      signal?.throwIfAborted();
      return { code, stdout: stdout.text(), stderr: stderr.text(), truncated: stdout.cut() || stderr.cut() };
    } finally {
      signal?.removeEventListener("abort", onAbort);
      kill(child); // whatever it left behind in its group
    }
  }

  /** Runs a program that must succeed. Throws `ToolFailure` with the end of what it complained about. */
  async must(name: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(name, args, options);
    if (code === 0) return stdout;
    const complaint = (stderr.trim() || stdout.trim()).slice(-1_000);
    throw new ToolFailure(
      `${name} failed (${code === null ? "killed" : `exit code ${code}`})${complaint === "" ? "" : `: ${complaint}`}`,
    );
  }

  /** Starts a program and leaves it running. Throws `ToolFailure` when it cannot be started. */
  async leave(name: string, args: readonly string[], options: RunOptions = {}): Promise<number> {
    const child = await this.#start(name, args, options, "left");
    const pid = await new Promise<number>((resolve, reject) => {
      child.once("error", (error) => reject(new ToolFailure(`${name} could not be started: ${error.message}`)));
      child.once("spawn", () => resolve(child.pid ?? 0));
    });
    child.unref();
    return pid;
  }

  async #start(
    name: string,
    args: readonly string[],
    options: RunOptions,
    kind: "waited" | "left",
  ): Promise<ChildProcess> {
    if (args.some((arg) => arg.includes("\0"))) throw new ToolFailure("an argument contains a NUL byte");
    const program = await this.find(name);
    if (program === undefined) throw missing(`the program ${name}`);
    const limited =
      options.limits === undefined ? [program, ...args] : await this.#limited(program, args, options.limits);
    const [command = "", ...vector] = options.foreign === true ? await this.#kept(limited, kind) : limited;
    const stdio = kind === "waited" ? "pipe" : "ignore";
    return spawn(command, vector, {
      cwd: options.cwd ?? this.#home,
      env: this.environment(options.env),
      stdio: [stdio, stdio, stdio, ...(options.handles ?? [])],
      detached: true,
      shell: false,
    });
  }

  /** The vector, kept apart where that can be done, and ended with this process when it is waited for. */
  async #kept(vector: readonly string[], kind: "waited" | "left"): Promise<readonly string[]> {
    const [keeper = "", ...how] = (await this.apart())?.[kind] ?? [];
    const found = keeper === "" ? undefined : await this.find(keeper);
    const tether = kind === "waited" ? await this.#tethered() : [];
    return found === undefined ? [...tether, ...vector] : [...tether, found, ...how, ...vector];
  }

  /** What ends a program others wrote with this process, also when that is killed; nothing where setpriv (util-linux) cannot do it. */
  #tethered(): Promise<readonly string[]> {
    const how = ["--pdeathsig", "KILL", "--"];
    this.#tether ??= this.find("setpriv").then(async (setpriv) => {
      if (setpriv === undefined) return [];
      const tried = this.run(setpriv, [...how, "true"], { signal: AbortSignal.timeout(PROBE_MS) });
      return (await tried.catch(() => undefined))?.code === 0 ? [setpriv, ...how] : [];
    });
    return this.#tether;
  }

  async #limited(program: string, args: readonly string[], limits: Limits): Promise<string[]> {
    const prlimit = await this.find("prlimit");
    if (prlimit === undefined) throw missing("the program prlimit (util-linux)", "a sandbox needs it");
    return [
      prlimit,
      `--as=${limits.memoryBytes}`,
      `--nofile=${limits.files}`,
      `--nproc=${limits.processes}`,
      `--cpu=${limits.cpuSeconds}`,
      "--core=0",
      "--",
      program,
      ...args,
    ];
  }
}

async function executable(path: string): Promise<boolean> {
  return access(path, constants.X_OK)
    .then(() => stat(path))
    .then(
      (stats) => stats.isFile(),
      () => false,
    );
}

function kill(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // The group is gone.
  }
}

/** Keeps the beginning of a stream and lets the rest go by. */
function collect(stream: NodeJS.ReadableStream | null, maxBytes: number): { text(): string; cut(): boolean } {
  const kept: Buffer[] = [];
  let size = 0;
  stream?.on("data", (chunk: Buffer) => {
    if (size < maxBytes) kept.push(chunk.subarray(0, maxBytes - size));
    size += chunk.length;
  });
  return { text: () => Buffer.concat(kept).toString("utf8"), cut: () => size > maxBytes };
}
