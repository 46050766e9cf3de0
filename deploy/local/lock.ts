import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { DatabaseSync } from "node:sqlite";

// K1 The lock is the kernel's record lock on a SQLite file, so it ends with its holder however the holder dies: no lock is ever
//    stale, and a recycled process id cannot keep one alive.
// K2 The pid file beside it only serves messages ("held by process 123"); nothing is decided by it.

/** A lock held until `release`, or until this process ends. Releasing twice is harmless. */
export interface Lock extends Disposable {
  release(): void;
}

const SQLITE_BUSY = 5;

function isBusy(thrown: unknown): boolean {
  return thrown instanceof Error && "errcode" in thrown && thrown.errcode === SQLITE_BUSY;
}

/** Takes the lock at once, or returns undefined when another process (or another part of this one) holds it. */
export function tryLock(path: string): Lock | undefined {
  mkdirSync(dirname(path), { recursive: true });
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (isBusy(error)) return undefined;
    throw error;
  }
  writeFileSync(pidPath(path), `${process.pid}\n`);
  const release = () => {
    if (!database.isOpen) return;
    rmSync(pidPath(path), { force: true });
    database.close();
  };
  return { release, [Symbol.dispose]: release };
}

/** Waits for the lock, at most until `signal` aborts (its reason is thrown). `onWait` is called once, when it is not free at once. */
export async function waitForLock(path: string, signal: AbortSignal, onWait?: () => void): Promise<Lock> {
  let told = false;
  for (;;) {
    const lock = tryLock(path);
    if (lock !== undefined) return lock;
    if (!told) onWait?.();
    told = true;
    signal.throwIfAborted();
    await pause(50);
  }
}

/** The process that holds the lock, as far as it said so. Undefined when nobody does or it is not known. */
export function lockHolder(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(pidPath(path), "utf8"));
    return Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function pidPath(path: string): string {
  return `${path}.pid`;
}
