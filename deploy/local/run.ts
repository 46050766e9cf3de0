import { spawn } from "node:child_process";

/** A program that ended well, and what it wrote. */
export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end, its input closed. Throws with its last words when it fails, cannot be started or takes longer than
 * `timeoutMs` (default 15 s; it is killed then).
 */
export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {},
): Promise<Output> {
  const { timeoutMs = 15_000, ...rest } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      ...rest,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: timeoutMs,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk));
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk));
    child.once("error", (error) => reject(new Error(`${program} cannot be run: ${error.message}`)));
    child.once("close", (code, signal) => {
      if (code === 0) return resolve({ stdout, stderr });
      const how = signal === null ? `code ${code}` : `${signal}, after at most ${timeoutMs / 1000} s`;
      const last = (stderr || stdout).trim().split("\n").slice(-6).join("\n");
      reject(new Error(`${[program, ...args].join(" ")} failed (${how}): ${last}`));
    });
  });
}
