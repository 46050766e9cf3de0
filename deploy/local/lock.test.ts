import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempDisposableSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { lockHolder, tryLock, waitForLock } from "./lock.ts";

const holderProgram = `
  const { tryLock } = await import(process.argv[1]);
  console.log(tryLock(process.argv[2]) === undefined ? "refused" : "held");
  setInterval(() => {}, 1000);
`;

/** Another process that tries to take the lock and stays. */
async function otherProcess(path: string) {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "-e", holderProgram, import.meta.resolve("./lock.ts"), path],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const [said] = (await once(child.stdout, "data")) as [Buffer];
  const gone = once(child, "exit");
  const kill = async () => {
    child.kill("SIGKILL");
    await gone;
  };
  return { pid: child.pid, said: said.toString().trim(), kill, [Symbol.asyncDispose]: kill };
}

test("K1: held by one at a time, within a process too, and free again after release", () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-lock-"));
  const path = join(directory.path, "deep", "lock");
  const first = tryLock(path);
  expect(first).toBeDefined();
  expect(tryLock(path)).toBeUndefined();
  expect(lockHolder(path)).toBe(process.pid);
  first?.release();
  first?.release();
  expect(lockHolder(path)).toBeUndefined();
  using second = tryLock(path);
  expect(second).toBeDefined();
});

test("K1: another process is refused while it is held", async () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-lock-"));
  const path = join(directory.path, "lock");
  using _lock = tryLock(path);
  await using other = await otherProcess(path);
  expect(other.said).toBe("refused");
});

test("K1: a holder killed with SIGKILL leaves nothing to clean up", async () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-lock-"));
  const path = join(directory.path, "lock");
  await using other = await otherProcess(path);
  expect(other.said).toBe("held");
  expect(lockHolder(path)).toBe(other.pid);
  expect(tryLock(path)).toBeUndefined();
  await other.kill();
  using mine = tryLock(path);
  expect(mine).toBeDefined();
});

test("waiting ends with the lock, or with the deadline's reason", async () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-lock-"));
  const path = join(directory.path, "lock");
  const held = tryLock(path);
  await expect(waitForLock(path, AbortSignal.abort(new Error("too long")))).rejects.toThrow("too long");
  let told = 0;
  const waiting = waitForLock(path, new AbortController().signal, () => {
    told++;
    held?.release();
  });
  using _lock = await waiting;
  expect(told).toBe(1);
});
