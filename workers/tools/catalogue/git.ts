/** Git (aiOS tools, namespace git), by the git binary with argument vectors. */
import { mkdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { ToolFailure, systemCode } from "../failure.ts";
import { look } from "../files/confine.ts";
import { explain } from "../files/tree.ts";
import { bool, int, list, object, path, str } from "../schema.ts";
import { tool, type Json, type Namespace } from "../tool.ts";
import type { Step } from "../undo.ts";
import { failing, located, restoring } from "./atpath.ts";
import { current, opened, remoteOf, repoAt, run, sourceOf } from "./repository.ts";

interface InRepo {
  readonly repo_path: string;
}

const repo_path = path("Working tree.");
/** A branch, remote or revision: never an option. */
const ref = (description: string, more: Json = {}) =>
  str(description, { minLength: 1, maxLength: 255, pattern: "^[A-Za-z0-9_@^~][A-Za-z0-9_./@^~{}+-]*$", ...more });
const remote = ref("", { default: "origin" });
const paths = ["repo_path"];
/** What git puts into a repository without working tree. */
const BARE = ["HEAD", "config", "description", "branches", "hooks", "info", "objects", "refs"];
const FIELD = "\u001f";

export const git: Namespace<"git"> = {
  "git.init": tool<{ path: string; bare: boolean }>({
    about: "Makes a repository.",
    input: object({ path: path("Directory; made when missing."), "bare?": bool("", { default: false }) }),
    output: object({ success: bool(), path: str() }),
    changes: true,
    paths: ["path"],
    async prepare({ path, bare }, call) {
      const { files } = call.host;
      const plain = files.plain(path);
      if ((await look(files, path)) === undefined)
        return [
          { op: "rmdir", paths: await files.missingParents(path, "whole") },
          { op: "remove", path: plain },
        ];
      const own = bare ? BARE : [".git"];
      const inside = await Promise.all(own.map(async (name) => ({ name, is: await look(files, join(plain, name)) })));
      const [{ is: inner } = {}] = inside;
      if (!bare && inner !== undefined && !inner.isDirectory())
        throw new ToolFailure(`git.init: ${join(plain, ".git")} is not a directory`);
      const made = inside.filter(({ is }) => is === undefined);
      if (made.length === 0) return [{ op: "nothing", path: plain }];
      return made.map(({ name }) => ({ op: "remove", path: join(plain, name) }));
    },
    async run({ path, bare }, call) {
      await using place = await located("git.init", path, call, { parents: [], git: "whole" });
      await mkdir(place.at).catch((thrown: unknown) => {
        if (systemCode(thrown) !== "EEXIST") throw explain("git.init", `failed to create ${path}`, thrown);
      });
      await using directory = await opened(place, path, call);
      await run(directory, ["init", "--quiet", ...(bare ? ["--bare"] : [])], call);
      return { success: true, path: place.path };
    },
  }),

  "git.clone": tool<{ url: string; destination: string; branch?: string; depth: number }>({
    about: "Clones over http or https, or from a directory inside the roots, to a destination that must not exist.",
    input: object({
      url: str("", { minLength: 1, maxLength: 4_096 }),
      destination: path("Directory."),
      "branch?": ref(""),
      "depth?": int("0 is all of it.", { default: 0, minimum: 0 }),
    }),
    output: object({ success: bool(), url: str(), destination: str() }),
    changes: true,
    paths: ["destination"],
    async prepare({ destination }, call) {
      if ((await look(call.host.files, destination)) !== undefined)
        throw new ToolFailure(`git.clone: ${destination} already exists`);
      return restoring("git.clone", destination, call, true, "whole");
    },
    async run({ url, destination, branch, depth }, call) {
      await using source = await sourceOf(url, call);
      await using place = await located("git.clone", destination, call, { parents: [], git: "whole" });
      const options = [
        ...(branch === undefined ? [] : [`--branch=${branch}`]),
        ...(depth > 0 ? [`--depth=${depth}`] : []),
      ];
      await mkdir(place.at).catch(failing("git.clone", `failed to create ${destination}`));
      try {
        await using directory = await opened(place, destination, call);
        await run(directory, ["clone", "--quiet", "--no-local", ...options, "--", source.url, "."], call, source);
        directory.gitDir = ".git";
        await run(directory, ["config", "remote.origin.url", source.name], call);
      } catch (thrown) {
        await rmdir(place.at).catch(() => undefined); // git took back what it had put in
        throw thrown;
      }
      return { success: true, url, destination: place.path };
    },
  }),

  "git.add": tool<InRepo & { files?: string[]; all: boolean }>({
    about: "Stages files, or all changes.",
    input: object({
      repo_path,
      "files?": list(str("Below the repository.", { minLength: 1, maxLength: 4096 })),
      "all?": bool("", { default: false }),
    }),
    output: object({ success: bool(), files_staged: list(str()) }),
    changes: true,
    paths,
    async prepare({ repo_path }, call) {
      await using repo = await repoAt(repo_path, call);
      return await restoring("git.add", join(repo.path, ".git", "index"), call, false, "inside");
    },
    async run({ repo_path, files = [], all }, call) {
      await using repo = await repoAt(repo_path, call);
      if (files.length === 0 && !all) throw new ToolFailure("git.add: name files or set all");
      await run(repo, ["add", ...(all ? ["--all"] : []), "--", ...(all ? [] : files)], call);
      const staged = await run(repo, ["diff", "--cached", "--name-only", "-z"], call);
      return { success: true, files_staged: staged.split("\0").filter(Boolean) };
    },
  }),

  "git.commit": tool<InRepo & { message: string; author?: string }>({
    about: "Commits what is staged.",
    input: object({
      repo_path,
      message: str("", { minLength: 1, maxLength: 65_536 }),
      "author?": str("Name <mail>", { pattern: "^[^<>\\n]{1,200} <[^<>\\n]{1,200}>$" }),
    }),
    output: object({ success: bool(), commit_hash: str(), message: str() }),
    changes: true,
    paths,
    async run({ repo_path, message, author }, call) {
      await using repo = await repoAt(repo_path, call);
      await run(
        repo,
        [
          "commit",
          "--quiet",
          "--no-verify",
          ...(author === undefined ? [] : [`--author=${author}`]),
          `--message=${message}`,
        ],
        call,
      );
      return { success: true, commit_hash: (await run(repo, ["rev-parse", "HEAD"], call)).trim(), message };
    },
  }),

  "git.push": tool<InRepo & { remote: string; branch?: string }>({
    about: "Pushes a branch, the current one when none is named.",
    input: object({ repo_path, "remote?": remote, "branch?": ref("") }),
    output: object({ success: bool(), remote: str(), branch: str() }),
    changes: true,
    paths,
    async run({ repo_path, remote, branch }, call) {
      await using repo = await repoAt(repo_path, call);
      const name = branch ?? (await current(repo, call));
      await using target = await remoteOf(repo, remote, call);
      await run(repo, ["push", "--quiet", "--no-verify", "--", target.url, `${name}:${name}`], call, target);
      return { success: true, remote, branch: name };
    },
  }),

  "git.pull": tool<InRepo & { remote: string; branch?: string }>({
    about: "Pulls a branch, the current one when none is named; only forward.",
    input: object({ repo_path, "remote?": remote, "branch?": ref("") }),
    output: object({ success: bool(), remote: str(), output: str() }),
    changes: true,
    paths,
    async run({ repo_path, remote, branch }, call) {
      await using repo = await repoAt(repo_path, call);
      await using target = await remoteOf(repo, remote, call);
      const output = await run(
        repo,
        ["pull", "--ff-only", "--no-rebase", "--", target.url, branch ?? (await current(repo, call))],
        call,
        target,
      );
      return { success: true, remote, output: output.replaceAll(target.url, target.name) };
    },
  }),

  "git.branch": tool<InRepo & { action: string; name?: string; at?: string }>({
    about: "Lists, creates, switches to or deletes a branch.",
    /** Where the branch is that would be made or deleted; which one would be left. */
    async seen({ repo_path, action, name = "" }, call) {
      await using repo = await repoAt(repo_path, call);
      if (action === "switch") return await current(repo, call);
      const found = await run(repo, ["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads"], call);
      return found.split("\n").find((line) => line.endsWith(` refs/heads/${name}`)) ?? "absent";
    },
    input: object({
      repo_path,
      "action?": str("", { enum: ["list", "create", "switch", "delete"], default: "list" }),
      "name?": ref(""),
    }),
    output: object({ success: bool(), action: str(), branches: list(str()), current: str() }),
    changes: true,
    paths,
    async prepare({ repo_path, action, name = "" }, call) {
      await using repo = await repoAt(repo_path, call);
      const step = (input: Json): readonly Step[] => [
        { op: "run", tool: "git.branch", input: { repo_path: repo.path, ...input } },
      ];
      if (action === "create") return step({ action: "delete", name });
      if (action === "switch") return step({ action: "switch", name: await current(repo, call) });
      if (action !== "delete") return [{ op: "nothing", path: repo.path }];
      return step({
        action: "create",
        name,
        at: (await run(repo, ["rev-parse", "--verify", `refs/heads/${name}`], call)).trim(),
      });
    },
    async run({ repo_path, action, name, at }, call) {
      await using repo = await repoAt(repo_path, call);
      if (action !== "list" && name === undefined) throw new ToolFailure(`git.branch: ${action} needs a name`);
      const given = name ?? "";
      if (action === "create")
        await run(repo, ["branch", "--", given, ...(call.depth > 0 && at !== undefined ? [at] : [])], call);
      else if (action === "switch") await run(repo, ["switch", "--quiet", given], call);
      else if (action === "delete") await run(repo, ["branch", "--quiet", "-D", "--", given], call);
      const branches = (await run(repo, ["for-each-ref", "--format=%(refname:short)", "refs/heads"], call))
        .split("\n")
        .filter(Boolean);
      return { success: true, action, branches, current: await current(repo, call) };
    },
  }),

  "git.status": tool<InRepo>({
    about: "What is staged, modified and untracked.",
    input: object({ repo_path }),
    output: object({
      clean: bool(),
      branch: str(),
      staged: list(str()),
      modified: list(str()),
      untracked: list(str()),
    }),
    paths,
    async run({ repo_path }, call) {
      await using repo = await repoAt(repo_path, call);
      const lines = (await run(repo, ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all"], call))
        .split("\0")
        .filter(Boolean);
      const named = (fits: (index: string, tree: string) => boolean) =>
        lines.filter((line) => fits(line[0] ?? " ", line[1] ?? " ")).map((line) => line.slice(3));
      return {
        clean: lines.length === 0,
        branch: await current(repo, call),
        staged: named((index) => index !== " " && index !== "?"),
        modified: named((_, tree) => tree !== " " && tree !== "?"),
        untracked: named((index) => index === "?"),
      };
    },
  }),

  "git.log": tool<InRepo & { count: number }>({
    about: "Commits, newest first.",
    input: object({ repo_path, "count?": int("", { default: 10, minimum: 1, maximum: 1_000 }) }),
    output: object({ entries: list(object({ hash: str(), author: str(), date: str("RFC 3339"), message: str() })) }),
    paths,
    async run({ repo_path, count }, call) {
      await using repo = await repoAt(repo_path, call);
      const text = await run(
        repo,
        ["log", "-z", `--max-count=${count}`, `--format=%H${FIELD}%an${FIELD}%aI${FIELD}%s`],
        call,
      );
      const entries = text
        .split("\0")
        .filter(Boolean)
        .map((line) => {
          const [hash = "", author = "", date = "", message = ""] = line.trim().split(FIELD);
          return { hash, author, date, message };
        });
      return { entries };
    },
  }),

  "git.diff": tool<InRepo & { staged: boolean; commit?: string }>({
    about: "Changes of the working tree, of what is staged, or since a commit.",
    input: object({ repo_path, "staged?": bool("", { default: false }), "commit?": ref("") }),
    output: object({ diff: str(), files_changed: int() }),
    paths,
    async run({ repo_path, staged, commit }, call) {
      await using repo = await repoAt(repo_path, call);
      const which = [...(staged ? ["--cached"] : []), ...(commit === undefined ? [] : [commit])];
      const diff = await run(repo, ["diff", "--no-ext-diff", "--no-textconv", "--no-color", ...which, "--"], call);
      const names = await run(
        repo,
        ["diff", "--no-ext-diff", "--no-textconv", "--name-only", "-z", ...which, "--"],
        call,
      );
      return { diff, files_changed: names.split("\0").filter(Boolean).length };
    },
  }),
};
