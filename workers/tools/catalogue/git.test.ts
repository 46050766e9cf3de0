/** Git tools: what they do and undo, and that nothing a repository says runs a program or leads out of it. */
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fingerprint } from "../files/tree.ts";
import { startTestbed, type Testbed } from "../testbed.ts";
import type { Json } from "../tool.ts";

let bed: Testbed;

beforeAll(async () => {
  bed = await startTestbed();
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

const at = (...names: string[]): string => join(bed.root, ...names);
const says = (text: string): unknown => expect.stringContaining(text);
const exists = (path: string): Promise<boolean> =>
  readFile(path).then(
    () => true,
    () => false,
  );
/** Git as anybody runs it by hand. */
const plainGit = (cwd: string, ...args: string[]): Promise<unknown> =>
  promisify(execFile)("git", ["-c", "user.name=x", "-c", "user.email=x@y", ...args], { cwd });

/** A repository with one commit. */
async function repository(name: string): Promise<string> {
  const path = at(name);
  expect((await bed.run("git.init", { path })).error).toBe("");
  await writeFile(join(path, "a.txt"), "a\n");
  await bed.run("git.add", { repo_path: path, all: true });
  expect((await bed.run("git.commit", { repo_path: path, message: "first" })).error).toBe("");
  return path;
}

test("a repository from init to rollback", async () => {
  const repo = at("repo");
  const init = await bed.run("git.init", { path: repo });
  expect(init.error).toBe("");
  await writeFile(join(repo, "a.txt"), "a\n");
  expect((await bed.run("git.status", { repo_path: repo })).output).toMatchObject({
    clean: false,
    untracked: ["a.txt"],
  });
  const added = await bed.run("git.add", { repo_path: repo, files: ["a.txt"] });
  expect(added.output).toMatchObject({ files_staged: ["a.txt"] });
  await utimes(join(repo, "a.txt"), 1, 1).then(() => bed.run("git.status", { repo_path: repo })); // looks, no more
  expect(await bed.rpc("rollback", { execution_id: added.execution_id })).toMatchObject({ success: true });
  expect((await bed.run("git.status", { repo_path: repo })).output).toMatchObject({
    staged: [],
    untracked: ["a.txt"],
  });
  await bed.run("git.add", { repo_path: repo, all: true });
  const commit = await bed.run("git.commit", { repo_path: repo, message: "first", author: "Me <me@example.org>" });
  expect(commit.output["commit_hash"]).toMatch(/^[0-9a-f]{40}$/);
  expect((await bed.run("git.log", { repo_path: repo })).output).toMatchObject({
    entries: [{ message: "first", author: "Me" }],
  });
  const branch = await bed.run("git.branch", { repo_path: repo, action: "create", name: "side" });
  expect(branch.output["branches"]).toContain("side");
  expect(await bed.rpc("rollback", { execution_id: branch.execution_id })).toMatchObject({ success: true });
  expect((await bed.run("git.branch", { repo_path: repo })).output["branches"]).not.toContain("side");
  await writeFile(join(repo, "a.txt"), "b\n");
  expect((await bed.run("git.diff", { repo_path: repo })).output).toMatchObject({ files_changed: 1 });
  const clone = await bed.run("git.clone", { url: repo, destination: at("clone") });
  expect(clone.error).toBe("");
  expect(await readFile(at("clone", "a.txt"), "utf8")).toBe("a\n");
  expect(await bed.rpc("rollback", { execution_id: clone.execution_id })).toMatchObject({ success: true });
  expect(await bed.run("git.clone", { url: "http://127.0.0.1:1/x.git", destination: at("no") })).toMatchObject({
    success: false,
  });
  expect(await bed.run("git.clone", { url: "ext::sh -c id", destination: at("no") })).toMatchObject({
    success: false,
  });
  // Whoever may make links could have git write wherever they lead.
  await rename(join(repo, ".git", "refs", "heads"), join(repo, ".git", "refs", "aside"));
  await symlink(at("elsewhere"), join(repo, ".git", "refs", "heads"));
  expect(await bed.run("git.branch", { repo_path: repo, action: "create", name: "owned" })).toMatchObject({
    success: false,
    error: expect.stringContaining("refs/heads of the repository is a symbolic link") as string,
  });
  await rm(join(repo, ".git", "refs", "heads"));
  await rename(join(repo, ".git", "refs", "aside"), join(repo, ".git", "refs", "heads"));
  await writeFile(
    join(repo, ".git", "config"),
    `${await readFile(join(repo, ".git", "config"), "utf8")}[filter "x"]\n\tclean = touch ${at("owned")}\n`,
  );
  expect(await bed.run("git.status", { repo_path: repo })).toMatchObject({
    success: false,
    error: expect.stringContaining("filter.x.clean") as string,
  });
});

describe("undone", () => {
  test.each([
    ["in a directory that is missing, with those above it", false, false],
    ["in a directory with something in it", true, false],
    ["without working tree, missing", false, true],
    ["without working tree, in a directory that is there", true, true],
  ])("git.init %s", async (_what, there, bare) => {
    const path = at("init", `${there}-${bare}`, bare ? "r.git" : "r");
    if (there) {
      await mkdir(path, { recursive: true });
      await writeFile(join(path, "mine.txt"), "mine");
    }
    const before = await fingerprint(bed.root);
    const made = await bed.run("git.init", { path, bare });
    expect(made).toMatchObject({ success: true, output: { path } });
    expect(await exists(join(path, bare ? "HEAD" : ".git/HEAD"))).toBe(true);
    expect(await bed.rpc("rollback", { execution_id: made.execution_id })).toMatchObject({ success: true });
    expect(await fingerprint(bed.root)).toBe(before);
  });

  test("git.branch: what was made goes, what was left is gone back to, what was deleted is where it was", async () => {
    const repo_path = await repository("branches");
    await plainGit(repo_path, "branch", "old");
    await writeFile(join(repo_path, "a.txt"), "b\n");
    await bed.run("git.add", { repo_path, all: true });
    await bed.run("git.commit", { repo_path, message: "second" });
    const branches = async (): Promise<Json> => (await bed.run("git.branch", { repo_path })).output;
    const refs = await readFile(join(repo_path, ".git", "refs", "heads", "old"), "utf8");
    const before = await branches();
    const done = [
      await bed.run("git.branch", { repo_path, action: "create", name: "new" }),
      await bed.run("git.branch", { repo_path, action: "switch", name: "new" }),
      await bed.run("git.branch", { repo_path, action: "delete", name: "old" }),
    ];
    expect(done.map(({ error }) => error)).toEqual(["", "", ""]);
    expect(await branches()).toMatchObject({
      current: "new",
      branches: expect.not.arrayContaining(["old"]) as unknown,
    });
    for (const { execution_id } of done.toReversed())
      expect(await bed.rpc("rollback", { execution_id })).toMatchObject({ success: true });
    expect(await branches()).toEqual(before);
    expect(await readFile(join(repo_path, ".git", "refs", "heads", "old"), "utf8")).toBe(refs);
  });
});

/** Every hook that any of the commands below could run. */
const HOOKS =
  "pre-commit prepare-commit-msg commit-msg post-commit post-checkout post-merge pre-push pre-receive update post-receive post-update push-to-checkout reference-transaction post-index-change fsmonitor-watchman proc-receive".split(
    " ",
  );

describe("nothing a repository says is run", () => {
  /** A program that leaves a mark. */
  async function trap(name: string): Promise<{ program: string; mark: string }> {
    const [program, mark] = [at(`${name}.sh`), at(`${name}.mark`)];
    await writeFile(program, `#!/bin/sh\necho "$0" >> ${mark}\ncat 2>/dev/null\nexit 0\n`, { mode: 0o755 });
    return { program, mark };
  }

  /** Every git tool that works in a repository. */
  async function useAll(repo_path: string, n: string): Promise<string[]> {
    await writeFile(join(repo_path, "a.txt"), `changed ${n}\n`);
    const calls: [string, Json][] = [
      ["git.status", { repo_path }],
      ["git.diff", { repo_path }],
      ["git.add", { repo_path, all: true }],
      ["git.commit", { repo_path, message: `m${n}` }],
      ["git.branch", { repo_path, action: "create", name: `b${n}` }],
      ["git.branch", { repo_path, action: "switch", name: `b${n}` }],
      ["git.log", { repo_path }],
      ["git.push", { repo_path, branch: `b${n}` }],
      ["git.pull", { repo_path, branch: `b${n}` }],
      ["git.clone", { url: repo_path, destination: at(`clone-${n}`) }],
    ];
    const errors: string[] = [];
    for (const [tool, input] of calls) errors.push((await bed.run(tool, input)).error);
    return errors;
  }

  test("hooks, of the repository and of the one it clones from and pushes to", async () => {
    const { program, mark } = await trap("hook");
    const repo = await repository("hooked");
    const bare = at("hooked-remote.git");
    await bed.run("git.init", { path: bare, bare: true });
    await plainGit(repo, "remote", "add", "origin", bare);
    for (const directory of [join(repo, ".git", "hooks"), join(bare, "hooks")]) {
      await mkdir(directory, { recursive: true });
      for (const hook of HOOKS) {
        await writeFile(join(directory, hook), await readFile(program));
        await chmod(join(directory, hook), 0o755);
      }
    }
    expect(await useAll(repo, "hooks")).toEqual(Array.from({ length: 10 }, () => ""));
    expect(await exists(mark)).toBe(false);
    // They would have been: git by hand runs them, here and over there.
    await plainGit(repo, "commit", "--allow-empty", "-m", "by hand");
    await plainGit(repo, "push", "-q", "origin", "HEAD:refs/heads/by-hand");
    const ran = await readFile(mark, "utf8");
    expect(ran).toContain(".git/hooks/pre-commit");
    expect(ran).toContain("hooks/pre-receive");
  });

  test.each([
    ["core.hooksPath", "directory", true],
    ["core.fsmonitor", "program", true],
    ["commit.gpgSign", "true", true],
    ["core.sshCommand", "program", false],
    ["core.gitProxy", "program", false],
    ["core.alternateRefsCommand", "program", false],
    ["core.editor", "program", false],
    ["core.worktree", "elsewhere", false],
    ["filter.evil.clean", "program", false],
    ["filter.evil.process", "program", false],
    ["diff.external", "program", false],
    ["diff.evil.textconv", "program", false],
    ["merge.evil.driver", "program", false],
    ["gpg.program", "program", false],
    ["credential.helper", "program", false],
    ["remote.origin.uploadpack", "program", false],
    ["remote.origin.receivepack", "program", false],
    ["remote.origin.promisor", "true", false],
    ["extensions.partialClone", "origin", false],
    ["extensions.worktreeConfig", "true", false],
    ["include.path", "more", false],
    ["url.ext::program.insteadOf", "http", false],
    ["http.proxy", "http://169.254.169.254", false],
    ["fetch.bundleURI", "http://169.254.169.254", false],
    ["uploadpack.packObjectsHook", "program", false],
    ["receive.procReceiveRefs", "refs", false],
    ["submodule.evil.update", "!program", false],
    ["alias.status", "!program", false],
  ])("%s", async (setting, value, overruled) => {
    const name = setting.replaceAll(/[^A-Za-z]/g, "_");
    const { program, mark } = await trap(name);
    const repo = await repository(name);
    await writeFile(join(repo, ".gitattributes"), "* filter=evil diff=evil merge=evil\n");
    const text = value.replace("program", program).replace("directory", bed.root).replace("elsewhere", at("elsewhere"));
    await plainGit(repo, "config", setting, text);
    if (setting === "extensions.worktreeConfig")
      await writeFile(join(repo, ".git", "config.worktree"), `[filter "evil"]\n\tclean = ${program}\n`);
    const before = await fingerprint(join(repo, ".git"));
    const errors = await useAll(repo, name);
    const named = errors.filter((error) => error.includes(`the repository sets ${setting.toLowerCase().slice(0, 6)}`));
    if (overruled) {
      expect(errors.slice(0, 7)).toEqual(Array.from({ length: 7 }, () => ""));
      // Not where the settings that overrule do not reach: in a repository that is cloned from.
      expect(named.length).toBe(1);
    } else {
      expect(named.length, errors.join("\n")).toBe(errors.length);
      expect(await fingerprint(join(repo, ".git"))).toBe(before);
    }
    expect(await exists(mark)).toBe(false);
  });

  test("a working tree that looks like a repository itself", async () => {
    const { program, mark } = await trap("inner");
    const repo = await repository("inner");
    for (const name of ["objects", "refs"]) await mkdir(join(repo, name));
    await writeFile(join(repo, "HEAD"), "ref: refs/heads/main\n");
    await writeFile(
      join(repo, "config"),
      `[core]\n\trepositoryformatversion = 0\n\tworktree = .\n\tfsmonitor = ${program}\n`,
    );
    expect(await bed.run("git.status", { repo_path: repo })).toMatchObject({ success: true });
    await bed.run("fs.delete", { path: join(repo, ".git"), recursive: true });
    expect(await bed.run("git.status", { repo_path: repo })).toMatchObject({
      success: false,
      error: says("must end in .git"),
    });
    expect(await exists(mark)).toBe(false);
  });
});

test("a clone knows its source by name, and goes on working with it", async () => {
  const repo = await repository("source");
  const [bare, copy] = [at("source.git"), at("working")];
  await plainGit(at(), "clone", "-q", "--bare", repo, bare);
  expect(await bed.run("git.clone", { url: bare, destination: copy })).toMatchObject({ success: true, error: "" });
  expect(await readFile(join(copy, ".git", "config"), "utf8")).toContain(`url = ${bare}\n`);
  await writeFile(join(copy, "a.txt"), "b\n");
  await bed.run("git.add", { repo_path: copy, all: true });
  await bed.run("git.commit", { repo_path: copy, message: "second" });
  expect(await bed.run("git.push", { repo_path: copy })).toMatchObject({ success: true, error: "" });
  expect(await bed.run("git.pull", { repo_path: copy })).toMatchObject({ success: true, error: "" });
  const shallow = await bed.run("git.clone", { url: bare, destination: at("shallow"), depth: 1 });
  expect(shallow).toMatchObject({ success: true, error: "" });
  expect((await bed.run("git.log", { repo_path: at("shallow") })).output["entries"]).toHaveLength(1);
});

test("a source whose name leads elsewhere by the time git asks for it is the one that was judged", async () => {
  const good = await repository("swap-good");
  const outside = await mkdtemp(join(tmpdir(), "beamline-outside-"));
  await plainGit(outside, "init", "-q", "-b", "secret");
  await plainGit(outside, "commit", "-q", "--allow-empty", "-m", "secret");
  for (const name of ["swap-a", "swap-b"]) await mkdir(at(name));
  await rename(good, at("swap-a", "repo"));
  await symlink(outside, at("swap-b", "repo"));
  const lead = async (to: string): Promise<void> => {
    await symlink(to, at("swap-next"));
    await rename(at("swap-next"), at("swap"));
  };
  await lead("swap-a");
  let going = true;
  const swapping = (async () => {
    while (going) {
      await lead("swap-b");
      await lead("swap-a");
    }
  })();
  const met = { judged: 0, refused: 0 };
  for (let n = 0; n < 500 && (met.judged < 5 || met.refused < 5); n++) {
    const destination = at(`swapped-${n}`);
    const { success } = await bed.run("git.clone", { url: at("swap", "repo"), destination });
    met[success ? "judged" : "refused"]++;
    if (success) expect(JSON.stringify(await bed.run("git.log", { repo_path: destination }))).not.toContain("secret");
  }
  going = false;
  await swapping;
  expect(Math.min(met.judged, met.refused)).toBeGreaterThan(0);
  await rm(outside, { recursive: true });
}, 60_000);

describe("git's own files are git's", () => {
  test("no other tool changes them, by whatever name", async () => {
    const repo = await repository("kept");
    const bare = at("kept.git");
    await bed.run("git.init", { path: bare, bare: true });
    await symlink(".git", join(repo, "by-link"));
    await symlink(".git/config", join(repo, "config-link"));
    await writeFile(at("mine"), "mine");
    const before = await fingerprint(bed.root);
    const inside = [".git/config", ".git/hooks/pre-commit", ".git/new/deep", "by-link/config"].map((name) =>
      join(repo, name),
    );
    const calls: [string, Json][] = [...inside, join(repo, "config-link"), join(bare, "config")].flatMap((path) => [
      ["fs.write", { path, content: "x" }],
      ["code.generate", { file_path: path, description: "x" }],
      ["web.download", { url: "http://192.0.2.1/", destination: path }],
    ]);
    for (const path of [...inside, join(bare, "config")])
      calls.push(
        ["fs.delete", { path, recursive: true }],
        ["fs.mkdir", { path: `${path}.d`, recursive: true }],
        ["fs.symlink", { target: "/tmp", link: `${path}.l` }],
        ["fs.chmod", { path, mode: "777" }],
        ["fs.chown", { path, uid: 1, gid: 1 }],
        ["fs.move", { source: at("mine"), destination: path }],
        ["fs.move", { source: path, destination: at("taken") }],
        ["fs.copy", { source: at("mine"), destination: path }],
      );
    for (const path of [join(repo, ".git"), at("new", ".git"), at("new.git"), at(".GIT")])
      calls.push(
        ["fs.write", { path, content: "gitdir: /elsewhere" }],
        ["fs.mkdir", { path, recursive: true }],
        ["fs.symlink", { target: "/elsewhere", link: path }],
        ["fs.move", { source: at("mine"), destination: path }],
        ["fs.move", { source: path, destination: at("taken") }],
        ["fs.copy", { source: at("mine"), destination: path }],
      );
    for (const [tool, input] of calls)
      expect(await bed.run(tool, input), `${tool} ${JSON.stringify(input)}`).toMatchObject({ success: false });
    expect(await fingerprint(bed.root)).toBe(before);
    expect(await bed.run("fs.write", { path: inside[0] ?? "", content: "x" })).toMatchObject({
      error: says("only git tools change"),
    });
    // They may be looked at, and a repository moved, copied or deleted whole.
    expect(await bed.run("fs.read", { path: inside[0] ?? "" })).toMatchObject({ success: true });
    expect(await bed.run("fs.copy", { source: repo, destination: at("copied") })).toMatchObject({ success: true });
    expect(await bed.run("fs.move", { source: at("copied"), destination: at("moved") })).toMatchObject({
      success: true,
    });
    expect(await bed.run("git.log", { repo_path: at("moved") })).toMatchObject({ success: true });
    expect(await bed.run("fs.delete", { path: at("moved"), recursive: true })).toMatchObject({ success: true });
  });

  test("a link that keeps changing lets nobody in", async () => {
    const repo = await repository("swapped");
    await mkdir(join(repo, "plain"));
    const lead = async (to: string): Promise<void> => {
      await symlink(to, join(repo, "next"));
      await rename(join(repo, "next"), join(repo, "d"));
    };
    await lead("plain");
    const before = await fingerprint(join(repo, ".git"));
    let going = true;
    const swapping = (async () => {
      while (going) {
        await lead(".git");
        await lead("plain");
      }
    })();
    const met = { plain: 0, git: 0 };
    for (let n = 0; n < 1_000 && (met.plain < 10 || met.git < 10); n++) {
      const { success } = await bed.run("fs.write", { path: join(repo, "d", `f${n}`), content: "x" });
      met[success ? "plain" : "git"]++;
    }
    going = false;
    await swapping;
    expect(Math.min(met.plain, met.git)).toBeGreaterThan(0);
    expect(await fingerprint(join(repo, ".git"))).toBe(before);
  });
});
