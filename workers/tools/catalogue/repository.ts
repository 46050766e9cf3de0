/**
 * Repositories, opened for git: by handle, since a name may lead elsewhere by the time git looks, and only when nothing in them makes git
 * start programs or write beyond them. Git itself works by names again below the directory it starts in; what is swapped inside a repository
 * while it runs is git's to notice.
 */
import { lstat, stat, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { ToolFailure } from "../failure.ts";
import { openDirectory, type Place } from "../files/confine.ts";
import { walk } from "../files/tree.ts";
import type { Call } from "../tool.ts";
import { failing, located } from "./atpath.ts";

/**
 * Nothing a repository says may start a program: no hooks, no pager, no helpers. Settings that cannot be switched off from here make a
 * repository unusable for tools (see `refuseTraps`).
 */
const SAFE = [
  "core.hooksPath=/dev/null",
  "core.fsmonitor=false",
  "core.pager=cat",
  "core.askPass=",
  "credential.helper=",
  "commit.gpgSign=false",
  "protocol.allow=never",
  "protocol.https.allow=always",
  "protocol.http.allow=always",
  "http.followRedirects=false",
  "safe.directory=*",
  "gc.auto=0",
  "maintenance.auto=false",
].flatMap((setting) => ["-c", setting]);

const TRAPS =
  /^(filter\..*|diff\..*\.(command|textconv)|merge\..*\.driver|core\.(sshcommand|gitproxy|editor|worktree|alternaterefscommand)|gpg\..*|remote\..*\.(vcs|proxy|uploadpack|receivepack)|url\..*|include(if)?\..*|http\..*|credential\..*|protocol\..*|uploadpack\..*|receive\..*|submodule\..*)$/i;

/** A directory held open: git works in it, whatever its name leads to by then. */
class Opened implements AsyncDisposable {
  /** Where it really is. */
  readonly path: string;
  readonly #handle: FileHandle;

  constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /** For a child to start in: it is resolved before the child's handles go. */
  get cwd(): string {
    return `/proc/self/fd/${this.#handle.fd}`;
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

/** Runs git. Throws `ToolFailure` with what it complained about. */
export async function run({ cwd, path }: Opened, args: readonly string[], call: Call): Promise<string> {
  return call.host.programs.must("git", [...SAFE, ...args], {
    cwd,
    signal: call.signal,
    maxBytes: 4 * 1024 * 1024,
    env: {
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_TERMINAL_PROMPT: "0",
      GIT_CEILING_DIRECTORIES: dirname(path),
      GIT_AUTHOR_NAME: call.agent,
      GIT_AUTHOR_EMAIL: `${call.agent}@beamline.invalid`,
      GIT_COMMITTER_NAME: call.agent,
      GIT_COMMITTER_EMAIL: `${call.agent}@beamline.invalid`,
    },
  });
}

/** A repository inside the roots that asks for nothing dangerous. Dispose it. */
export async function repoAt(given: string, call: Call): Promise<Opened> {
  await using place = await located(call.tool, given, call, { follow: true });
  const repo = await opened(place, given, call);
  try {
    const inner = await lstat(`${repo.cwd}/.git`).catch(() => undefined);
    const bare = inner === undefined && (await stat(`${repo.cwd}/HEAD`).catch(() => undefined)) !== undefined;
    if (inner?.isDirectory() !== true && !bare) throw new ToolFailure(`${call.tool}: ${given} is not a git repository`);
    await refuseLinks(bare ? `${repo.cwd}/.` : `${repo.cwd}/.git`, call);
    await refuseTraps(repo, call);
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

/** Whoever may write files may write `.git/config`; what it could make git run is refused rather than run. */
async function refuseTraps(repo: Opened, call: Call): Promise<void> {
  const names = (await run(repo, ["config", "--local", "--no-includes", "--name-only", "--list", "-z"], call)).split(
    "\0",
  );
  const trap = names.find((name) => TRAPS.test(name));
  if (trap !== undefined) throw new ToolFailure(`${call.tool}: the repository sets ${trap}, which tools do not allow`);
}

export async function current({ cwd }: Opened, call: Call): Promise<string> {
  const { stdout } = await call.host.programs.run("git", [...SAFE, "symbolic-ref", "--short", "--quiet", "HEAD"], {
    cwd,
    signal: call.signal,
  });
  return stdout.trim() === "" ? "HEAD" : stdout.trim();
}

export async function remoteOf(repo: Opened, name: string, call: Call): Promise<{ url: string; settings: string[] }> {
  return sourceOf((await run(repo, ["config", "--local", "--get", `remote.${name}.url`], call)).trim(), call);
}

/** A source git may talk to: a directory inside the roots, or a web server whose judged address git is pinned to. */
export async function sourceOf(text: string, call: Call): Promise<{ url: string; settings: string[] }> {
  const web = /^https?:\/\//i.test(text) ? URL.parse(text) : null;
  if (web !== null) {
    const port = web.port === "" ? (web.protocol === "https:" ? 443 : 80) : Number(web.port);
    const { host, address } = await call.host.egress.checkAddress(`${web.hostname}:${port}`);
    return {
      url: text,
      settings: [
        "-c",
        `http.curloptResolve=${host}:${port}:${address.includes(":") ? `[${address}]` : address}`,
        "-c",
        "http.proxy=",
      ],
    };
  }
  if (!text.startsWith("/"))
    throw new ToolFailure(
      `${call.tool}: only http, https and directories inside the roots can be reached, not ${text}`,
    );
  await using place = await located(call.tool, text, call, { follow: true });
  return { url: place.path, settings: ["-c", "protocol.file.allow=always"] };
}
