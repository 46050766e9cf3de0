/**
 * Current values by key: a bucket (bus/keyvalue) whose keys are lists of texts, with a compare-and-set that answers instead of throwing.
 */
import type { Bus } from "../../bus/connect.ts";
import { Bucket, jsonCodec, type WriteOptions } from "../../bus/keyvalue.ts";
import { keyOf } from "../../bus/keys.ts";
import { retrying } from "../../bus/retrying.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { BucketSpec } from "../../contracts/streams.ts";

export interface Kept<T> {
  readonly value: T;
  readonly revision: number;
}

export class Records<T> {
  readonly #bucket: Bucket<T>;

  constructor(bus: Bus, spec: BucketSpec) {
    this.#bucket = new Bucket<T>(bus, spec, jsonCodec<T>());
  }

  /** Undefined when there is none. Throws `unavailable`. */
  get(...key: readonly string[]): Promise<Kept<T> | undefined> {
    return this.#bucket.get(keyOf(...key));
  }

  /** As `get`, tried again while the bus is away, for so many milliseconds. */
  surely(key: readonly string[], retryForMs: number, signal?: AbortSignal): Promise<Kept<T> | undefined> {
    return retrying(this.#bucket.bus, { timeoutMs: retryForMs, signal }, () => this.get(...key));
  }

  /** Stores, whatever was there. Gives the revision. */
  put(key: readonly string[], value: T): Promise<number> {
    return this.#bucket.put(keyOf(...key), value);
  }

  /** Stores when the revision is still this one; 0 for a key that must not be there. The new revision, undefined when it is another. */
  async swap(
    key: readonly string[],
    value: T,
    revision: number,
    options: Pick<WriteOptions, "retryForMs"> = {},
  ): Promise<number | undefined> {
    try {
      return revision === 0
        ? await this.#bucket.create(keyOf(...key), value, options)
        : await this.#bucket.update(keyOf(...key), value, revision, options);
    } catch (thrown) {
      if (thrown instanceof BeamlineError && (thrown.code === "already_exists" || thrown.code === "aborted"))
        return undefined;
      throw thrown;
    }
  }

  async remove(...key: readonly string[]): Promise<void> {
    await this.#bucket.delete(keyOf(...key));
  }

  /** Everything below a prefix of the key; all of it without one. Throws `unavailable`. */
  async list(...prefix: readonly string[]): Promise<Kept<T>[]> {
    return this.#bucket.list(prefix.length === 0 ? ">" : `${keyOf(...prefix)}.>`);
  }
}
