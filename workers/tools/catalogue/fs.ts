/** Files (aiOS tools, namespace fs). Everything happens inside the configured roots; see files/confine.ts for how. */
import { constants } from "node:fs";
import { lchown, lstat, mkdir, open, readdir, rename, rm, symlink, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { putFile } from "../backup.ts";
import { ToolFailure, systemCode } from "../failure.ts";
import { look, openDirectory, TRASH, type Place } from "../files/confine.ts";
import { globMatcher } from "../files/glob.ts";
import { changeMode, copyTree, explain, walk } from "../files/tree.ts";
import { diskUsage, failing, located, replacing, restoring } from "./atpath.ts";
import { bool, int, list, num, object, path, str } from "../schema.ts";
import { tool, type Call, type Namespace } from "../tool.ts";
import { moveToTrash, trashFor } from "../undo.ts";

/** Largest file read as text, bytes. */
const MAX_READ = 1_048_576;
const MAX_ENTRIES = 10_000;
const MAX_MATCHES = 10_000;

interface AtPath {
  readonly path: string;
}

const file = path("Path of a file or directory, absolute or below the first root.");

export const fs: Namespace<"fs"> = {
  "fs.read": tool<AtPath>({
    about: "Reads a text file (UTF-8), following a symbolic link at its end.",
    input: object({ path: file }),
    output: object({ content: str("The text."), size: int("Bytes.") }),
    paths: ["path"],
    async run({ path }, call) {
      await using place = await located("fs.read", path, call, { follow: true, git: "inside" });
      const handle = await open(place.at, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
        (thrown: unknown) => {
          throw explain("fs.read", `failed to read ${path}`, thrown);
        },
      );
      try {
        const stats = await handle.stat();
        if (!stats.isFile()) throw new ToolFailure(`fs.read: failed to read ${path}: not a regular file`);
        if (stats.size > MAX_READ)
          throw new ToolFailure(`fs.read: ${path} has ${stats.size} bytes, more than ${MAX_READ}`);
        const bytes = await handle.readFile();
        const content = decode(bytes);
        if (content === undefined) throw new ToolFailure(`fs.read: failed to read ${path}: not UTF-8 text`);
        return { content, size: bytes.length };
      } finally {
        await handle.close();
      }
    },
  }),

  "fs.write": tool<AtPath & { content: string }>({
    about:
      "Creates or replaces a file, whole or not at all; missing directories above it are made. Mode and owner of an existing file stay.",
    input: object({ path: file, content: str("The text.") }),
    output: object({ bytes_written: int("Bytes.") }),
    changes: true,
    paths: ["path"],
    prepare: ({ path }, call) => restoring("fs.write", path, call),
    async run({ path, content }, call) {
      await using place = await located("fs.write", path, call, { follow: true, parents: [] });
      const facts = await replacing("fs.write", path, place);
      return {
        bytes_written: await putFile(place, content, facts).catch(failing("fs.write", `failed to write ${path}`)),
      };
    },
  }),

  "fs.delete": tool<AtPath & { recursive: boolean }>({
    about: "Removes a file, link or directory. It is kept aside for a while, so that Rollback can put it back.",
    input: object({ path: file, "recursive?": bool("Also a directory with something in it.", { default: false }) }),
    output: object({ deleted: bool() }),
    changes: true,
    paths: ["path"],
    async prepare({ path, recursive }, call) {
      await using place = await located("fs.delete", path, call, { git: "whole" });
      const stats = await lstat(place.at).catch(failing("fs.delete", `failed to delete ${path}`));
      if (place.name === ".") throw new ToolFailure(`fs.delete: ${path} is a root`);
      if (stats.isDirectory() && !recursive && (await readdir(place.at)).length > 0) {
        throw new ToolFailure(`fs.delete: ${path} is not empty; set recursive to delete it with everything in it`);
      }
      return [{ op: "move", from: await trashFor(path, call), to: place.path }];
    },
    async run({ path }, call) {
      const [step] = call.steps;
      if (step?.op !== "move") throw new ToolFailure("fs.delete: nothing was prepared");
      await moveToTrash(step.to, step.from, call).catch(failing("fs.delete", `failed to delete ${path}`));
      return { deleted: true };
    },
  }),

  "fs.list": tool<AtPath>({
    about: "Lists what is directly in a directory, by name.",
    input: object({ path: file }),
    output: object({
      entries: list(
        object({ name: str(), type: str("file, dir or symlink"), size: int("Bytes."), modified: str("RFC 3339") }),
      ),
    }),
    paths: ["path"],
    async run({ path }, call) {
      await using place = await located("fs.list", path, call, { follow: true, git: "inside" });
      const handle = await openDirectory(place.at).catch(failing("fs.list", `failed to list ${path}`));
      try {
        const here = `/proc/self/fd/${handle.fd}`;
        const names = (await readdir(here)).filter((name) => name !== TRASH).sort();
        if (names.length > MAX_ENTRIES)
          throw new ToolFailure(`fs.list: ${path} has ${names.length} entries, more than ${MAX_ENTRIES}`);
        const entries = await Promise.all(
          names.map(async (name) => {
            const stats = await lstat(`${here}/${name}`).catch(() => undefined);
            if (stats === undefined) return [];
            const type = stats.isSymbolicLink() ? "symlink" : stats.isDirectory() ? "dir" : "file";
            return [{ name, type, size: stats.size, modified: stats.mtime.toISOString() }];
          }),
        );
        return { entries: entries.flat() };
      } finally {
        await handle.close();
      }
    },
  }),

  "fs.stat": tool<AtPath>({
    about: "Facts about a file, directory or link, which is not followed.",
    input: object({ path: file }),
    output: object({
      size: int("Bytes."),
      permissions: str("Four octal digits."),
      modified: str("RFC 3339"),
      accessed: str("RFC 3339"),
      is_dir: bool(),
      is_file: bool(),
      is_symlink: bool(),
    }),
    paths: ["path"],
    async run({ path }, call) {
      await using place = await located("fs.stat", path, call, { git: "inside" });
      const stats = await place.stat().catch(failing("fs.stat", `failed to stat ${path}`));
      return {
        size: stats.size,
        permissions: (stats.mode & 0o7777).toString(8).padStart(4, "0"),
        modified: stats.mtime.toISOString(),
        accessed: stats.atime.toISOString(),
        is_dir: stats.isDirectory(),
        is_file: stats.isFile(),
        is_symlink: stats.isSymbolicLink(),
      };
    },
  }),

  "fs.mkdir": tool<AtPath & { recursive: boolean }>({
    about: "Makes a directory; with recursive also those above it, and then one that exists is fine.",
    input: object({ path: file, "recursive?": bool("", { default: false }) }),
    output: object({ created: bool() }),
    changes: true,
    paths: ["path"],
    async prepare({ path, recursive }, call) {
      const plain = call.host.files.plain(path);
      const there = await look(call.host.files, path).catch(failing("fs.mkdir", path));
      if (there !== undefined) {
        if (recursive && there.isDirectory()) return [{ op: "nothing", path: plain }];
        throw new ToolFailure(`fs.mkdir: failed to create ${path}: already exists`);
      }
      return [{ op: "rmdir", paths: [...(recursive ? await call.host.files.missingParents(path) : []), plain] }];
    },
    async run({ path, recursive }, call) {
      await using place = await located("fs.mkdir", path, call, recursive ? { parents: [] } : {});
      await mkdir(place.at).catch((thrown: unknown) => {
        if (!recursive || systemCode(thrown) !== "EEXIST")
          throw explain("fs.mkdir", `failed to create ${path}`, thrown);
      });
      return { created: true };
    },
  }),

  "fs.move": tool<{ source: string; destination: string }>({
    about:
      "Moves or renames; to another file system it is copied and then deleted. A file at the destination is replaced.",
    input: object({ source: file, destination: file }),
    output: object({ moved: bool() }),
    changes: true,
    paths: ["source", "destination"],
    async prepare({ source, destination }, call) {
      await using from = await located("fs.move", source, call);
      await lstat(from.at).catch(failing("fs.move", `failed to move ${source}`));
      if ((await realName(destination, call)) === from.path) return [{ op: "nothing", path: from.path }];
      const replaced = await restoring("fs.move", destination, call, false);
      const across = await onOtherDevice(from, destination, call);
      // Undone from the last to the first: the source comes back, then the destination gets back what it held.
      const kept = replaced.filter((step) => step.op !== "remove");
      if (!across) return [...kept, { op: "move", from: call.host.files.plain(destination), to: from.path }];
      return [...replaced, { op: "move", from: await trashFor(source, call), to: from.path }];
    },
    async run({ source, destination }, call) {
      await using from = await located("fs.move", source, call);
      await using to = await located("fs.move", destination, call, { parents: [] });
      if (to.path === from.path) return { moved: true };
      const aside = call.steps.find((step) => step.op === "move");
      if (aside?.op !== "move") throw new ToolFailure("fs.move: nothing was prepared");
      if (aside.from.includes(`/${TRASH}/`)) {
        await copyWhole(from, to, source, call).catch(failing("fs.move", `failed to move ${source}`));
        await moveToTrash(source, aside.from, call);
        return { moved: true };
      }
      // Renaming one name of a file to another of its names does nothing at all.
      if (await isSameFile(from, to)) await unlink(to.at);
      await rename(from.at, to.at).catch(failing("fs.move", `failed to move ${source} to ${destination}`));
      return { moved: true };
    },
  }),

  "fs.copy": tool<{ source: string; destination: string }>({
    about: "Copies a file or a whole tree with modes and times; missing directories above the destination are made.",
    input: object({ source: file, destination: file }),
    output: object({ copied: bool() }),
    changes: true,
    paths: ["source", "destination"],
    async prepare({ source, destination }, call) {
      await using from = await located("fs.copy", source, call, { follow: true, git: "inside" });
      const stats = await lstat(from.at).catch(failing("fs.copy", `failed to copy ${source}`));
      const to = await realName(destination, call);
      if (stats.isDirectory() && `${to}/`.startsWith(`${from.path}/`))
        throw new ToolFailure(`fs.copy: ${destination} is inside ${source}`);
      const existing = await look(call.host.files, destination).catch(failing("fs.copy", destination));
      if (stats.isDirectory() && existing !== undefined)
        throw new ToolFailure(`fs.copy: ${destination} already exists`);
      return await restoring("fs.copy", destination, call, false);
    },
    async run({ source, destination }, call) {
      await using from = await located("fs.copy", source, call, { follow: true, git: "inside" });
      await using to = await located("fs.copy", destination, call, { parents: [] });
      await copyWhole(from, to, source, call).catch(failing("fs.copy", `failed to copy ${source} to ${destination}`));
      return { copied: true };
    },
  }),

  "fs.chmod": tool<AtPath & { mode: string }>({
    about: "Sets the permission bits of a file or directory; a symbolic link is refused.",
    input: object({ path: file, mode: str("Octal: 0755, 644 or 0o755.", { minLength: 1, maxLength: 8 }) }),
    output: object({ changed: bool() }),
    changes: true,
    paths: ["path"],
    async prepare({ path, mode }, call) {
      modeOf(mode);
      await using place = await located("fs.chmod", path, call);
      const stats = await lstat(place.at).catch(failing("fs.chmod", `failed to change ${path}`));
      if (stats.isSymbolicLink()) throw new ToolFailure(`fs.chmod: ${path} is a symbolic link`);
      return [{ op: "mode", path: place.path, mode: stats.mode & 0o7777 }];
    },
    async run({ path, mode }, call) {
      await using place = await located("fs.chmod", path, call);
      await changeMode(place.at, path, modeOf(mode)).catch(failing("fs.chmod", `failed to change ${path}`));
      return { changed: true };
    },
  }),

  "fs.chown": tool<AtPath & { uid: number; gid: number }>({
    about: "Sets owner and group of a file, directory or link, which is not followed.",
    input: object({
      path: file,
      uid: int("", { minimum: 0, maximum: 4_294_967_294 }),
      gid: int("", { minimum: 0, maximum: 4_294_967_294 }),
    }),
    output: object({ changed: bool() }),
    changes: true,
    paths: ["path"],
    async prepare({ path }, call) {
      await using place = await located("fs.chown", path, call);
      const { uid, gid, mode } = await lstat(place.at).catch(failing("fs.chown", `failed to change ${path}`));
      // Changing the owner clears setuid and setgid: the mode comes back after the owner.
      return [
        { op: "mode", path: place.path, mode: mode & 0o7777 },
        { op: "owner", path: place.path, uid, gid },
      ];
    },
    async run({ path, uid, gid }, call) {
      await using place = await located("fs.chown", path, call);
      await lchown(place.at, uid, gid).catch(failing("fs.chown", `failed to change ${path}`));
      return { changed: true };
    },
  }),

  "fs.symlink": tool<{ target: string; link: string }>({
    about: "Makes a symbolic link. It may point anywhere; tools follow it only inside the roots.",
    input: object({ target: path("What the link points to."), link: path("Where the link is made.") }),
    output: object({ created: bool() }),
    changes: true,
    paths: ["link"],
    async prepare({ link }, call) {
      const plain = call.host.files.plain(link);
      if ((await look(call.host.files, link).catch(failing("fs.symlink", link))) !== undefined)
        throw new ToolFailure(`fs.symlink: ${link} already exists`);
      return [{ op: "remove", path: plain }];
    },
    async run({ target, link }, call) {
      if (target.includes("\0")) throw new ToolFailure("fs.symlink: target contains a NUL byte");
      await using place = await located("fs.symlink", link, call);
      await symlink(target, place.at).catch(failing("fs.symlink", `failed to create ${link}`));
      return { created: true };
    },
  }),

  "fs.search": tool<{ directory: string; pattern: string; max_depth: number }>({
    about: "Finds files and directories below a directory whose name matches a glob: *, ?, [abc], [!abc].",
    input: object({
      directory: file,
      pattern: str("Glob for the name.", { minLength: 1, maxLength: 255 }),
      "max_depth?": int("Levels below the directory; 0 is no limit.", { default: 0, minimum: 0 }),
    }),
    output: object({ matches: list(str("Full path.")) }),
    paths: ["directory"],
    async run({ directory, pattern, max_depth }, call) {
      await using place = await located("fs.search", directory, call, { follow: true, git: "inside" });
      const stats = await lstat(place.at).catch(failing("fs.search", `failed to search ${directory}`));
      if (!stats.isDirectory()) {
        throw new ToolFailure(`fs.search: ${directory} is not a directory`);
      }
      const fits = globMatcher(pattern);
      const matches: string[] = [];
      const visit = async ({ name, below }: { name: string; below: string }): Promise<boolean> => {
        if (fits(name)) matches.push(`${place.path}/${below}`);
        if (matches.length > MAX_MATCHES) throw new ToolFailure(`fs.search: more than ${MAX_MATCHES} matches`);
        return true;
      };
      await walk(place.at, visit, { maxDepth: max_depth, signal: call.signal, lenient: true });
      return { matches };
    },
  }),

  "fs.disk_usage": tool<AtPath>({
    about: "Size and use of the file system a path is on. Reads no file, so any path will do.",
    input: object({ path: file }),
    output: object({
      total_bytes: int(),
      used_bytes: int("Total less available."),
      available_bytes: int(),
      usage_percent: num("Two decimals."),
    }),
    async run({ path }) {
      if (path.includes("\0")) throw new ToolFailure("fs.disk_usage: path contains a NUL byte");
      return diskUsage(path).catch(failing("fs.disk_usage", `failed to look at ${path}`));
    },
  }),
};

/** Copies to a place, whole or not at all: beside it first, then in its stead. */
async function copyWhole(from: Place, to: Place, path: string, call: Call): Promise<void> {
  const beside = to.sibling(`.beamline.${call.executionId}.tmp`);
  try {
    await copyTree(from.at, beside, path, call.signal);
    await rename(beside, to.at);
  } catch (thrown) {
    await rm(beside, { recursive: true, force: true });
    throw thrown;
  }
}

/** A path with every link of its directory resolved, as far as that exists; the last name is not followed. */
async function realName(path: string, call: Call): Promise<string> {
  const plain = call.host.files.plain(path);
  return join(await call.host.files.canonical(dirname(plain)), basename(plain));
}

async function isSameFile(one: Place, other: Place): Promise<boolean> {
  const [a, b] = await Promise.all([lstat(one.at), lstat(other.at).catch(() => undefined)]);
  return b !== undefined && a.ino === b.ino && a.dev === b.dev;
}

async function onOtherDevice(from: Place, destination: string, call: Call): Promise<boolean> {
  let above = call.host.files.plain(destination);
  let device: number | undefined;
  while (device === undefined) {
    above = above.slice(0, above.lastIndexOf("/")) || "/";
    device = (await lstat(above).catch(() => undefined))?.dev;
  }
  return (await lstat(from.at)).dev !== device;
}

function decode(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function modeOf(text: string): number {
  const digits = /^(?:0o)?([0-7]{1,5})$/.exec(text)?.[1];
  const mode = digits === undefined ? NaN : Number.parseInt(digits, 8);
  if (!(mode <= 0o7777)) throw new ToolFailure(`fs.chmod: invalid mode ${text}: expected octal digits such as 0755`);
  return mode;
}
