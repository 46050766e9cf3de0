/**
 * File system roots, confined.
 *
 * C1 A path is first made absolute and plain (`..` resolved as text), then its directory is opened, and where the opened directory
 *    really is decides: swapping a symbolic link in afterwards changes nothing, since everything happens below the open handle
 *    (`/proc/self/fd/<n>/<name>`, the one way to openat from here).
 * C2 The last component is never followed, unless asked; then what it points to is confined like any path.
 * C4 On local file systems directories are opened and looked at on the spot, which takes microseconds; handing that to another thread takes
 *    ten times as long. On network file systems, which may hang, it is handed over.
 * C5 An agent whose grants hold for some paths only gets a fenced view: what was really opened decides there too, before anything is done to
 *    it. A link that a tool does not follow is itself what the fence is about, not what it points to.
 * C3 What lies outside the roots is refused before it is looked at, so that nobody learns what is there.
 * C6 A repository's own files are git's: settings, hooks and links there make git run programs or write elsewhere. Whoever asks for a place
 *    says what it may be of them, and by default it is nothing inside a directory named `.git` or `*.git`, by whatever name it was reached.
 */
import { close, closeSync, constants, lstatSync, open, openSync, readlinkSync, type Stats } from "node:fs";
import { lstat, mkdir, open as openHandle, readlink, realpath, statfs, type FileHandle } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { promisify } from "node:util";
import { ToolFailure, reasonOf, systemCode } from "../failure.ts";

/** Directory below a root where deleted things wait to be put back. No tool sees it. */
export const TRASH = ".beamline-trash";

/** Longest path taken, characters (PATH_MAX). */
const MAX_PATH = 4096;

const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY;

/** A name in an open directory inside a root. Dispose it to close the directory. */
export class Place implements AsyncDisposable {
  /** Where it is, with every link of its directory resolved. */
  readonly path: string;
  readonly name: string;
  /** The root it lies in. */
  readonly root: string;
  readonly #fd: number;
  readonly #local: boolean;
  #closed = false;

  constructor(root: string, fd: number, directory: string, name: string, local: boolean) {
    this.root = root;
    this.#fd = fd;
    this.name = name;
    this.path = name === "." ? directory : join(directory, name);
    this.#local = local;
  }

  /** The path to give to system calls: relative to the open directory, whatever happens to the names above it. */
  get at(): string {
    return `/proc/self/fd/${this.#fd}/${this.name}`;
  }

  /** The same for a sibling. */
  sibling(name: string): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }

  /** What is there, links not followed. Throws the system's error. */
  async stat(): Promise<Stats> {
    return this.#local ? lstatSync(this.at) : lstat(this.at); // C4
  }

  /** Once: by the second time the number may be another's file. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await closeFd(this.#fd, this.#local);
  }
}

const closeLater = promisify(close);
const openLater = promisify(open);

async function closeFd(fd: number, local: boolean): Promise<void> {
  if (local) closeSync(fd);
  else await closeLater(fd);
}

/** File systems whose server may be away: NFS, SMB, CIFS, 9P, FUSE, Ceph, AFS (magic numbers of statfs). */
const REMOTE = new Set([0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x01021997, 0x65735546, 0x00c36400, 0x5346414f]);

export interface PlaceOptions {
  /** A symbolic link at the end is resolved and its target confined. Default false. */
  readonly follow?: boolean;
  /** Missing directories above it are made; each is pushed onto the list, outermost first. */
  readonly parents?: string[];
  /** It is a directory that was made on the way: grants for what is in it count for it (C5). */
  readonly onTheWay?: boolean;
  /** For undoing alone: the trash is a place too. */
  readonly trash?: boolean;
  /** C6. What it may be of a git repository's own files: nothing (default), their directory as a whole, or anything. */
  readonly git?: "whole" | "inside";
}

/** C5. Whether a real path may be touched. */
export type Fence = (path: string) => boolean;

export class Confined {
  /** Real paths, first one the home of relative paths. */
  readonly roots: readonly string[];
  /** As configured; a path may be written either way. */
  readonly #given: readonly string[];

  readonly #local: boolean;
  readonly #fence: Fence | undefined;

  private constructor(given: readonly string[], roots: readonly string[], local: boolean, fence?: Fence) {
    this.#given = given;
    this.roots = roots;
    this.#local = local;
    this.#fence = fence;
  }

  /** Makes missing roots. Throws when there is none or one cannot be used. */
  static async open(roots: readonly string[]): Promise<Confined> {
    if (roots.length === 0) throw new Error("no file system root is configured for tools");
    const real: string[] = [];
    for (const root of roots) {
      await mkdir(root, { recursive: true });
      real.push(await realpath(root));
    }
    const kinds = await Promise.all(real.map((root) => statfs(root)));
    const local = kinds.every(({ type }) => !REMOTE.has(type));
    return new Confined(
      roots.map((root) => resolve(root)),
      real,
      local,
    );
  }

  /** C5. The same roots, narrowed to what a fence allows; without one, this. */
  fenced(fence: Fence | undefined): Confined {
    return fence === undefined ? this : new Confined(this.#given, this.roots, this.#local, fence);
  }

  /** Opens the place a path names. Throws `ToolFailure`. */
  async place(path: string, options: PlaceOptions = {}): Promise<Place> {
    const trash = options.trash === true;
    const absolute = this.plain(path, trash);
    if (!trash && this.#isGits(absolute, options.git)) throw gits(path); // before anything is made on the way
    const place = await this.#open(absolute, options.parents, trash, options.git);
    try {
      const info = options.follow === true ? await place.stat().catch(() => undefined) : undefined;
      if (info?.isSymbolicLink() !== true) {
        this.#mind(place, path, options.onTheWay);
        return place;
      }
      const target = await realpath(place.at).catch((thrown: unknown) => {
        throw new ToolFailure(`${path}: ${reasonOf(thrown)}`);
      });
      await place[Symbol.asyncDispose]();
      const followed = await this.#open(this.plain(target), undefined, false, options.git);
      try {
        this.#mind(followed, path);
        return followed;
      } catch (thrown) {
        await followed[Symbol.asyncDispose]();
        throw thrown;
      }
    } catch (thrown) {
      await place[Symbol.asyncDispose]().catch(() => undefined);
      throw thrown;
    }
  }

  /** C1, C3. The path as absolute plain text. Throws `ToolFailure` when it is no path or lies outside. */
  plain(path: string, trash = false): string {
    if (path === "") throw new ToolFailure("path is empty");
    if (path.includes("\0")) throw new ToolFailure("path contains a NUL byte");
    if (path.length > MAX_PATH) throw new ToolFailure(`path is longer than ${MAX_PATH} characters`);
    const absolute = isAbsolute(path) ? resolve(path) : resolve(this.roots[0] ?? "/", path);
    const inside = [...this.roots, ...this.#given].some((root) => within(root, absolute));
    if (!inside || (!trash && inTrash(absolute))) throw outside(path);
    return absolute;
  }

  /** Where a path leads with every link of its existing part resolved; for comparing with the resources of a grant. */
  async canonical(path: string): Promise<string> {
    const absolute = isAbsolute(path) ? resolve(path) : resolve(this.roots[0] ?? "/", path);
    let [existing, rest] = [absolute, ""];
    for (;;) {
      try {
        return join(await realpath(existing), rest);
      } catch {
        if (existing === "/") return absolute;
        rest = join(basename(existing), rest);
        existing = dirname(existing);
      }
    }
  }

  /** A path or glob that begins with a root as it is configured, with the root's real path instead: roots may be links themselves. */
  real(text: string): string {
    const index = this.#given.findIndex((root) => text === root || text.startsWith(root === "/" ? root : `${root}/`));
    const [given, root] = [this.#given[index], this.roots[index]];
    return given === undefined || root === undefined ? text : root + text.slice(given.length);
  }

  /** C5. Throws `Outside` when the fence keeps what was opened from whom this view is for. The trash is nobody's by name. */
  #mind(place: Place, asked: string, onTheWay = false): void {
    if (this.#fence === undefined || inTrash(place.path)) return;
    if (this.#fence(place.path) || (onTheWay && this.#fence(`${place.path}/`))) return;
    throw new Outside(`path ${asked} is outside what was granted`);
  }

  /** C6. Whether a path, as text, is among a repository's own files and not what may be had of them. */
  #isGits(path: string, may: PlaceOptions["git"]): boolean {
    if (may === "inside") return false;
    const root = [...this.roots, ...this.#given].find((each) => within(each, path)) ?? "/";
    const names = relative(root, path).split("/");
    return (may === "whole" ? names.slice(0, -1) : names).some((name) => /\.git$/i.test(name));
  }

  async #open(
    absolute: string,
    parents: string[] | undefined,
    trash: boolean,
    git: PlaceOptions["git"],
  ): Promise<Place> {
    const isRoot = this.roots.includes(absolute) || this.#given.includes(absolute);
    const directory = isRoot ? absolute : dirname(absolute);
    if (parents !== undefined && !isRoot) await this.#makeParents(directory, parents, git);
    const fd = await this.#openDirectory(directory);
    try {
      // C1: where the handle is, not where the name was.
      const link = `/proc/self/fd/${fd}`;
      const where = this.#local ? readlinkSync(link) : await readlink(link);
      const root = this.roots.find((root) => within(root, where));
      // The trash is reached by its own name alone: nothing else may lead there.
      const real = isRoot ? where : join(where, basename(absolute));
      if (root === undefined || (inTrash(real) && !(trash && real === absolute))) throw outside(absolute);
      if (!trash && this.#isGits(real, git)) throw gits(absolute);
      return new Place(root, fd, where, isRoot ? "." : basename(absolute), this.#local);
    } catch (thrown) {
      await closeFd(fd, this.#local);
      throw thrown;
    }
  }

  /** C1: links are followed here; where that led is looked at afterwards. */
  async #openDirectory(directory: string): Promise<number> {
    try {
      return this.#local ? openSync(directory, OPEN_DIRECTORY) : await openLater(directory, OPEN_DIRECTORY, 0);
    } catch (thrown) {
      // C3: what is missing beyond a link that leads outside is nobody's business.
      const real = await this.canonical(directory);
      if (!this.roots.some((root) => within(root, real))) throw outside(directory);
      throw new ToolFailure(`${directory}: ${reasonOf(thrown)}`);
    }
  }

  /** The directories that `parents` would make, outermost first. Throws `ToolFailure` where `place` would whatever there is (C3, C6). */
  async missingParents(path: string, git?: PlaceOptions["git"]): Promise<string[]> {
    const missing: string[] = [];
    const absolute = this.plain(path);
    if (this.#isGits(absolute, git)) throw gits(path);
    let above = dirname(absolute);
    while (above !== "/" && (await lstat(above).catch(() => undefined)) === undefined) {
      missing.unshift(above);
      above = dirname(above);
    }
    return missing;
  }

  /** Makes what is missing, one level at a time, each below an open handle. */
  async #makeParents(directory: string, made: string[], git: PlaceOptions["git"]): Promise<void> {
    const missing: string[] = [];
    let existing = directory;
    while (!this.roots.includes(existing) && !this.#given.includes(existing)) {
      const found = await lstat(existing).catch((thrown: unknown) => {
        if (systemCode(thrown) === "ENOENT") return undefined;
        throw new ToolFailure(`${existing}: ${reasonOf(thrown)}`);
      });
      if (found !== undefined) break;
      missing.unshift(existing);
      existing = dirname(existing);
    }
    for (const level of missing) {
      await using place = await this.#open(level, undefined, false, git);
      this.#mind(place, level, true);
      await mkdir(place.at).then(
        () => made.push(place.path),
        (thrown: unknown) => {
          if (systemCode(thrown) !== "EEXIST") throw new ToolFailure(`${level}: ${reasonOf(thrown)}`);
        },
      );
    }
  }
}

/** Whether a plain absolute path is the root or below it. */
export function within(root: string, path: string): boolean {
  const way = relative(root, path);
  return way !== ".." && !way.startsWith("../");
}

function inTrash(path: string): boolean {
  return path.split("/").includes(TRASH);
}

function gits(path: string): ToolFailure {
  return new ToolFailure(`path ${path} is inside a git repository's own files, which only git tools change`);
}

/** A path that leads out of the roots, or out of what was granted. */
export class Outside extends ToolFailure {}

function outside(path: string): Outside {
  return new Outside(`path ${path} is outside the allowed roots`);
}

/** What is at a path; undefined when nothing is, or not even a directory for it. Throws `Outside`. */
export async function look(files: Confined, path: string): Promise<Stats | undefined> {
  try {
    await using place = await files.place(path, { git: "inside" });
    return await place.stat().catch(() => undefined);
  } catch (thrown) {
    if (thrown instanceof Outside) throw thrown;
    return undefined;
  }
}

/** Opens a directory that is a child of an open one, itself not a link. */
export async function openDirectory(at: string): Promise<FileHandle> {
  return openHandle(at, OPEN_DIRECTORY | constants.O_NOFOLLOW);
}
