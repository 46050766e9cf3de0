/** What tools that work at a path share: opening it, saying why not, and how to bring it back to what it was. */
import { lstat, stat, statfs } from "node:fs/promises";
import type { FileFacts } from "../backup.ts";
import { ToolFailure } from "../failure.ts";
import type { Place, PlaceOptions } from "../files/confine.ts";
import { explain } from "../files/tree.ts";
import type { Call } from "../tool.ts";
import type { Step } from "../undo.ts";

/** Use of a file system: bytes. Throws the system's error. */
export async function diskUsage(
  path: string,
): Promise<{ total_bytes: number; used_bytes: number; available_bytes: number; usage_percent: number }> {
  await stat(path);
  const { blocks, bavail, bsize } = await statfs(path);
  const [total, available] = [blocks * bsize, bavail * bsize];
  const used = total - available;
  return {
    total_bytes: total,
    used_bytes: used,
    available_bytes: available,
    usage_percent: total === 0 ? 0 : Math.round((used / total) * 10_000) / 100,
  };
}

/** Opens a place, its failure headed by the tool. */
export async function located(name: string, given: string, call: Call, options: PlaceOptions = {}): Promise<Place> {
  try {
    return await call.host.files.place(given, options);
  } catch (thrown) {
    throw explain(name, given, thrown);
  }
}

/**
 * How to bring a file back to what it is now: what it holds, or that it is not there, along with directories that will be made for it.
 * With `follow`, what a link at the end points to is what is written.
 */
export async function restoring(
  name: string,
  given: string,
  call: Call,
  follow = true,
  git?: PlaceOptions["git"],
): Promise<Step[]> {
  const { files, backups, newId } = call.host;
  const parents = await files.missingParents(given, git);
  const made: Step[] = parents.length === 0 ? [] : [{ op: "rmdir", paths: parents }];
  if (parents.length > 0) return [...made, { op: "remove", path: files.plain(given) }];
  await using place = await located(name, given, call, { follow, ...(git !== undefined && { git }) });
  try {
    const before = await backups.take(place, `${call.executionId}/${newId()}`, call.signal);
    return [before === undefined ? { op: "remove", path: place.path } : { op: "put_back", path: place.path, before }];
  } catch (thrown) {
    throw explain(name, given, thrown);
  }
}

/** Mode and owner of the file that is about to be replaced; undefined when there is none. Throws `ToolFailure` for anything else. */
export async function replacing(name: string, given: string, place: Place): Promise<FileFacts | undefined> {
  const before = await lstat(place.at).catch(() => undefined);
  if (before === undefined) return undefined;
  if (!before.isFile()) throw new ToolFailure(`${name}: ${given} is not a regular file`);
  return { mode: before.mode & 0o7777, uid: before.uid, gid: before.gid };
}

/** Throws the system's words under the tool's name. */
export function failing(name: string, what: string): (thrown: unknown) => never {
  return (thrown) => {
    throw explain(name, what, thrown);
  };
}
