import { chmod, lstat, mkdir, readFile, readdir, readlink, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hashFile } from "./files/tree.ts";
import { startTestbed, type Testbed } from "./testbed.ts";
import type { Json } from "./tool.ts";

let bed: Testbed;

beforeAll(async () => {
  bed = await startTestbed();
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

const at = (...names: string[]): string => join(bed.root, ...names);
const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );

/** Everything below a path: names, kinds, modes, times of files, contents. */
async function picture(path: string): Promise<Json> {
  const stats = await lstat(path);
  const mode = (stats.mode & 0o7777).toString(8);
  if (stats.isSymbolicLink()) return { link: await readlink(path) };
  if (!stats.isDirectory()) return { mode, mtime: Math.floor(stats.mtimeMs), hash: await hashFile(path) };
  const names = (await readdir(path)).filter((name) => !name.startsWith(".beamline")).sort();
  return {
    mode,
    entries: Object.fromEntries(
      await Promise.all(names.map(async (name) => [name, await picture(join(path, name))] as const)),
    ),
  };
}

describe("the main path", () => {
  test("writes, stats, reads, and rolls the new file back to nothing, all audited", async () => {
    const path = at("new", "deep", "a.txt");
    const written = await bed.run("fs.write", { path, content: "hällo" }, { task: "main" });
    expect(written).toMatchObject({ success: true, output: { bytes_written: 6 }, error: "" });
    expect(written.backup_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(await bed.run("fs.read", { path })).toMatchObject({
      success: true,
      output: { content: "hällo", size: 6 },
      backup_id: "",
    });
    expect(await bed.run("fs.stat", { path })).toMatchObject({
      output: { size: 6, is_file: true, is_dir: false, is_symlink: false },
    });
    expect(await bed.rpc("rollback", { execution_id: written.execution_id, reason: "undo" })).toMatchObject({
      success: true,
    });
    expect(await exists(at("new"))).toBe(false);
    const twice = await bed.rpc("rollback", { execution_id: written.execution_id, reason: "again" });
    expect(twice).toMatchObject({ error: expect.stringContaining("rolled back before") as string });
    const rows = await bed.ledger.query("default", { limit: 10 });
    expect(rows.map(({ tool_name, success, rollback_of }) => [tool_name, success, rollback_of])).toEqual([
      ["fs.write", false, written.execution_id],
      ["fs.write", true, written.execution_id],
      ["fs.stat", true, undefined],
      ["fs.read", true, undefined],
      ["fs.write", true, undefined],
    ]);
    expect(await bed.ledger.verify("default")).toEqual({ ok: true, rows: 5 });
  });

  test("a copy is the same byte for byte and mode for mode, whatever its size, and goes again", async () => {
    await mkdir(at("from", "empty"), { recursive: true });
    for (const [name, size] of Object.entries({ none: 0, one: 1, large: 1_500_001 }))
      await writeFile(at("from", name), Buffer.alloc(size, name), { mode: 0o640 });
    await symlink("one", at("from", "link"));
    const copied = await bed.run("fs.copy", { source: at("from"), destination: at("copies", "to") });
    expect(copied).toMatchObject({ success: true, error: "" });
    expect(await picture(at("copies", "to"))).toEqual(await picture(at("from")));
    const single = await bed.run("fs.copy", { source: at("from", "large"), destination: at("from", "one") });
    expect(single).toMatchObject({ success: true });
    expect(await hashFile(at("from", "one"))).toBe(await hashFile(at("from", "large")));
    for (const { execution_id } of [single, copied])
      expect(await bed.rpc("rollback", { execution_id })).toMatchObject({ success: true });
    expect(await readFile(at("from", "one"), "utf8")).toBe("o");
    expect(await exists(at("copies"))).toBe(false);
  });

  test("a tree written, deleted, moved, copied, linked and chmodded comes back byte- and mode-exact, by task", async () => {
    await mkdir(at("tree", "sub", "empty"), { recursive: true });
    await writeFile(at("tree", "one.txt"), "one");
    await writeFile(at("tree", "sub", "two.bin"), Buffer.from([0, 255, 1, 254, 10]));
    await chmod(at("tree", "one.txt"), 0o640);
    await chmod(at("tree", "sub", "two.bin"), 0o4755);
    await chmod(at("tree", "sub"), 0o751);
    await symlink("one.txt", at("tree", "link"));
    const before = await picture(at("tree"));
    const task = "reorganise";
    const steps: [string, Json][] = [
      ["fs.write", { path: at("tree", "one.txt"), content: "changed" }],
      ["fs.write", { path: at("tree", "three", "new.txt"), content: "new" }],
      ["fs.chmod", { path: at("tree", "sub", "two.bin"), mode: "0600" }],
      ["fs.chmod", { path: at("tree", "sub"), mode: "700" }],
      ["fs.move", { source: at("tree", "sub", "two.bin"), destination: at("tree", "one.txt") }],
      ["fs.mkdir", { path: at("tree", "x", "y"), recursive: true }],
      ["fs.copy", { source: at("tree", "sub"), destination: at("tree", "x", "y", "sub") }],
      ["fs.symlink", { target: "/etc/passwd", link: at("tree", "x", "pw") }],
      ["fs.chown", { path: at("tree", "one.txt"), uid: 12345, gid: 54321 }],
      ["fs.delete", { path: at("tree", "link") }],
      ["fs.delete", { path: at("tree", "sub"), recursive: true }],
      ["fs.delete", { path: at("tree"), recursive: true }],
    ];
    for (const [tool, input] of steps)
      expect(await bed.run(tool, input, { task }), tool).toMatchObject({ success: true, error: "" });
    expect(await exists(at("tree"))).toBe(false);
    for (const { execution } of (await bed.executions.ofTask("default", task)).toReversed()) {
      const { execution_id, tool_name } = execution;
      expect(await bed.rpc("rollback", { execution_id, reason: "back" }), tool_name).toMatchObject({ success: true });
    }
    expect(await picture(at("tree"))).toEqual(before);
  });
});
