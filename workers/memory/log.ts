/**
 * The memory log on its streams: append, last state of a thing, and reading it in order.
 *
 * G1 What is too large for a message goes to the object store first, its name into the log second: the log never names what is not there.
 * G2 A reader sees every message once, in order, until it is told to stop; a lost connection only delays it.
 */
import { createHash } from "node:crypto";
import type { JsonObject } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { buckets, objects, streams, type ObjectSpec } from "../../contracts/streams.ts";
import { fromJetStream } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { ObjectStore } from "../../bus/objects.ts";
import { publish } from "../../bus/publish.ts";
import { writeArrivals, type Arrival } from "./arrival.ts";
import {
  CRITICAL,
  idToken,
  readRecord,
  RECENT,
  subjectOf,
  tenantToken,
  writeRecord,
  type Kind,
  type Logged,
  type Record,
} from "./record.ts";

export interface AppendOptions {
  /** Store only when the last sequence of this thing is this one; 0 means that it must be new. */
  readonly expect?: number | undefined;
  /** Makes the append idempotent inside the stream's duplicate window. */
  readonly msgId?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Appended extends Logged {
  /** The log had a message of this id already: what it holds may be another state than the one given. */
  readonly duplicate: boolean;
}

/** A message of one of the memory streams. */
export interface Entry {
  readonly subject: string;
  readonly seq: number;
  readonly text: string;
  /** Messages still to come, as the server knew when it sent this one. */
  readonly pending: number;
}

/** How far a reader is, as the server knows it. */
export interface Ahead {
  /** Messages it has not been sent yet. */
  readonly pending: number;
  readonly sent: Sent;
}

/** Messages sent to a reader: how many, by the consumer of this name. A reader that lost its connection goes on with another consumer. */
export interface Sent {
  readonly consumer: string;
  readonly count: number;
}

/** Told what happens to a reading. */
export interface Watch {
  /** It begins with what comes after this sequence. `look` asks the server, and throws as reading does. */
  begin(after: number, look: () => Promise<Ahead>): void;
  arrived(seq: number, sent: Sent): void;
}

export interface ReadOptions {
  readonly stream: "MEMORY" | "MEMORY_RECENT" | typeof METRIC_STREAM;
  readonly subjects: readonly string[];
  /** First sequence read. Default 1. */
  readonly from?: number;
  /** The last message of each subject only. */
  readonly latest?: boolean;
  /** Ends the reading; without `follow` it ends by itself. */
  readonly signal?: AbortSignal | undefined;
  /** Goes on with what is appended later. Default: ends when everything there is has been read. */
  readonly follow?: boolean;
  readonly watch?: Watch | undefined;
}

/** The bucket of metrics as the stream it is. */
export const METRIC_STREAM = `KV_${buckets.memoryMetrics.name}` as const;
const METRICS = `$KV.${buckets.memoryMetrics.name}`;

/** Largest text that is kept in the log itself, bytes. */
const CLAIM_BYTES = 1024 * 1024;

/**
 * A server that was restarted has forgotten its readers, who learn it from the silence: two beats missed, and reading goes on with another one. How
 * long a request for more stays open, and how often the server says that it is there, milliseconds.
 */
const EXPIRES_MS = 10_000;
const BEAT_MS = 1_000;

export class MemoryLog {
  readonly #bus: Bus;
  readonly #stores = new Map<ObjectSpec, Promise<ObjectStore>>();

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  /**
   * Appends one record. Throws `aborted` when the expectation does not hold, `unavailable`, `deadline_exceeded`: then it may or may not be
   * stored, and appending it again does no harm.
   */
  async append(record: Record, { expect, msgId, signal }: AppendOptions = {}): Promise<Appended> {
    const subject = subjectOf(record.tenant, record.kind, record.id);
    const text = await this.#claimed(record.tenant, writeRecord(record));
    const { seq, duplicate } = await publish(this.#bus, subject, text, {
      expectStream: streams.memory.name,
      ...(expect !== undefined && { expectLastSubjectSequence: expect }),
      ...(msgId !== undefined && { msgId }),
      signal,
    });
    return { ...record, seq, duplicate };
  }

  /** Critical events, on the disk when it resolves. */
  async appendCritical(tenant: string, events: readonly Arrival[]): Promise<void> {
    const text = await this.#claimed(tenant, writeArrivals(events));
    await publish(this.#bus, `${CRITICAL}.${tenantToken(tenant)}`, text, { expectStream: streams.memory.name });
  }

  /** Ordinary events of a moment; their sequence. */
  async appendRecent(tenant: string, events: readonly Arrival[]): Promise<number> {
    const text = await this.#claimed(tenant, writeArrivals(events), objects.memoriesRecent);
    const { seq } = await publish(this.#bus, `${RECENT}.${tenantToken(tenant)}`, text, {
      expectStream: streams.memoryRecent.name,
    });
    return seq;
  }

  /** A value of a metric, in a bucket that keeps the last few of each. */
  async setMetric(tenant: string, key: string, value: JsonObject): Promise<void> {
    const subject = `${METRICS}.${tenantToken(tenant)}.${idToken(key)}`;
    await publish(this.#bus, subject, JSON.stringify({ key, ...value }), { expectStream: METRIC_STREAM });
  }

  /** The last state of a thing, undefined when the log has never heard of it. Asks the stream's leader: a follower may not know it yet. */
  async last(tenant: string, kind: Kind, id: string): Promise<Logged | undefined> {
    const subject = subjectOf(tenant, kind, id);
    try {
      const found = await this.#bus.jsm.streams.getMessage(streams.memory.name, { last_by_subj: subject });
      if (found === null) return undefined;
      return await this.record({ subject, seq: found.seq, text: found.string(), pending: 0 });
    } catch (thrown) {
      const error = fromJetStream(thrown, "read the memory log");
      if (error.code === "not_found") return undefined;
      throw error;
    }
  }

  /** Leaves only the last state of a thing in the log. */
  async compact(tenant: string, kind: Kind, id: string): Promise<void> {
    try {
      await this.#bus.jsm.streams.purge(streams.memory.name, { filter: subjectOf(tenant, kind, id), keep: 1 });
    } catch (thrown) {
      throw fromJetStream(thrown, "compact the memory log");
    }
  }

  /** The record of an entry. Throws `data_loss` for one that cannot be read. */
  async record(entry: Entry): Promise<Logged> {
    const record = readRecord(entry.subject, await this.text(entry));
    return { ...record, seq: entry.seq };
  }

  /** The text of an entry, fetched when it is kept in the object store (G1). */
  async text({ subject, text }: Entry): Promise<string> {
    if (!text.startsWith('{"claim":')) return text;
    const claim = claimIn(text);
    if (claim === undefined) throw new BeamlineError("data_loss", `what stands for the text of ${subject} is no claim`);
    const spec = subject.startsWith(`${RECENT}.`) ? objects.memoriesRecent : objects.memories;
    const bytes = await (await this.#objects(spec)).bytes(claim);
    if (bytes.length === 0) throw new BeamlineError("data_loss", `the text of ${subject} is gone`);
    return Buffer.from(bytes).toString("utf8");
  }

  /** Last sequence of a stream, and its first. */
  async bounds(stream: ReadOptions["stream"]): Promise<{ readonly first: number; readonly last: number }> {
    try {
      const { state } = await this.#bus.jsm.streams.info(stream);
      return { first: state.first_seq, last: state.last_seq };
    } catch (thrown) {
      throw fromJetStream(thrown, `look at stream ${stream}`);
    }
  }

  /** Every message in order (G2). Throws `unavailable` when reading cannot begin. */
  async *read({
    stream,
    subjects,
    from = 1,
    latest = false,
    follow = false,
    watch,
    signal,
  }: ReadOptions): AsyncGenerator<Entry> {
    const ended = (): boolean => signal?.aborted === true;
    if (ended()) return;
    let messages;
    try {
      const consumer = await this.#bus.js.consumers.get(stream, {
        filter_subjects: [...subjects],
        ...(latest
          ? { deliver_policy: "last_per_subject" }
          : { deliver_policy: "by_start_sequence", opt_start_seq: Math.max(1, from) }),
      });
      if (!follow && (await consumer.info()).num_pending === 0) {
        await consumer.delete();
        return;
      }
      messages = await consumer.consume({ max_messages: 500, expires: EXPIRES_MS, idle_heartbeat: BEAT_MS });
      watch?.begin(from - 1, async () => {
        try {
          const { name, num_pending, delivered } = await consumer.info();
          return { pending: num_pending, sent: { consumer: name, count: delivered.consumer_seq } };
        } catch (thrown) {
          throw fromJetStream(thrown, `look how far reading stream ${stream} is`);
        }
      });
    } catch (thrown) {
      throw fromJetStream(thrown, `read stream ${stream}`);
    }
    const stop = (): void => messages.stop();
    signal?.addEventListener("abort", stop, { once: true });
    if (ended()) stop(); // while the reading began
    try {
      for await (const message of messages) {
        const { pending, consumer: name, deliverySequence } = message.info;
        watch?.arrived(message.seq, { consumer: name, count: deliverySequence });
        yield { subject: message.subject, seq: message.seq, text: message.string(), pending };
        if (pending === 0 && !follow) return;
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      messages.stop();
    }
  }

  async #claimed(tenant: string, text: string, spec: ObjectSpec = objects.memories): Promise<string> {
    if (text.length * 3 <= CLAIM_BYTES || Buffer.byteLength(text) <= CLAIM_BYTES) return text;
    const claim = `${tenantToken(tenant)}/${createHash("sha256").update(text).digest("hex")}`;
    await (await this.#objects(spec)).put(claim, Buffer.from(text, "utf8"));
    return JSON.stringify({ claim });
  }

  #objects(spec: ObjectSpec): Promise<ObjectStore> {
    let store = this.#stores.get(spec);
    if (store === undefined) {
      store = ObjectStore.open(this.#bus, spec);
      store.catch(() => this.#stores.delete(spec)); // tried again by the next one; this one's caller hears of it
      this.#stores.set(spec, store);
    }
    return store;
  }
}

/** The object that a text names; undefined when it names none. */
function claimIn(text: string): string | undefined {
  try {
    const { claim } = JSON.parse(text) as { claim: unknown };
    return typeof claim === "string" && claim !== "" ? claim : undefined;
  } catch {
    return undefined;
  }
}
