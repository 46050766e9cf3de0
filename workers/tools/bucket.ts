/**
 * Current values under compare-and-set: read from the leader, and written only over the revision they were read at. A bus that is away for a
 * moment is waited for: a write whose answer was lost is made once, and is no conflict.
 */
import type { Bus } from "../../bus/connect.ts";
import { Bucket as Values, jsonCodec } from "../../bus/keyvalue.ts";
import { partsOf } from "../../bus/keys.ts";
import { retrying } from "../../bus/retrying.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { BucketSpec } from "../../contracts/streams.ts";
import { readFrom, type Is } from "./journal.ts";

export interface Value<T> {
  readonly value: T;
  /** What a write must name; 0 when there is no value. */
  readonly revision: number;
}

/** Races lost in a row before a change gives up. */
const MAX_RACES = 20;
/** How long the bus may be away, milliseconds. */
const AWAY_MS = 5_000;
const AWAY = { retryForMs: AWAY_MS } as const;

export class Bucket<T> {
  readonly #values: Values<T>;
  readonly #is: Is<T>;

  constructor(bus: Bus, spec: BucketSpec, is: Is<T>) {
    const json = jsonCodec<unknown>();
    const decode = (bytes: Uint8Array): T => {
      const value = json.decode(bytes);
      if (!is(value)) throw new TypeError(`no value of bucket ${spec.name}`);
      return value;
    };
    this.#values = new Values<T>(bus, spec, { encode: json.encode, decode });
    this.#is = is;
  }

  /** The value of a key (made by `keyOf`), undefined when there is none. Throws `unavailable`, `data_loss` for what is no value. */
  async get(key: string): Promise<Value<T | undefined>> {
    const { bus } = this.#values;
    const entry = await retrying(bus, { timeoutMs: AWAY_MS }, () => this.#values.get(key));
    return entry === undefined ? { value: undefined, revision: 0 } : { value: entry.value, revision: entry.revision };
  }

  /** Writes over a revision. Throws `aborted` when there is a newer one. */
  async put(key: string, value: T, revision: number): Promise<number> {
    if (revision > 0) return this.#values.update(key, value, revision, AWAY);
    try {
      return await this.#values.create(key, value, AWAY);
    } catch (thrown) {
      if (!(thrown instanceof BeamlineError) || thrown.code !== "already_exists") throw thrown;
      throw new BeamlineError("aborted", thrown.message);
    }
  }

  /** Throws `aborted` when there is a newer revision. */
  async delete(key: string, revision: number): Promise<void> {
    await this.#values.delete(key, { revision, ...AWAY });
  }

  /** Reads, changes and writes until nobody was faster. A change that gives undefined writes nothing. */
  async update(key: string, change: (value: T | undefined) => T | undefined): Promise<Value<T | undefined>> {
    for (let race = 1; ; race++) {
      const current = await this.get(key);
      const next = change(current.value);
      if (next === undefined) return current;
      try {
        return { value: next, revision: await this.put(key, next, current.revision) };
      } catch (thrown) {
        if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted" || race >= MAX_RACES) throw thrown;
      }
    }
  }

  /** Every value whose key begins with the given token (`*` for all), by key. What is no value is left out. */
  async entries(first: string): Promise<{ readonly parts: string[]; readonly value: T }[]> {
    const { stream, bus } = this.#values;
    const last = new Map<string, T | undefined>();
    const filter = this.#values.subjectOf(`${first}.>`);
    for await (const { subject, value } of readFrom(bus, stream, filter, this.#is)) last.set(subject, value);
    const start = this.#values.subjectOf("").length;
    return [...last]
      .flatMap(([subject, value]) => (value === undefined ? [] : [{ parts: partsOf(subject.slice(start)), value }]))
      .sort((a, b) => (a.parts.join(".") < b.parts.join(".") ? -1 : 1));
  }
}
