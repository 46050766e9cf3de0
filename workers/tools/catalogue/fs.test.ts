/** Files where they are odd: long names, several names of one file, other file systems, what cannot be copied. */
import { execFile } from "node:child_process";
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestbed, type Answer, type Testbed } from "../testbed.ts";
import type { Json } from "../tool.ts";

/** A file system of its own, in memory, on any Linux. */
const ELSEWHERE = "/dev/shm";

let bed: Testbed;
let elsewhere: string;
let home: string;

beforeAll(async () => {
  elsewhere = await mkdtemp(join(ELSEWHERE, "beamline-tools-"));
  home = await mkdtemp(join(tmpdir(), "beamline-tools-"));
  bed = await startTestbed({ BEAMLINE_TOOLS_ROOTS: `${home},${elsewhere}` });
}, 60_000);
afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  for (const root of [home, elsewhere]) await rm(root, { recursive: true, force: true });
});

const at = (...names: string[]): string => join(home, ...names);
const there = (...names: string[]): string => join(elsewhere, ...names);
const says = (text: string): unknown => expect.stringContaining(text);
const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );
const text = (path: string): Promise<string> => readFile(path, "utf8");
const rollback = (answer: Answer, reason = "undo"): Promise<Json> =>
  bed.rpc("rollback", { execution_id: answer.execution_id, reason });
const move = (source: string, destination: string): Promise<Answer> => bed.run("fs.move", { source, destination });
const copy = (source: string, destination: string): Promise<Answer> => bed.run("fs.copy", { source, destination });
const pipe = (path: string): Promise<unknown> => promisify(execFile)("mkfifo", [path]);
/** Names left over from writing beside a place. */
const leftovers = async (directory: string): Promise<string[]> =>
  (await readdir(directory)).filter((name) => name.startsWith(".") && name.endsWith(".tmp"));

test("a name as long as the file system takes is written, copied over and undone", async () => {
  const path = at("字".repeat(85)); // 255 bytes
  expect((await bed.run("fs.write", { path, content: "1" })).error).toBe("");
  await writeFile(at("source"), "2");
  const copied = await copy(at("source"), path);
  expect(copied.error).toBe("");
  expect(await text(path)).toBe("2");
  expect(await rollback(copied)).toEqual({ success: true });
  expect(await text(path)).toBe("1");
});

describe("moving", () => {
  test("one name of a file over another of its names leaves one, and is undone", async () => {
    await writeFile(at("name1"), "same");
    await link(at("name1"), at("name2"));
    const moved = await move(at("name1"), at("name2"));
    expect(moved.error).toBe("");
    expect([await exists(at("name1")), await text(at("name2"))]).toEqual([false, "same"]);
    expect(await rollback(moved)).toEqual({ success: true });
    expect([await text(at("name1")), await text(at("name2"))]).toEqual(["same", "same"]);
  });

  test("something onto itself, also by way of a link, changes nothing and is undone", async () => {
    await mkdir(at("real"));
    await symlink("real", at("alias"));
    await writeFile(at("real", "f"), "kept");
    for (const destination of [at("real", "f"), at("alias", "f")]) {
      const moved = await move(at("real", "f"), destination);
      expect(moved.error).toBe("");
      expect(await rollback(moved)).toEqual({ success: true });
      expect(await text(at("real", "f"))).toBe("kept");
    }
  });

  test("to another file system replaces a file there, and is undone", async () => {
    expect((await stat(home)).dev).not.toBe((await stat(elsewhere)).dev);
    await writeFile(at("new"), "new", { mode: 0o640 });
    await writeFile(there("old"), "old", { mode: 0o600 });
    const moved = await move(at("new"), there("old"));
    expect(moved.error).toBe("");
    expect([await exists(at("new")), await text(there("old"))]).toEqual([false, "new"]);
    expect(await rollback(moved)).toEqual({ success: true });
    expect([await text(at("new")), await text(there("old"))]).toEqual(["new", "old"]);
    expect([(await stat(at("new"))).mode & 0o777, (await stat(there("old"))).mode & 0o777]).toEqual([0o640, 0o600]);
  });

  test("to another file system what cannot be copied leaves everything as it was, and so does undoing that by force", async () => {
    await mkdir(at("mixed", "sub"), { recursive: true });
    await writeFile(at("mixed", "sub", "file"), "1");
    await pipe(at("mixed", "zpipe"));
    const moved = await move(at("mixed"), there("mixed"));
    expect(moved).toMatchObject({ success: false, error: says(`${at("mixed", "zpipe")}: neither file`) });
    expect([await exists(there("mixed")), await leftovers(elsewhere)]).toEqual([false, []]);
    expect(await rollback(moved)).toMatchObject({ error: says("failed") });
    expect(await rollback(moved, "force: nothing to lose")).toEqual({ success: true });
    expect(await readdir(at("mixed"))).toEqual(["sub", "zpipe"]);
  });
});

describe("copying", () => {
  test("keeps times within the millisecond, as putting back does", async () => {
    for (const [n, fraction] of [0, 0.0005, 0.1239, 0.25, 0.9999].entries()) {
      const time = 1_700_000_000 + fraction;
      const [from, to] = [at(`timed${n}`), at(`timed${n}.copy`)];
      await writeFile(from, "x");
      await utimes(from, time, time);
      const { mtimeMs } = await stat(from);
      expect((await copy(from, to)).error).toBe("");
      expect(Math.abs((await stat(to)).mtimeMs - mtimeMs)).toBeLessThan(0.002);
      expect(await rollback(await bed.run("fs.write", { path: from, content: "y" }))).toEqual({ success: true });
      expect(Math.abs((await stat(from)).mtimeMs - mtimeMs)).toBeLessThan(0.002);
    }
  });

  test("what cannot be copied whole is not copied at all", async () => {
    await mkdir(at("partly", "a"), { recursive: true });
    await pipe(at("partly", "zpipe"));
    expect(await copy(at("partly"), at("copy"))).toMatchObject({
      success: false,
      error: says(`${at("partly", "zpipe")}: neither file`),
    });
    expect([await exists(at("copy")), await leftovers(home)]).toEqual([false, []]);
  });

  test("into itself is refused, also by way of a link", async () => {
    await mkdir(at("self"));
    await symlink("self", at("way-in"));
    for (const destination of [at("self", "x"), at("way-in", "x")])
      expect(await copy(at("self"), destination)).toMatchObject({ success: false, error: says("is inside") });
    expect(await readdir(at("self"))).toEqual([]);
  });
});

test("code.generate keeps mode and owner of the file it replaces", async () => {
  await writeFile(at("own.py"), "x");
  await chmod(at("own.py"), 0o600);
  const made = await bed.run("code.generate", { file_path: at("own.py"), description: "d" });
  expect(made.error).toBe("");
  expect((await stat(at("own.py"))).mode & 0o777).toBe(0o600);
  expect(await rollback(made)).toEqual({ success: true });
  expect(await text(at("own.py"))).toBe("x");
});
