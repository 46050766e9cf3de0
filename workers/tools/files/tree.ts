/** Walking, copying and fingerprinting what lies below a place, one open directory at a time, so that no link leads outside. */
import { createHash, type Hash } from "node:crypto";
import { constants, type BigIntStats, type Stats } from "node:fs";
import {
  chmod,
  lchown,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  readlink,
  symlink,
  type FileHandle,
} from "node:fs/promises";
import { ToolFailure, reasonOf } from "../failure.ts";
import { openDirectory, TRASH } from "./confine.ts";

/** One thing found while walking. */
export interface Entry {
  /** Path below the start, empty for the start itself. */
  readonly below: string;
  readonly name: string;
  readonly stats: BigIntStats;
  /** Valid while the visitor runs. */
  readonly at: string;
  readonly depth: number;
}

export interface WalkOptions {
  /** Levels below the start; 0 is no limit. */
  readonly maxDepth?: number;
  readonly signal?: AbortSignal | undefined;
  /** What cannot be read is left out instead of failing. */
  readonly lenient?: boolean;
}

/** Deepest tree followed: every level holds a handle. */
const MAX_LEVELS = 200;

/** Visits everything below a directory, parents first, names in order. A visitor that answers false is not asked about what lies below. */
export async function walk(
  at: string,
  visit: (entry: Entry) => Promise<boolean | void>,
  options: WalkOptions = {},
): Promise<void> {
  await descend(at, "", 1, visit, options);
}

async function descend(
  at: string,
  below: string,
  depth: number,
  visit: (entry: Entry) => Promise<boolean | void>,
  options: WalkOptions,
): Promise<void> {
  if (depth > MAX_LEVELS) throw new ToolFailure(`${below}: more than ${MAX_LEVELS} directories deep`);
  let handle;
  try {
    handle = await openDirectory(at);
  } catch (thrown) {
    if (options.lenient === true) return;
    throw thrown;
  }
  try {
    const here = `/proc/self/fd/${handle.fd}`;
    const names = (await readdir(here)).filter((name) => name !== TRASH).sort();
    for (const name of names) {
      options.signal?.throwIfAborted();
      const child = `${here}/${name}`;
      const stats = await lstat(child, { bigint: true }).catch((thrown: unknown) => {
        if (options.lenient === true) return undefined;
        throw thrown;
      });
      if (stats === undefined) continue;
      const path = below === "" ? name : `${below}/${name}`;
      const deeper = await visit({ below: path, name, stats, at: child, depth });
      const limit = options.maxDepth ?? 0;
      if (deeper !== false && stats.isDirectory() && (limit === 0 || depth < limit)) {
        await descend(child, path, depth + 1, visit, options);
      }
    }
  } finally {
    await handle.close();
  }
}

/**
 * Copies a file, link or tree to a place that must not exist: contents, modes, times, and owners when allowed to. What is made is held open
 * until it is finished, so that nothing put in its place meanwhile is touched.
 * @param path what to call it in an error
 */
export async function copyTree(from: string, to: string, path: string, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const stats = await lstat(from);
  if (stats.isSymbolicLink()) {
    await symlink(await readlink(from), to);
    await lutimes(to, secondsOf(stats.atimeMs), secondsOf(stats.mtimeMs));
    await keepOwner(to, stats.uid, stats.gid);
  } else if (stats.isFile()) {
    await copyRegular(from, to, signal);
  } else if (stats.isDirectory()) {
    await mkdir(to, { mode: 0o700 });
    const source = await openDirectory(from);
    try {
      const target = await openDirectory(to);
      try {
        const [a, b] = [`/proc/self/fd/${source.fd}`, `/proc/self/fd/${target.fd}`];
        for (const name of await readdir(a)) {
          if (name !== TRASH) await copyTree(`${a}/${name}`, `${b}/${name}`, `${path}/${name}`, signal);
        }
        await finish(target, await source.stat());
      } finally {
        await target.close();
      }
    } finally {
      await source.close();
    }
  } else throw new ToolFailure(`${path}: neither file, directory nor link`);
}

const COPIED_AT_ONCE = 256 * 1024;

async function copyRegular(from: string, to: string, signal: AbortSignal | undefined): Promise<void> {
  const source = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const target = await open(to, NEW_FILE, 0o600);
    try {
      const bytes = Buffer.allocUnsafe(COPIED_AT_ONCE);
      for (;;) {
        signal?.throwIfAborted();
        const { bytesRead } = await source.read(bytes, 0, bytes.length);
        if (bytesRead === 0) break;
        await target.writeFile(bytes.subarray(0, bytesRead));
      }
      await finish(target, await source.stat());
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** Opens a file that must not exist yet. */
export const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Owner first: changing it clears setuid and setgid. */
async function finish(made: FileHandle, { uid, gid, mode, atimeMs, mtimeMs }: Stats): Promise<void> {
  if (process.getuid?.() === 0) await made.chown(uid, gid);
  await made.chmod(mode & 0o7777);
  await made.utimes(secondsOf(atimeMs), secondsOf(mtimeMs));
}

/** A time of `Stats` for `utimes`, to the microsecond: a `Date` is rounded to milliseconds, and what is between two microseconds is cut off. */
export function secondsOf(ms: number): number {
  return (Math.floor(ms * 1_000) + 0.3) / 1_000_000;
}

/** Only root may give files away; anyone else keeps what it makes. */
async function keepOwner(at: string, uid: number, gid: number): Promise<void> {
  if (process.getuid?.() === 0) await lchown(at, uid, gid);
}

/** O_PATH of Linux, which the platform's constants leave out. */
const O_PATH = 0o10000000;

/** Sets the mode of a file or directory through a handle that stands for the thing itself: a link, even one swapped in now, is refused. */
export async function changeMode(at: string, path: string, mode: number): Promise<void> {
  const handle = await open(at, O_PATH | constants.O_NOFOLLOW);
  try {
    if ((await handle.stat()).isSymbolicLink()) throw new ToolFailure(`${path} is a symbolic link`);
    await chmod(`/proc/self/fd/${handle.fd}`, mode);
  } finally {
    await handle.close();
  }
}

/** SHA-256 of a regular file's content, lower-case hex. */
export async function hashFile(at: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  const handle = await open(at, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    for await (const chunk of handle.createReadStream({ autoClose: false, ...(signal && { signal }) }))
      hash.update(chunk as Buffer);
  } finally {
    await handle.close();
  }
  return hash.digest("hex");
}

/** Files whose content a tree's fingerprint reads; of larger ones size and time stand for it. */
const HASHED_BYTES = 8n * 1024n * 1024n;
const MAX_ENTRIES = 100_000;

/** What is at a place, as a hash: kind, mode, owner and content, for a tree of everything in it. `absent` when nothing is there. */
export async function fingerprint(at: string, signal?: AbortSignal): Promise<string> {
  let stats: BigIntStats;
  try {
    stats = await lstat(at, { bigint: true });
  } catch {
    return "absent";
  }
  const hash = createHash("sha256");
  await addTo(hash, "", stats, at, signal);
  if (stats.isDirectory()) {
    let entries = 0;
    await walk(
      at,
      async (entry) => {
        if (++entries > MAX_ENTRIES) throw new ToolFailure(`more than ${MAX_ENTRIES} entries cannot be fingerprinted`);
        await addTo(hash, entry.below, entry.stats, entry.at, signal);
      },
      { signal },
    );
  }
  return hash.digest("hex");
}

async function addTo(
  hash: Hash,
  below: string,
  stats: BigIntStats,
  at: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  let content = "";
  if (stats.isSymbolicLink()) content = await readlink(at);
  else if (stats.isFile()) {
    content = stats.size <= HASHED_BYTES ? await hashFile(at, signal) : `${stats.size} ${stats.mtimeNs}`;
  }
  hash.update(JSON.stringify([below, String(stats.mode), String(stats.uid), String(stats.gid), content]));
}

/** `fs.copy: cannot read /a: permission denied`, whatever was thrown. */
export function explain(tool: string, what: string, thrown: unknown): ToolFailure {
  if (thrown instanceof ToolFailure)
    return thrown.message.startsWith(`${tool}:`) ? thrown : new ToolFailure(`${tool}: ${thrown.message}`);
  return new ToolFailure(`${tool}: ${what}: ${reasonOf(thrown)}`);
}
