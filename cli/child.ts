/** A process of the local stack: started, watched, started again when it dies, and ended with its parent. */
import { spawn, type ChildProcess } from "node:child_process";
import { openSync, closeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { EXIT_CONFIG } from "../runtime/run.ts";

export interface ChildOptions {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** File its log goes to. */
  readonly logFile: string;
  /** Told when it ended without being asked to, and what is done about it. */
  readonly onExit: (how: string) => void;
  /** Told what it sends: the edge, its ports. */
  readonly onMessage?: (message: unknown) => void;
}

/** A larger young generation: most of what a call allocates is dead before it is looked at. */
export const NODE_FLAGS = ["--max-semi-space-size=64"];
const RESTART_AFTER_MS = 500;
/** Dying this soon after the start, so many times in a row, is not worth another try. */
const QUICK_MS = 5_000;
const MAX_QUICK = 5;

export class Child {
  readonly #options: ChildOptions;
  #process: ChildProcess | undefined;
  #stopping = false;
  #timer: NodeJS.Timeout | undefined;
  #quick = 0;
  #givenUp: string | undefined;

  constructor(options: ChildOptions) {
    this.#options = options;
    this.#start();
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  #start(): void {
    const { args, env, logFile, onMessage } = this.#options;
    const log = openSync(logFile, "a", 0o600);
    const started = Date.now();
    const child = spawn(
      process.execPath,
      [...NODE_FLAGS, fileURLToPath(new URL("beamline.ts", import.meta.url)), ...args],
      {
        env,
        stdio: ["ignore", log, log, "ipc"],
        detached: true, // its own process group: Ctrl-C reaches the parent alone, which then ends all in order
      },
    );
    closeSync(log);
    this.#process = child;
    if (onMessage !== undefined) child.on("message", onMessage);
    child.once("exit", (code, signal) =>
      this.#ended(started, signal === null ? `exit code ${code}` : signal, code === EXIT_CONFIG),
    );
    // There was no room for another process: it never began.
    child.once("error", (error) => child.pid === undefined && this.#ended(started, error.message, false));
  }

  #ended(started: number, how: string, isMistake: boolean): void {
    const { logFile, onExit } = this.#options;
    this.#process = undefined;
    if (this.#stopping) return;
    this.#quick = Date.now() - started < QUICK_MS ? this.#quick + 1 : 0;
    if (isMistake) this.#givenUp = `${how}, its configuration is wrong`;
    else if (this.#quick >= MAX_QUICK) this.#givenUp = `${how}, ${MAX_QUICK} times in a row`;
    if (this.#givenUp !== undefined) return onExit(`${this.#givenUp}: given up, see ${logFile}`);
    onExit(`${how}: starting it again`);
    this.#timer = setTimeout(() => this.#again(), RESTART_AFTER_MS);
  }

  #again(): void {
    const started = Date.now();
    try {
      this.#start();
    } catch (thrown) {
      // Its log cannot be opened.
      this.#ended(started, thrown instanceof Error ? thrown.message : String(thrown), false);
    }
  }

  /** Why it is not started again; undefined while it is. */
  get givenUp(): string | undefined {
    return this.#givenUp;
  }

  /** SIGTERM, and SIGKILL when that has not ended it in time. Resolves when it is gone. */
  async stop(withinMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const child = this.#process;
    if (child === undefined) return;
    const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), withinMs);
    await gone;
    clearTimeout(timer);
  }
}
