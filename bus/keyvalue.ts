/**
 * Values under keys, each bucket a stream of its own that other key-value clients read as well (NATS ADR-8).
 *
 * Q1 A write is on the disk when it resolves. `create` and `update` are checked against what is there, so of two writers one learns that it lost.
 * Q2 What a codec cannot read is `data_loss` naming the key: it never looks like a value, nor like none.
 * Q3 A write that is tried again is made once: one that was stored and whose answer was lost is no conflict.
 */
import { randomUUID } from "node:crypto";
import { BeamlineError } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";
import type { BucketSpec } from "../contracts/streams.ts";
import { apiCode, apiCodeOf, asking } from "./apierror.ts";
import type { Bus } from "./connect.ts";
import { publish, type PublishOptions } from "./publish.ts";
import { readStream } from "./read.ts";
import { publishRetrying } from "./retrying.ts";

/** How values of a type stand in a bucket. */
export interface ValueCodec<T> {
  readonly encode: (value: T) => string | Uint8Array;
  /** Throws when the bytes are not a value. */
  readonly decode: (bytes: Uint8Array) => T;
}

export interface Entry<T> {
  readonly key: string;
  readonly value: T;
  /** Grows with every write to the bucket; what `update` and `delete` are checked against. */
  readonly revision: number;
  /** When it was written, epoch milliseconds. */
  readonly timestampMs: number;
}

export interface WriteOptions extends Pick<PublishOptions, "timeoutMs" | "signal"> {
  readonly headers?: Headers;
  /** Q3. How long it is tried again while the bus is away, milliseconds; `timeoutMs` is then of no use. Default: it is tried once. */
  readonly retryForMs?: number;
}

export interface DeleteOptions extends WriteOptions {
  /** Delete only when the last write has this revision. */
  readonly revision?: number;
}

/** JSON without a check of its shape, for values only this project writes. */
export function jsonCodec<T>(): ValueCodec<T> {
  return {
    encode: (value) => JSON.stringify(value),
    decode: (bytes) => JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8")) as T,
  };
}

/** Marks a deletion; the same header and words as every key-value client. */
export const OPERATION = "KV-Operation";

export class Bucket<T> {
  readonly bus: Bus;
  readonly name: string;
  readonly stream: string;
  readonly codec: ValueCodec<T>;

  /** A bucket made by `ensureBuckets`. Keys come from `keyOf`. */
  constructor(bus: Bus, spec: BucketSpec, codec: ValueCodec<T>) {
    this.bus = bus;
    this.name = spec.name;
    this.stream = `KV_${spec.name}`;
    this.codec = codec;
  }

  subjectOf(key: string): string {
    return `$KV.${this.name}.${key}`;
  }

  /** The value, undefined when there is none. Throws `data_loss` (Q2), `unavailable`. */
  async get(key: string): Promise<Entry<T> | undefined> {
    const message = await this.#last(key);
    if (message === undefined || isDeletion(message.header.get(OPERATION), message.header.get("Nats-Marker-Reason")))
      return undefined;
    return { key, value: this.decode(key, message.data), revision: message.seq, timestampMs: message.time.getTime() };
  }

  /** Writes whatever is there. Gives the new revision. Throws as `publish`. */
  async put(key: string, value: T, options: WriteOptions = {}): Promise<number> {
    return this.#write(key, this.codec.encode(value), options);
  }

  /** Writes when there is no value yet, or no more. Throws `already_exists`. */
  async create(key: string, value: T, options: WriteOptions = {}): Promise<number> {
    const bytes = this.codec.encode(value);
    try {
      return await this.#write(key, bytes, { ...options, expectLastSubjectSequence: 0 });
    } catch (thrown) {
      if (!isConflict(thrown)) throw thrown;
    }
    // A deletion leaves its mark, and that has a revision.
    const message = await this.#last(key);
    if (message !== undefined && !isDeletion(message.header.get(OPERATION), message.header.get("Nats-Marker-Reason")))
      throw this.#exists(key);
    try {
      return await this.#write(key, bytes, { ...options, expectLastSubjectSequence: message?.seq ?? 0 });
    } catch (thrown) {
      throw isConflict(thrown) ? this.#exists(key) : thrown;
    }
  }

  /** Writes when the last write has this revision. Throws `aborted` with `details.expected` and `details.actual`. */
  async update(key: string, value: T, revision: number, options: WriteOptions = {}): Promise<number> {
    return this.#write(key, this.codec.encode(value), { ...options, expectLastSubjectSequence: revision });
  }

  /** Deletes; one that is not there may be deleted too. Throws `aborted` when `revision` is not the last one. */
  async delete(key: string, { revision, headers, ...options }: DeleteOptions = {}): Promise<void> {
    await this.#write(key, "", {
      ...options,
      headers: { ...headers, [OPERATION]: "DEL" },
      ...(revision !== undefined && { expectLastSubjectSequence: revision }),
    });
  }

  /**
   * The values whose keys match (`>` for all, `acme.>` for those below a part), oldest write first. Read page by page, so there is no limit to how
   * many; a write meanwhile may or may not be seen. Throws `data_loss` (Q2), `unavailable`.
   */
  async list(keys = ">"): Promise<Entry<T>[]> {
    const found = new Map<string, Entry<T>>();
    const prefix = this.subjectOf("");
    for await (const message of readStream(this.bus, this.stream, { subject: this.subjectOf(keys) })) {
      if (!message.subject.startsWith(prefix)) continue; // delivered here from another stream
      const key = message.subject.slice(prefix.length);
      found.delete(key);
      if (isDeletion(message.header.get(OPERATION), message.header.get("Nats-Marker-Reason"))) continue;
      const value = this.decode(key, message.data);
      found.set(key, { key, value, revision: message.seq, timestampMs: message.time.getTime() });
    }
    return [...found.values()];
  }

  /** Q2. */
  decode(key: string, bytes: Uint8Array): T {
    try {
      return this.codec.decode(bytes);
    } catch (cause) {
      throw new BeamlineError("data_loss", `the value of ${key} in bucket ${this.name} cannot be read`, { cause });
    }
  }

  async #write(
    key: string,
    bytes: string | Uint8Array,
    { retryForMs, ...options }: PublishOptions & WriteOptions,
  ): Promise<number> {
    const subject = this.subjectOf(key);
    const { seq } =
      retryForMs === undefined
        ? await publish(this.bus, subject, bytes, options)
        : await publishRetrying(this.bus, subject, bytes, { ...options, msgId: randomUUID(), timeoutMs: retryForMs });
    return seq;
  }

  /** The last write. From the leader: a replica may not know it yet. */
  async #last(key: string) {
    return asking(`read ${key} of bucket ${this.name}`, async () => {
      try {
        return (await this.bus.jsm.streams.getMessage(this.stream, { last_by_subj: this.subjectOf(key) })) ?? undefined;
      } catch (thrown) {
        if (apiCodeOf(thrown) === apiCode.messageNotFound) return undefined;
        throw thrown;
      }
    });
  }

  #exists(key: string): BeamlineError {
    return new BeamlineError("already_exists", `${key} is in bucket ${this.name} already`);
  }
}

function isConflict(thrown: unknown): boolean {
  return thrown instanceof BeamlineError && thrown.code === "aborted";
}

/** Whether a message of a bucket says that its key has no value: deleted by a client, or expired. */
export function isDeletion(operation: string | undefined, markerReason: string | undefined): boolean {
  return operation === "DEL" || operation === "PURGE" || (markerReason !== undefined && markerReason !== "");
}
