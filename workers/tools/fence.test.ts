/** Capabilities that hold below a path only: what was really opened decides, whatever names and links say meanwhile. */
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fingerprint } from "./files/tree.ts";
import { startTestbed, type Answer, type Testbed } from "./testbed.ts";
import type { Json } from "./tool.ts";

let bed: Testbed;
const agent = "guest";

beforeAll(async () => {
  bed = await startTestbed();
  await mkdir(at("in", "real"), { recursive: true });
  await lead("in/real");
  await mkdir(at("out", "keep"), { recursive: true });
  await writeFile(at("out", "victim"), "as it was", { mode: 0o640 });
  await writeFile(at("out", "keep", "inner"), "inner");
  await bed.run("sec.grant", { agent_id: agent, capabilities: [`*:${at("in")}/*`] });
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

const at = (...names: string[]): string => join(bed.root, ...names);
const guest = (tool: string, input: Json, task = ""): Promise<Answer> => bed.run(tool, input, { agent, task });

/** `in/d` leads to `in/real` or to `out`, from one moment to the next: a link renamed over a link, there is no moment without one. */
async function lead(to: "in/real" | "out"): Promise<void> {
  await symlink(at(to), at("in", "next"));
  await rename(at("in", "next"), at("in", "d"));
}

async function swapping(work: () => Promise<void>): Promise<number> {
  let going = true;
  let swaps = 0;
  const swapper = (async () => {
    for (; going; swaps++) {
      await lead("out");
      await lead("in/real");
    }
  })();
  try {
    await work();
  } finally {
    going = false;
    await swapper;
  }
  return swaps;
}

test("links swapped while a call is under way never let it touch what was not granted", async () => {
  const before = await fingerprint(at("out"));
  const d = (...names: string[]): string => at("in", "d", ...names);
  await writeFile(at("in", "source"), "owned");
  const answers: Answer[] = [];
  const swaps = await swapping(async () => {
    for (let n = 0; n < 25; n++) {
      await writeFile(at("in", `move${n}`), "owned");
      const calls: [string, Json][] = [
        ["fs.write", { path: d(`f${n}`), content: "owned" }],
        ["fs.write", { path: d("victim"), content: "owned" }],
        ["fs.write", { path: d(`a${n}`, "b", "c"), content: "owned" }],
        ["fs.mkdir", { path: d(`m${n}`, "deep"), recursive: true }],
        ["fs.symlink", { target: "x", link: d(`l${n}`) }],
        ["fs.chmod", { path: d("victim"), mode: "777" }],
        ["fs.delete", { path: d("keep"), recursive: true }],
        ["fs.move", { source: at("in", `move${n}`), destination: d(`moved${n}`) }],
        ["fs.move", { source: d("victim"), destination: at("in", `taken${n}`) }],
        ["fs.copy", { source: at("in", "source"), destination: d(`copied${n}`) }],
        ["code.generate", { file_path: d(`g${n}.py`), description: "owned" }],
        ["git.init", { path: d(`r${n}`) }],
      ];
      answers.push(...(await Promise.all(calls.map(([tool, input]) => guest(tool, input)))));
    }
  });
  expect(swaps).toBeGreaterThan(100);
  expect(await fingerprint(at("out"))).toBe(before);
  // Both happened: calls that found the directory, and calls that found the link only after their path had been judged.
  expect(answers.filter(({ success }) => success).length).toBeGreaterThan(0);
  expect(answers.some(({ error }) => error.includes("is outside what was granted"))).toBe(true);
}, 60_000);

test("undoing reaches no further, whatever its path leads to by then", async () => {
  const before = await fingerprint(at("out"));
  const written = await guest("fs.write", { path: at("in", "d", "victim"), content: "mine" });
  expect(written).toMatchObject({ success: true });
  await rename(at("in", "real"), at("in", "aside"));
  await symlink(at("out"), at("in", "real"));
  const undone = await bed.rpc("rollback", { execution_id: written.execution_id, reason: "force: now" });
  expect(undone["success"]).not.toBe(true);
  expect(await fingerprint(at("out"))).toBe(before);

  await rm(at("in", "real"));
  await rename(at("in", "aside"), at("in", "real"));
  expect(await bed.rpc("rollback", { execution_id: written.execution_id })).toMatchObject({ success: true });
  await expect(lstat(at("in", "d", "victim"))).rejects.toThrow("ENOENT");
});

test("a link that is not followed counts for itself: where it points gives no right to it", async () => {
  await writeFile(at("in", "target"), "x");
  await symlink(at("in", "target"), at("out", "pointer"));
  expect(await guest("fs.delete", { path: at("out", "pointer") })).toMatchObject({
    success: false,
    error: expect.stringContaining("is outside what was granted") as string,
  });
  expect(await guest("fs.move", { source: at("out", "pointer"), destination: at("in", "p") })).toMatchObject({
    success: false,
  });
  expect(await readlink(at("out", "pointer"))).toBe(at("in", "target"));
  // Followed, it is its target that counts.
  expect(await guest("fs.write", { path: at("out", "pointer"), content: "y" })).toMatchObject({ success: true });
  expect(await readFile(at("in", "target"), "utf8")).toBe("y");
});

test("what was made and deleted below the path can be undone by the same right", async () => {
  const task = "inside";
  await guest("fs.write", { path: at("in", "new", "deep", "file"), content: "1" }, task);
  await guest("fs.mkdir", { path: at("in", "new", "more") }, task);
  await guest("fs.delete", { path: at("in", "new", "deep"), recursive: true }, task);
  const report = await bed.caller.request("beamline.tools.v1.rollback_task", { task_id: task }, { timeoutMs: 20_000 });
  expect(report).toMatchObject({ steps: [{ success: true }, { success: true }, { success: true }] });
  await expect(lstat(at("in", "new"))).rejects.toThrow("ENOENT");
});

test("a grant below a root that is a link itself holds by the name the root was configured by and by its real one", async () => {
  const home = await mkdtemp(join(tmpdir(), "beamline-linked-"));
  try {
    await mkdir(join(home, "real", "mine"), { recursive: true });
    const root = join(home, "root");
    await symlink("real", root);
    await using linked = await startTestbed({ BEAMLINE_TOOLS_ROOTS: root });
    for (const granted of [root, join(home, "real")]) {
      const holder = `holder of ${granted}`;
      await linked.run("sec.grant", { agent_id: holder, capabilities: [`*:${granted}/mine/*`] });
      for (const way of [root, join(home, "real")]) {
        const asHolder = { agent: holder };
        const path = join(way, "mine", "new", "f");
        const written = await linked.run("fs.write", { path, content: "x" }, asHolder);
        expect(written.error, `${granted} ${way}`).toBe("");
        const link = join(way, "mine", "link");
        const made = await linked.run("fs.symlink", { target: "/etc", link }, asHolder);
        for (const { execution_id } of [made, written])
          expect(await linked.rpc("rollback", { execution_id })).toEqual({ success: true });
        const elsewhere = { path: join(way, "not-mine"), content: "x" };
        expect((await linked.run("fs.write", elsewhere, asHolder)).error).toContain("Capability denied");
      }
    }
    expect(await readdir(join(home, "real", "mine"))).toEqual([]);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
});
