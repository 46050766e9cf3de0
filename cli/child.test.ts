/** Processes of the local stack that cannot be started again. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import { Child } from "./child.ts";

verifies(
  "clear-failure",
  "a process whose log cannot be opened is tried again, then given up; the stack goes on",
  async () => {
    const folder = await mkdtemp(join(tmpdir(), "beamline-child-"));
    const told: string[] = [];
    const start = (): Child =>
      new Child({
        args: ["--version"],
        env: { PATH: process.env["PATH"] },
        logFile: join(folder, "logs", "x.log"),
        onExit: (how) => told.push(how),
      });
    expect(start).toThrow("ENOENT");
    await mkdir(join(folder, "logs"));
    const child = start();
    await until(() => told.length === 1, "the first end");
    await rm(folder, { recursive: true });
    await until(() => child.givenUp !== undefined, "giving up");
    expect(told[0]).toBe("exit code 0: starting it again");
    expect(told.some((how) => /^ENOENT: .*: starting it again$/.test(how))).toBe(true);
    expect(told.at(-1)).toMatch(/^ENOENT: .*, 5 times in a row: given up, see /);
    await child.stop(1_000);
  },
);
