import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { LocalStackError, reasonOf } from "./failure.ts";
import { processIdentity } from "./identity.ts";
import { startWatchdog } from "./watchdog.ts";

/** What to run, and where its traces go. */
export interface ServerCommand {
  /** For messages: `nats-server`. */
  readonly name: string;
  readonly binary: string;
  readonly args: readonly string[];
  /** The whole environment of the server: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  /** Both of its outputs are appended here. */
  readonly logFile: string;
  /** Names the running process, so that the next start can end what a crash left behind. */
  readonly pidFile: string;
}

/** A server process that answers. */
export interface ServerProcess {
  readonly pid: number;
  /** Resolves when the process is gone, with how it went: `code 1`, `SIGKILL`. */
  readonly exited: Promise<string>;
  /** SIGTERM, and SIGKILL for what is still there after 10 seconds. Resolves when the process and its watchdog are gone. */
  stop(): Promise<void>;
  /** SIGKILL. Resolves like `stop`. */
  kill(): Promise<void>;
}

/** The server ended before it answered. `log` is what it wrote. */
export class EarlyExit extends LocalStackError {
  readonly log: string;
  constructor(command: ServerCommand, how: string, log: string) {
    super(`${command.name} ended (${how}) before it answered. ${lastLines(command, log)}`);
    this.log = log;
  }
}

const STOP_GRACE_MS = 10_000;
const LOG_LIMIT_BYTES = 16 * 1024 * 1024;

/**
 * Starts a server and waits until `answers` says true, for at most `deadlineMs` (default one minute: a big store takes a while to be
 * read). `answers` may throw while the server is not there yet; its last reason is told when time is up.
 * Throws {@link EarlyExit} at once when the process ends, LocalStackError when it does not answer (it is killed then).
 */
export async function startServer(
  command: ServerCommand,
  answers: (pid: number) => Promise<boolean>,
  deadlineMs = 60_000,
): Promise<ServerProcess> {
  mkdirSync(dirname(command.logFile), { recursive: true, mode: 0o700 });
  const logStart = startLog(command.logFile);
  const server = launch(command);
  const log = () => readFileSync(command.logFile).subarray(logStart).toString("utf8");

  let outcome: string | undefined;
  void server.exited.then((how) => (outcome = how));
  let reason = "no answer";
  const deadline = performance.now() + deadlineMs;
  for (let wait = 5; ; wait = Math.min(wait * 1.5, 100)) {
    if (outcome !== undefined) throw new EarlyExit(command, outcome, log());
    try {
      if (await answers(server.pid)) return server;
    } catch (error) {
      reason = reasonOf(error);
    }
    if (performance.now() > deadline) {
      await server.kill();
      throw new LocalStackError(
        `${command.name} did not answer within ${deadlineMs / 1000} s (${reason}). ${lastLines(command, log())}`,
      );
    }
    await pause(wait);
  }
}

function launch(command: ServerCommand): ServerProcess {
  const watchdog = startWatchdog();
  const log = openSync(command.logFile, "a");
  // A session of its own: Ctrl-C in the terminal must reach us alone, so that what uses the server can finish first.
  const child = spawn(command.binary, command.args, {
    stdio: ["ignore", log, log],
    env: command.env,
    detached: true,
  });
  closeSync(log);
  const pid = child.pid ?? 0;
  if (pid > 0) {
    watchdog.guard(pid);
    writeFileSync(command.pidFile, JSON.stringify({ pid, identity: processIdentity(pid) }));
  }
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `code ${code}`));
  });
  const cleared = exited.then(async () => {
    rmSync(command.pidFile, { force: true });
    await watchdog.dismiss();
  });
  return {
    pid,
    exited,
    async stop() {
      child.kill("SIGTERM");
      const insist = setTimeout(() => child.kill("SIGKILL"), STOP_GRACE_MS);
      await cleared;
      clearTimeout(insist);
    },
    async kill() {
      child.kill("SIGKILL");
      await cleared;
    },
  };
}

/**
 * Ends the server an earlier run left behind, if it is still there: its store cannot be shared. Its watchdog has most likely
 * begun already (a run that was killed a moment ago), so it gets a second first.
 */
export async function endLeftover(pidFile: string): Promise<void> {
  const left = readPidFile(pidFile);
  if (left === undefined) return;
  const alive = () => processIdentity(left.pid) === left.identity;
  const gone = async (withinMs: number) => {
    const deadline = performance.now() + withinMs;
    while (alive() && performance.now() < deadline) await pause(20);
    return !alive();
  };
  if (!(await gone(1_000))) {
    signal(left.pid, "SIGTERM");
    if (!(await gone(STOP_GRACE_MS))) signal(left.pid, "SIGKILL");
    if (!(await gone(STOP_GRACE_MS)))
      throw new LocalStackError(`process ${left.pid} of an earlier run does not end (${pidFile})`);
  }
  rmSync(pidFile, { force: true });
}

function readPidFile(path: string): { pid: number; identity: string } | undefined {
  try {
    const found: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (typeof found !== "object" || found === null || !("pid" in found) || !("identity" in found)) return undefined;
    if (typeof found.pid !== "number" || typeof found.identity !== "string") return undefined;
    return { pid: found.pid, identity: found.identity };
  } catch {
    return undefined; // None, or one cut short by a crash: then it names nobody.
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It just ended.
  }
}

/** Where this run's part of the log begins. A log that has grown too long becomes `<name>.1` first. */
function startLog(path: string): number {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size <= LOG_LIMIT_BYTES) return size;
  renameSync(path, `${path}.1`);
  return 0;
}

function lastLines({ logFile }: ServerCommand, log: string): string {
  const lines = log.trimEnd().split("\n").slice(-12);
  return log.trim() === ""
    ? `It wrote nothing to ${logFile}.`
    : [`Last lines of ${logFile}:`, ...lines.map((line) => `  ${line}`)].join("\n");
}
