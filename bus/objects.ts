/**
 * Object store: bytes of any size under a name, in chunks, with a digest.
 *
 * O1 What is read is what was written: a wrong digest is `data_loss`, never silence.
 * O2 Nothing hangs: a read that gets no further for ten seconds (its chunks were replaced, the server is gone) is `unavailable`.
 */
import { Objm, type ObjectStore as Vendor } from "@nats-io/obj";
import { BeamlineError } from "../contracts/errors.ts";
import type { ObjectSpec } from "../contracts/streams.ts";
import { asking, fromJetStream } from "./apierror.ts";
import type { Bus } from "./connect.ts";

export interface StoredObject {
  readonly bucket: string;
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** `SHA-256=<base64url>` of the content. */
  readonly digest: string;
}

export interface ObjectOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface ReadOptions extends ObjectOptions {
  /** Longest wait for the next chunk, milliseconds. Default 10 000. */
  readonly stallMs?: number;
}

const DEFAULT_STALL_MS = 10_000;

export class ObjectStore {
  readonly #bucket: string;
  readonly #vendor: Vendor;

  private constructor(bucket: string, vendor: Vendor) {
    this.#bucket = bucket;
    this.#vendor = vendor;
  }

  /** A store made by `ensureObjects`. Throws `unavailable` when JetStream does not answer. */
  static async open(bus: Bus, spec: ObjectSpec): Promise<ObjectStore> {
    const vendor = await asking(`object store ${spec.name}`, () => new Objm(bus.js).open(spec.name, false));
    return new ObjectStore(spec.name, vendor);
  }

  /** Stores bytes, or a stream of them without holding it in memory, in place of what had the name. Throws `cancelled`, `unavailable`. */
  async put(
    name: string,
    content: Uint8Array | AsyncIterable<Uint8Array>,
    { signal }: ObjectOptions = {},
  ): Promise<StoredObject> {
    const chunks = content instanceof Uint8Array ? [content] : content;
    const source = ReadableStream.from(abortable(chunks, signal));
    const what = `put object ${name} into ${this.#bucket}`;
    const info = await asking(what, () => this.#vendor.put({ name }, source));
    return { bucket: this.#bucket, name, size: info.size, digest: info.digest };
  }

  /** What is stored under the name; undefined when nothing is. */
  async info(name: string): Promise<StoredObject | undefined> {
    const info = await asking(`object ${name} of ${this.#bucket}`, () => this.#vendor.info(name));
    if (info === null || info.deleted) return undefined;
    return { bucket: this.#bucket, name, size: info.size, digest: info.digest };
  }

  /** The content, chunk by chunk; O1 is known at its end. Throws `not_found`, and while reading `data_loss`, `unavailable`, `cancelled`. */
  async read(
    name: string,
    options: ReadOptions = {},
  ): Promise<StoredObject & { readonly chunks: AsyncIterable<Uint8Array> }> {
    const what = `read object ${name} of ${this.#bucket}`;
    const found = await asking(what, () => this.#vendor.get(name));
    if (found === null) throw new BeamlineError("not_found", `there is no object ${name} in ${this.#bucket}`);
    const { size, digest } = found.info;
    // The stream carries the same failure; this promise of the library must not go unheard.
    found.error.catch(() => undefined);
    return { bucket: this.#bucket, name, size, digest, chunks: guarded(found.data, what, options) };
  }

  /** The whole content. Throws as `read`, and `message_too_large` beyond `maxBytes`. */
  async bytes(name: string, options: ReadOptions & { readonly maxBytes?: number } = {}): Promise<Uint8Array> {
    const { size, chunks } = await this.read(name, options);
    if (size > (options.maxBytes ?? Infinity)) {
      throw new BeamlineError("message_too_large", `object ${name} of ${this.#bucket} has ${size} bytes`);
    }
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk);
    return Buffer.concat(parts);
  }

  /** Removes it. True when there was something to remove. */
  async delete(name: string): Promise<boolean> {
    if ((await this.info(name)) === undefined) return false;
    await asking(`delete object ${name} of ${this.#bucket}`, () => this.#vendor.delete(name));
    return true;
  }
}

async function* abortable(
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    if (signal?.aborted === true) throw new BeamlineError("cancelled", "the upload was cancelled");
    yield chunk;
  }
}

/** O1 and O2 on a stream of the library. */
async function* guarded(
  stream: ReadableStream<Uint8Array>,
  what: string,
  { signal, stallMs = DEFAULT_STALL_MS }: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), stallMs, what, signal);
      if (done) return;
      if (value.length > 0) yield value;
    }
  } catch (thrown) {
    if (thrown instanceof Error && thrown.message.includes("corrupt")) {
      throw new BeamlineError("data_loss", `${what}: its digest is wrong`, { cause: thrown });
    }
    throw fromJetStream(thrown, what);
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

function within<T>(work: Promise<T>, ms: number, what: string, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => end(new BeamlineError("cancelled", `${what}: cancelled`));
    const timer = setTimeout(() => end(new BeamlineError("unavailable", `${what}: nothing came for ${ms} ms`)), ms);
    const end = (error: unknown): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      reject(error);
    };
    if (signal?.aborted === true) return onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    work.then((value) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      resolve(value);
    }, end);
  });
}
