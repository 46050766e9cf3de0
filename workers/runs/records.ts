/**
 * Current values by key, in a bucket: JSON documents with a revision, compare-and-set. A key is a list of texts (bus/keys).
 */
import { tokenOf } from "../../bus/keys.ts";
import { fromJetStream } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { publish } from "../../bus/publish.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { BucketSpec } from "../../contracts/streams.ts";

export interface Kept<T> {
  readonly value: T;
  readonly revision: number;
}

export class Records<T> {
  readonly #bus: Bus;
  readonly #bucket: string;

  constructor(bus: Bus, spec: BucketSpec) {
    this.#bus = bus;
    this.#bucket = spec.name;
  }

  /** Undefined when there is none. Throws `unavailable`. */
  async get(...key: readonly string[]): Promise<Kept<T> | undefined> {
    try {
      const message = await this.#bus.jsm.direct.getMessage(`KV_${this.#bucket}`, { last_by_subj: this.#subject(key) });
      if (message === null || message.header.get("KV-Operation") !== "") return undefined;
      return { value: JSON.parse(message.string()) as T, revision: message.seq };
    } catch (thrown) {
      if (thrown instanceof Error && /message not found/i.test(thrown.message)) return undefined;
      throw fromJetStream(thrown, `read ${this.#bucket}`);
    }
  }

  /** Stores, whatever was there. */
  async put(key: readonly string[], value: T): Promise<number> {
    return (await publish(this.#bus, this.#subject(key), JSON.stringify(value))).seq;
  }

  /** Stores when the revision is still this one; 0 for a key that must not be there. False when it is not. */
  async swap(key: readonly string[], value: T, revision: number): Promise<number | undefined> {
    try {
      return (
        await publish(this.#bus, this.#subject(key), JSON.stringify(value), { expectLastSubjectSequence: revision })
      ).seq;
    } catch (thrown) {
      if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted") throw thrown;
      if (revision !== 0) return undefined;
      const removed = await this.#removedAt(key);
      return removed === undefined ? undefined : this.swap(key, value, removed);
    }
  }

  async remove(...key: readonly string[]): Promise<void> {
    await publish(this.#bus, this.#subject(key), "", { headers: { "KV-Operation": "DEL" } });
  }

  /** Everything below a prefix of the key. */
  async list(...prefix: readonly string[]): Promise<Kept<T>[]> {
    const found: Kept<T>[] = [];
    try {
      const filter = `${this.#subject(prefix)}.>`;
      const messages = await this.#bus.jsm.direct.getLastMessagesFor(`KV_${this.#bucket}`, {
        multi_last: [filter],
        batch: 1_000,
      });
      for await (const message of messages) {
        if (message.header.get("KV-Operation") === "")
          found.push({ value: JSON.parse(message.string()) as T, revision: message.seq });
      }
    } catch (thrown) {
      if (thrown instanceof Error && /not found|no results/i.test(thrown.message)) return found;
      throw fromJetStream(thrown, `list ${this.#bucket}`);
    }
    return found;
  }

  async #removedAt(key: readonly string[]): Promise<number | undefined> {
    try {
      const message = await this.#bus.jsm.direct.getMessage(`KV_${this.#bucket}`, { last_by_subj: this.#subject(key) });
      return message !== null && message.header.get("KV-Operation") !== "" ? message.seq : undefined;
    } catch {
      return undefined;
    }
  }

  #subject(key: readonly string[]): string {
    return [`$KV.${this.#bucket}`, ...key.map(tokenOf)].join(".");
  }
}
