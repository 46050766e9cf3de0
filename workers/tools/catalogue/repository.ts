/**
 * Repositories, opened for git: by handle, since a name may lead elsewhere by the time git looks, and only when nothing in them makes git
 * start programs or write beyond them. File tools leave git's own files alone (files/confine.ts, C6), so what was found there stays true while
 * git works. In the working tree git goes by names: a directory swapped for a link while it checks out or stages is git's to notice.
 */
import { lstat, stat, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { ToolFailure } from "../failure.ts";
import { openDirectory, type Place } from "../files/confine.ts";
import { walk } from "../files/tree.ts";
import type { Call } from "../tool.ts";
import { failing, located } from "./atpath.ts";

/**
 * Nothing a repository says may start a program or send git anywhere: no hooks, no pager, no helpers, no way to talk but the one a tool asks
 * for. These win over what a repository says, but only in the process they are given to.
 */
const SAFE = [
  "core.hooksPath=/dev/null",
  "core.fsmonitor=false",
  "core.pager=cat",
  "core.askPass=",
  "credential.helper=",
  "commit.gpgSign=false",
  "protocol.allow=never",
  "http.followRedirects=false",
  "safe.directory=*",
  "gc.auto=0",
  "maintenance.auto=false",
  "fetch.recurseSubmodules=no",
  "push.recurseSubmodules=no",
].flatMap((setting) => ["-c", setting]);

/** The same for the process git starts in a repository it clones from or pushes to, which forgets the others: lowest in rank there. */
const SAFE_FILE = fileURLToPath(new URL("git.safe.conf", import.meta.url));

/** All that a repository may set for itself. Whatever else there is can make git start a program, write or connect elsewhere. */
const HARMLESS =
  /^(core\.(repositoryformatversion|filemode|bare|logallrefupdates|ignorecase|precomposeunicode|symlinks|autocrlf|eol|safecrlf|abbrev|quotepath|compression|whitespace|sharedrepository)|remote\..*\.(url|pushurl|fetch|tagopt)|branch\..*\.(remote|merge|rebase|description)|user\.(name|email)|init\.defaultbranch|extensions\.objectformat|pull\.(rebase|ff)|push\.(default|autosetupremote)|color\..*|advice\..*|diff\.(algorithm|renames|mnemonicprefix|noprefix))$/i;
/** Overruled by `SAFE`, and common; not where `SAFE` does not reach. */
const OVERRULED = /^core\.(hookspath|fsmonitor)$|^gc\.auto$|^commit\.gpgsign$/i;

/** A directory held open: git works in it, whatever its name leads to by then. */
class Opened implements AsyncDisposable {
  /** Where it really is. */
  readonly path: string;
  /** Git's own directory, from there; undefined before there is one. */
  gitDir: ".git" | "." | undefined;
  readonly #handle: FileHandle;

  constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /** For a child to start in: it is resolved before the child's handles go. */
  get cwd(): string {
    return `/proc/self/fd/${this.#handle.fd}`;
  }

  /** The open directory's number. */
  get fd(): number {
    return this.#handle.fd;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/** Opens a directory that is not a link. */
export async function opened(place: Place, given: string, call: Call): Promise<Opened> {
  const handle = await openDirectory(place.at).catch(failing(call.tool, given));
  return new Opened(place.path, handle);
}

/** Runs git, maybe with another repository at hand. Throws `ToolFailure` with what it complained about. */
export async function run(repo: Opened, args: readonly string[], call: Call, source?: Source): Promise<string> {
  return call.host.programs.must("git", [...SAFE, ...(source?.settings ?? []), ...args], {
    cwd: repo.cwd,
    handles: source?.handles ?? [],
    signal: call.signal,
    maxBytes: 4 * 1024 * 1024,
    env: {
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_CONFIG_GLOBAL: SAFE_FILE,
      GIT_TERMINAL_PROMPT: "0",
      GIT_NO_LAZY_FETCH: "1",
      // Looking must not rewrite the index: what git.add left would seem to have changed since.
      GIT_OPTIONAL_LOCKS: "0",
      GIT_ATTR_NOSYSTEM: "1",
      GIT_CEILING_DIRECTORIES: dirname(repo.path),
      // Named, so that git looks for no other: files of the working tree can look like a repository, too.
      ...(repo.gitDir !== undefined && { GIT_DIR: repo.gitDir }),
      GIT_AUTHOR_NAME: call.agent,
      GIT_AUTHOR_EMAIL: `${call.agent}@beamline.invalid`,
      GIT_COMMITTER_NAME: call.agent,
      GIT_COMMITTER_EMAIL: `${call.agent}@beamline.invalid`,
    },
  });
}

/**
 * A repository inside the roots that asks for nothing dangerous. Dispose it.
 * @param remote whether another git works in it on behalf of this one
 */
export async function repoAt(given: string, call: Call, remote = false): Promise<Opened> {
  await using place = await located(call.tool, given, call, { follow: true, git: "inside" });
  const repo = await opened(place, given, call);
  try {
    const inner = await lstat(`${repo.cwd}/.git`).catch(() => undefined);
    const bare = inner === undefined && (await stat(`${repo.cwd}/HEAD`).catch(() => undefined)) !== undefined;
    if (inner?.isDirectory() !== true && !bare) throw new ToolFailure(`${call.tool}: ${given} is not a git repository`);
    if (bare && !/\.git$/i.test(repo.path))
      throw new ToolFailure(
        `${call.tool}: the name of a repository without working tree must end in .git, or any tool could change its own files; ${given} does not`,
      );
    repo.gitDir = bare ? "." : ".git";
    await refuseLinks(`${repo.cwd}/${repo.gitDir}`, call);
    await refuseTraps(repo, call, remote);
    return repo;
  } catch (thrown) {
    await repo[Symbol.asyncDispose]();
    throw thrown;
  }
}

/** Git follows links among its own files, and never makes any: whoever put one there wants it to write elsewhere. */
async function refuseLinks(at: string, call: Call): Promise<void> {
  await walk(
    at,
    async ({ below, stats }) => {
      if (stats.isSymbolicLink()) throw new ToolFailure(`${call.tool}: ${below} of the repository is a symbolic link`);
      return !below.startsWith("objects/");
    },
    { signal: call.signal },
  );
}

/** What a repository could make git do is refused rather than done. */
async function refuseTraps(repo: Opened, call: Call, remote: boolean): Promise<void> {
  const listed = await run(repo, ["config", "--local", "--no-includes", "--name-only", "--list", "-z"], call);
  const trap = listed
    .split("\0")
    .filter(Boolean)
    .find((name) => !HARMLESS.test(name) && (remote || !OVERRULED.test(name)));
  if (trap !== undefined) throw new ToolFailure(`${call.tool}: the repository sets ${trap}, which tools do not allow`);
}

/** The branch a repository is on; `HEAD` when it is on none. */
export async function current(repo: Opened, call: Call): Promise<string> {
  const name = await run(repo, ["symbolic-ref", "--short", "--quiet", "HEAD"], call).catch(() => "");
  return name.trim() === "" ? "HEAD" : name.trim();
}

/** A repository git talks to. Dispose it when git is done. */
export interface Source extends AsyncDisposable {
  /** What git is given. */
  readonly url: string;
  /** What people and `.git/config` are given. */
  readonly name: string;
  readonly settings: readonly string[];
  readonly handles: readonly number[];
}

export async function remoteOf(repo: Opened, name: string, call: Call): Promise<Source> {
  const url = await run(repo, ["config", "--local", "--default=", "--get", `remote.${name}.url`], call);
  if (url.trim() === "") throw new ToolFailure(`${call.tool}: the repository has no remote ${name}`);
  return sourceOf(url.trim(), call);
}

/** A source git may talk to: a repository inside the roots, held open, or a web server whose judged address git is pinned to. */
export async function sourceOf(text: string, call: Call): Promise<Source> {
  const web = /^https?:\/\//i.test(text) ? URL.parse(text) : null;
  if (web !== null) {
    const port = web.port === "" ? (web.protocol === "https:" ? 443 : 80) : Number(web.port);
    const { host, address } = await call.host.egress.checkAddress(`${web.hostname}:${port}`);
    const settings = [
      `protocol.${web.protocol.slice(0, -1)}.allow=always`,
      `http.curloptResolve=${host}:${port}:${address.includes(":") ? `[${address}]` : address}`,
      "http.proxy=",
    ].flatMap((setting) => ["-c", setting]);
    return { url: text, name: text, settings, handles: [], [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  if (!text.startsWith("/"))
    throw new ToolFailure(
      `${call.tool}: only http, https and directories inside the roots can be reached, not ${text}`,
    );
  const repo = await repoAt(text, call, true);
  return {
    url: "/proc/self/fd/3", // whatever its name leads to by then
    name: repo.path,
    settings: ["-c", "protocol.file.allow=always"],
    handles: [repo.fd],
    [Symbol.asyncDispose]: () => repo[Symbol.asyncDispose](),
  };
}
