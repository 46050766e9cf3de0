/**
 * What files held before a tool changed them, in the object store.
 *
 * A backup counts only once it has been read back and its hash is the file's: a tool that cannot be undone is not run.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { lstat, open, readlink, rename, unlink } from "node:fs/promises";
import type { ObjectStore } from "../../bus/objects.ts";
import { ToolFailure } from "./failure.ts";
import type { Place } from "./files/confine.ts";
import { NEW_FILE, secondsOf } from "./files/tree.ts";

/** A file or link as it was. */
export type Snapshot =
  | {
      readonly kind: "file";
      /** Name in the object store. */
      readonly object: string;
      readonly sha256: string;
      readonly size: number;
      readonly mode: number;
      readonly uid: number;
      readonly gid: number;
      /** Milliseconds since the epoch, with a fraction. */
      readonly mtimeMs: number;
    }
  | { readonly kind: "link"; readonly target: string };

/** How a file is to be left. */
export type FileFacts = Pick<Extract<Snapshot, { kind: "file" }>, "mode" | "uid" | "gid"> & {
  readonly mtimeMs?: number;
};

export class Backups {
  readonly #store: ObjectStore;

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  /** What is at the place: undefined when nothing, a snapshot of a file or link. Throws `ToolFailure` for anything else. */
  async take(place: Place, name: string, signal: AbortSignal): Promise<Snapshot | undefined> {
    const stats = await lstat(place.at).catch(() => undefined);
    if (stats === undefined) return undefined;
    if (stats.isSymbolicLink()) return { kind: "link", target: await readlink(place.at) };
    if (!stats.isFile()) throw new ToolFailure(`${place.path} is not a regular file`);
    const handle = await open(place.at, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const hash = createHash("sha256");
      let size = 0;
      const chunks = async function* (): AsyncGenerator<Uint8Array> {
        for await (const chunk of handle.createReadStream({ autoClose: false, start: 0 }) as AsyncIterable<Buffer>) {
          hash.update(chunk);
          size += chunk.length;
          yield chunk;
        }
      };
      await this.#store.put(name, chunks(), { signal });
      const sha256 = hash.digest("hex");
      const { mode, uid, gid, mtimeMs } = stats;
      const snapshot = { kind: "file", object: name, sha256, size, mode: mode & 0o7777, uid, gid, mtimeMs } as const;
      await this.verify(snapshot, signal);
      return snapshot;
    } finally {
      await handle.close();
    }
  }

  /** Reads a backup back. Throws `ToolFailure` when it is not what the file held. */
  async verify(snapshot: Extract<Snapshot, { kind: "file" }>, signal: AbortSignal): Promise<void> {
    const hash = createHash("sha256");
    const { chunks } = await this.#store.read(snapshot.object, { signal });
    for await (const chunk of chunks) hash.update(chunk);
    if (hash.digest("hex") !== snapshot.sha256)
      throw new ToolFailure("the backup could not be verified; nothing was changed");
  }

  /** The content of a backup, checked against its hash while it is read. */
  async read(snapshot: Extract<Snapshot, { kind: "file" }>, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const { chunks } = await this.#store.read(snapshot.object, { signal });
    return (async function* () {
      const hash = createHash("sha256");
      for await (const chunk of chunks) {
        hash.update(chunk);
        yield chunk;
      }
      if (hash.digest("hex") !== snapshot.sha256) throw new ToolFailure("the backup is damaged; nothing was changed");
    })();
  }

  async forget(snapshot: Snapshot): Promise<void> {
    if (snapshot.kind === "file") await this.#store.delete(snapshot.object);
  }
}

/** Writes a file whole or not at all: beside its place, synced, then renamed over it. Returns the bytes written. */
export async function putFile(
  place: Place,
  content: Uint8Array | string | AsyncIterable<Uint8Array>,
  facts: FileFacts | undefined,
): Promise<number> {
  // A name of its own: one made from the file's could be too long.
  const beside = place.sibling(`.beamline.${process.pid}.${Math.random().toString(36).slice(2)}.tmp`);
  const handle = await open(beside, NEW_FILE, facts === undefined ? 0o666 : 0o600);
  let size = 0;
  try {
    try {
      const chunks =
        typeof content === "string"
          ? [Buffer.from(content, "utf8")]
          : content instanceof Uint8Array
            ? [content]
            : content;
      for await (const chunk of chunks) {
        await handle.writeFile(chunk);
        size += chunk.length;
      }
      if (facts !== undefined) {
        // Through the handle: by name it could be another's file by now. Owner first, it clears setuid and setgid.
        if (process.getuid?.() === 0) await handle.chown(facts.uid, facts.gid);
        await handle.chmod(facts.mode);
        if (facts.mtimeMs !== undefined) await handle.utimes(new Date(), secondsOf(facts.mtimeMs));
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(beside, place.at);
  } catch (thrown) {
    await unlink(beside).catch(() => undefined);
    throw thrown;
  }
  return size;
}
