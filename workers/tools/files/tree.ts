/** Walking, copying and fingerprinting what lies below a place, one open directory at a time, so that no link leads outside. */
import { createHash, type Hash } from "node:crypto";
import { constants, type BigIntStats } from "node:fs";
import {
  chmod,
  copyFile,
  lchown,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  readlink,
  symlink,
  utimes,
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

/** Copies a file, link or tree to a place that must not exist: contents, modes, times, and owners when allowed to. */
export async function copyTree(from: string, to: string, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const stats = await lstat(from);
  if (stats.isSymbolicLink()) {
    await symlink(await readlink(from), to);
    await lutimes(to, stats.atime, stats.mtime);
  } else if (stats.isFile()) {
    await copyRegular(from, to);
  } else if (stats.isDirectory()) {
    await mkdir(to, { mode: 0o700 });
    const [source, target] = [await openDirectory(from), await openDirectory(to)];
    try {
      const [a, b] = [`/proc/self/fd/${source.fd}`, `/proc/self/fd/${target.fd}`];
      for (const name of await readdir(a)) {
        if (name !== TRASH) await copyTree(`${a}/${name}`, `${b}/${name}`, signal);
      }
    } finally {
      await source.close();
      await target.close();
    }
  } else throw new ToolFailure(`${from}: neither file, directory nor link`);
  await keepOwner(to, stats.uid, stats.gid);
  if (stats.isSymbolicLink()) return;
  await chmod(to, stats.mode & 0o7777);
  await utimes(to, stats.atime, stats.mtime);
}

async function copyRegular(from: string, to: string): Promise<void> {
  const source = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    await copyFile(`/proc/self/fd/${source.fd}`, to, constants.COPYFILE_EXCL);
  } finally {
    await source.close();
  }
}

/** Only root may give files away; anyone else keeps what it makes. */
export async function keepOwner(at: string, uid: number, gid: number): Promise<void> {
  if (process.getuid?.() === 0) await lchown(at, uid, gid);
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
