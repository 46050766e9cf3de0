import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Caller } from "../bus/call.ts";
import { startTestbed, type Testbed } from "../workers/tools/testbed.ts";
import type { Output } from "./output.ts";
import { toolsCommand } from "./tools.ts";

let bed: Testbed;

beforeAll(async () => {
  bed = await startTestbed();
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

/** Runs a command line; gives what it printed as records and tables. */
async function beamline(...args: string[]): Promise<{ printed: unknown[]; failed: boolean }> {
  const printed: unknown[] = [];
  const out: Output = {
    json: true,
    line: (text) => void printed.push(text),
    record: (record) => void printed.push(record),
    table: (rows) => void printed.push(rows),
  };
  const program = new Command("beamline").exitOverride();
  const before = process.exitCode;
  process.exitCode = undefined;
  toolsCommand(program, {
    out: () => out,
    async connect() {
      const bus = await bed.nats.connect("cli", "operator");
      const caller = new Caller(bus);
      return { bus, caller, [Symbol.asyncDispose]: async () => caller.stop() };
    },
  });
  try {
    await program.parseAsync(["node", "beamline", "tools", ...args]);
    return { printed, failed: process.exitCode === 1 };
  } finally {
    process.exitCode = before;
  }
}

test("lists and shows tools", async () => {
  expect((await beamline("ls", "fs")).printed[0]).toHaveLength(13);
  expect((await beamline("show", "fs.read")).printed[0]).toMatchObject({
    name: "fs.read",
    input_schema: { required: ["path"] },
  });
});

test("runs one, tells its failure, undoes it, and whole tasks", async () => {
  const path = join(bed.root, "f");
  await writeFile(path, "0");
  const ran = await beamline("run", "fs.write", JSON.stringify({ path, content: "1" }), "--task", "cli");
  expect(ran).toMatchObject({ failed: false, printed: [{ success: true, output: { bytes_written: 1 } }] });
  expect(await beamline("run", "fs.read", '{"path":"/etc/passwd"}')).toMatchObject({
    failed: true,
    printed: [{ success: false }],
  });
  const { execution_id } = ran.printed[0] as { execution_id: string };
  expect(await beamline("rollback", execution_id)).toMatchObject({ failed: false, printed: [{ success: true }] });
  expect(await beamline("rollback", execution_id)).toMatchObject({ failed: true });
  for (const content of ["2", "3"])
    await beamline("run", "fs.write", JSON.stringify({ path, content }), "--task", "cli");
  expect((await beamline("rollback", "--task", "cli")).printed[0]).toMatchObject([
    { success: true },
    { success: true },
  ]);
  expect((await beamline("executions", "cli")).printed[0]).toHaveLength(3);
  await expect(beamline("rollback")).rejects.toMatchObject({ code: "invalid_argument" });
});

test("a task is undone as far as it goes: what cannot be is named, and the command fails", async () => {
  const paths = ["a", "b", "c"].map((name) => join(bed.root, name));
  for (const path of paths) await beamline("run", "fs.write", JSON.stringify({ path, content: "1" }), "--task", "half");
  await writeFile(paths[1] ?? "", "changed since");
  const { printed, failed } = await beamline("rollback", "--task", "half");
  expect(failed).toBe(true);
  expect(printed[0]).toMatchObject([
    { tool_name: "fs.write", success: true },
    { tool_name: "fs.write", success: false, error: expect.stringContaining("has changed since") as string },
    { tool_name: "fs.write", success: true },
  ]);
  // Asked again with a reason that insists, only what is left is undone.
  const forced = await beamline("rollback", "--task", "half", "--reason", "force: it may go");
  expect(forced).toMatchObject({ failed: false, printed: [[{ success: true }]] });
  for (const path of paths) await expect(readFile(path)).rejects.toThrow("ENOENT");
});

test("looks at the ledger and verifies it", async () => {
  expect((await beamline("audit", "verify")).printed[0]).toMatchObject({ ok: true });
  const [rows] = (await beamline("audit", "ls", "--tool", "fs.read")).printed;
  expect(rows).toMatchObject([{ tool_name: "fs.read", success: false }]);
});
