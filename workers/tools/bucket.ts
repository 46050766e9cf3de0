/** Current values under compare-and-set: a value is read from the leader, and written only over the revision it was read at. */
import type { Bus } from "../../bus/connect.ts";
import { apiCode, apiCodeOf, fromJetStream } from "../../bus/apierror.ts";
import { partsOf } from "../../bus/keys.ts";
import { publish } from "../../bus/publish.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { BucketSpec } from "../../contracts/streams.ts";
import { lastOfEach } from "./journal.ts";

export interface Value<T> {
  readonly value: T;
  /** Stream sequence; 0 when there has never been a value. */
  readonly revision: number;
}

export class Bucket<T> {
  readonly #bus: Bus;
  readonly #name: string;

  constructor(bus: Bus, spec: BucketSpec) {
    this.#bus = bus;
    this.#name = spec.name;
  }

  /** The value of a key (made by `keyOf`). `value` is undefined when there is none; `revision` is what a write must name. */
  async get(key: string): Promise<Value<T | undefined>> {
    try {
      const found = await this.#bus.jsm.streams.getMessage(`KV_${this.#name}`, {
        last_by_subj: `$KV.${this.#name}.${key}`,
      });
      if (found === null) return { value: undefined, revision: 0 };
      const text = found.string();
      return { value: text === "" ? undefined : (JSON.parse(text) as T), revision: found.seq };
    } catch (thrown) {
      if (apiCodeOf(thrown) === apiCode.messageNotFound) return { value: undefined, revision: 0 };
      throw fromJetStream(thrown, `read ${this.#name}`);
    }
  }

  /** Writes over a revision. Throws `aborted` when there is a newer one. */
  async put(key: string, value: T, revision: number): Promise<number> {
    return (
      await publish(this.#bus, `$KV.${this.#name}.${key}`, JSON.stringify(value), {
        expectLastSubjectSequence: revision,
      })
    ).seq;
  }

  async delete(key: string, revision: number): Promise<number> {
    const headers = { "KV-Operation": "DEL" };
    return (await publish(this.#bus, `$KV.${this.#name}.${key}`, "", { headers, expectLastSubjectSequence: revision }))
      .seq;
  }

  /** Reads, changes and writes until nobody was faster. A change that gives undefined writes nothing. */
  async update(key: string, change: (value: T | undefined) => T | undefined): Promise<Value<T | undefined>> {
    for (let attempt = 1; ; attempt++) {
      const current = await this.get(key);
      const next = change(current.value);
      if (next === undefined) return current;
      try {
        return { value: next, revision: await this.put(key, next, current.revision) };
      } catch (thrown) {
        if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted" || attempt >= 20) throw thrown;
      }
    }
  }

  /** Every value whose key begins with the given token, by key. */
  async entries(prefix: string): Promise<{ readonly parts: string[]; readonly value: T }[]> {
    const start = `$KV.${this.#name}.`;
    const found = await lastOfEach<T | undefined>(this.#bus, `KV_${this.#name}`, `${start}${prefix}.>`);
    return found.flatMap(({ subject, value }) =>
      value === undefined ? [] : [{ parts: partsOf(subject.slice(start.length)), value }],
    );
  }
}
