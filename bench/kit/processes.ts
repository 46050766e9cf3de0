/** The parent's side of a peer. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Peer } from "../case.ts";

const READY_WITHIN_MS = 30_000;
const STOP_WITHIN_MS = 5_000;
const ASK_WITHIN_MS = 60_000;

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** Environment of every process of a benchmark: nothing of the caller's settings, which would change what is measured. */
export function plainEnv(): Record<string, string> {
  const kept = ["PATH", "HOME", "TMPDIR", "TZ", "LANG", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"];
  return Object.fromEntries(
    kept.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
}

/** Starts `bench/peers/<file>` and waits until it is ready. Throws when it ends before. */
export async function startPeer(
  file: string,
  env: Readonly<Record<string, string>>,
  flags: readonly string[],
): Promise<Peer> {
  const script = fileURLToPath(new URL(`../peers/${file}`, import.meta.url));
  const child = spawn(process.execPath, [...flags, script], {
    env: { ...plainEnv(), ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    serialization: "advanced",
    detached: true, // Ctrl-C reaches the benchmark alone, which then ends all in order
  });
  const waiting = new Map<number, Waiting>();
  let next = 0;
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const failAll = (why: string): void => {
    for (const { reject, timer } of waiting.values()) {
      clearTimeout(timer);
      reject(new Error(`${file}: ${why}`));
    }
    waiting.clear();
  };
  child.once("exit", (code, signal) => failAll(`ended (${signal ?? `exit code ${code}`})`));
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
    await gone;
    clearTimeout(timer);
  };
  const expect = <T>(id: number, withinMs: number): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(id);
        reject(new Error(`${file}: no answer within ${withinMs} ms`));
      }, withinMs);
      waiting.set(id, { resolve, reject, timer });
    });
  child.on("message", (message: { id?: number; ready?: unknown; result?: unknown; error?: string }) => {
    const one = waiting.get(message.id ?? -1);
    if (one === undefined) return;
    waiting.delete(message.id ?? -1);
    clearTimeout(one.timer);
    if (message.error === undefined) one.resolve((message.ready ?? message.result) as never);
    else one.reject(new Error(`${file}: ${message.error}`));
  });
  try {
    const ready = await expect<Readonly<Record<string, unknown>>>(-1, READY_WITHIN_MS);
    return {
      pid: child.pid ?? 0,
      ready,
      ask<T>(what: object, withinMs = ASK_WITHIN_MS) {
        const id = next++;
        const answer = expect<T>(id, withinMs);
        child.send({ id, what });
        return answer;
      },
      stop,
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}
