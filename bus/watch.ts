/**
 * A whole bucket in memory, always as fresh as the connection allows.
 *
 * W1 `ready` resolves when everything that was in the bucket at the start is in the map.
 * W2 After a lost connection, silence, or a gap in what arrives, the bucket is read anew from scratch and the difference is told. So nothing is
 *    missed, neither a deletion whose mark is gone nor a bucket that was made again. Until then the map keeps answering with what it knew.
 * W3 `onChange` is told in the order of the changes, and of the last state of a key at least. What it throws is reported, and that is all.
 * W4 A value that cannot be read is reported, and the key keeps what it had: one bad write does not take the rest away.
 */
import { nanos, nuid, type Msg, type Subscription } from "@nats-io/transport-node";
import { BeamlineError } from "../contracts/errors.ts";
import { asking } from "./apierror.ts";
import { fromNats } from "./headers.ts";
import { isDeletion, OPERATION, type Bucket, type Entry } from "./keyvalue.ts";

export interface WatchOptions<T> {
  /** Told of each change after the map has it; `entry` is undefined when the key is gone. The first load is told as well. */
  readonly onChange?: (key: string, entry: Entry<T> | undefined) => void;
  /** Told of what goes wrong and is being mended, and of values that cannot be read (W4). */
  readonly onError?: (error: BeamlineError) => void;
  /** How often the server says that it is there, milliseconds; silence is noticed after two and a half times this. Default 5000. */
  readonly beatMs?: number;
}

export interface Watch<T> {
  /** The bucket by key; changes under the reader's hands. */
  readonly entries: ReadonlyMap<string, Entry<T>>;
  /** W1. Never rejects: without a server it waits for one. */
  readonly ready: Promise<void>;
  /** False while the map may be behind: before it is ready, and from a lost connection until it was read anew. */
  readonly current: boolean;
  /** Ends the watch; the map stays as it is. */
  stop(): void;
}

/** Watches a bucket into memory. Returns at once; wait for `ready` before the first answer depends on it. */
export function watchInto<T>(bucket: Bucket<T>, options: WatchOptions<T> = {}): Watch<T> {
  return new BucketWatch(bucket, options);
}

const DEFAULT_BEAT_MS = 5_000;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5_000;

class BucketWatch<T> implements Watch<T> {
  readonly entries = new Map<string, Entry<T>>();
  readonly ready: Promise<void>;
  readonly #bucket: Bucket<T>;
  readonly #options: WatchOptions<T>;
  readonly #unwatch: readonly (() => void)[];
  #loaded: () => void = () => undefined;
  #reading: Reading<T> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = FIRST_RETRY_MS;
  #stopped = false;

  constructor(bucket: Bucket<T>, options: WatchOptions<T>) {
    this.#bucket = bucket;
    this.#options = options;
    this.ready = new Promise((resolve) => (this.#loaded = resolve));
    this.#unwatch = [
      bucket.bus.onDisconnect((error) => this.#lost(error)),
      bucket.bus.onReconnect(() => void this.#read()),
    ];
    void this.#read();
  }

  get current(): boolean {
    return this.#reading?.complete === true;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    for (const unwatch of this.#unwatch) unwatch();
    this.#drop();
  }

  #drop(): void {
    this.#reading?.stop();
    this.#reading = undefined;
  }

  #lost(error: BeamlineError): void {
    if (this.#reading !== undefined) this.#report(error);
    this.#drop();
  }

  /** W2: from scratch. */
  async #read(): Promise<void> {
    clearTimeout(this.#retry);
    this.#drop();
    if (this.#stopped || !this.#bucket.bus.connected) return;
    const reading = new Reading(this.#bucket, this.#options.beatMs ?? DEFAULT_BEAT_MS, {
      complete: (seen) => this.#settle(seen),
      changed: (key, entry) => this.#set(key, entry),
      unreadable: (error) => this.#report(error),
      broken: (error) => this.#again(reading, error),
    });
    this.#reading = reading;
    await reading.start();
  }

  #again(reading: Reading<T>, error: BeamlineError): void {
    if (this.#reading !== reading) return;
    this.#drop();
    this.#report(error);
    this.#retry = setTimeout(() => void this.#read(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
  }

  /** What is in the map and was not in the bucket is gone. */
  #settle(seen: ReadonlySet<string>): void {
    this.#retryMs = FIRST_RETRY_MS;
    for (const key of this.entries.keys()) if (!seen.has(key)) this.#set(key, undefined);
    this.#loaded();
  }

  #set(key: string, entry: Entry<T> | undefined): void {
    const before = this.entries.get(key);
    if (before?.revision === entry?.revision && before?.timestampMs === entry?.timestampMs) return;
    if (entry === undefined) this.entries.delete(key);
    else this.entries.set(key, entry);
    try {
      this.#options.onChange?.(key, entry);
    } catch (thrown) {
      this.#report(BeamlineError.from(thrown));
    }
  }

  #report(error: BeamlineError): void {
    this.#options.onError?.(error);
  }
}

interface ReadingEvents<T> {
  /** Everything that was there is read; these keys were. */
  readonly complete: (seen: ReadonlySet<string>) => void;
  readonly changed: (key: string, entry: Entry<T> | undefined) => void;
  readonly unreadable: (error: BeamlineError) => void;
  /** It cannot go on. */
  readonly broken: (error: BeamlineError) => void;
}

/** One reading of a bucket: the last value of every key, then every change, until something breaks. */
class Reading<T> {
  complete = false;
  readonly #bucket: Bucket<T>;
  readonly #events: ReadingEvents<T>;
  readonly #seen = new Set<string>();
  readonly #consumer = `watch_${nuid.next()}`;
  readonly #prefix: string;
  #subscription: Subscription | undefined;
  #monitor: NodeJS.Timeout | undefined;
  readonly #beatMs: number;
  #expected = 1;
  #heard = 0;
  #stopped = false;

  constructor(bucket: Bucket<T>, beatMs: number, events: ReadingEvents<T>) {
    this.#bucket = bucket;
    this.#beatMs = beatMs;
    this.#events = events;
    this.#prefix = bucket.subjectOf("");
  }

  /** Never rejects. */
  async start(): Promise<void> {
    const { bus, stream, name } = this.#bucket;
    const inbox = `${bus.inboxPrefix}.${nuid.next()}`;
    try {
      this.#subscription = bus.subscribe(inbox, (message) => this.#receive(message, inbox));
      const info = await asking(`watch bucket ${name}`, () =>
        bus.jsm.consumers.add(stream, {
          name: this.#consumer,
          deliver_subject: inbox,
          deliver_policy: "last_per_subject",
          filter_subject: `${this.#prefix}>`,
          ack_policy: "none",
          max_deliver: 1,
          mem_storage: true,
          num_replicas: 1,
          flow_control: true,
          idle_heartbeat: nanos(this.#beatMs),
          inactive_threshold: nanos(60_000),
        }),
      );
      if (info.num_pending === 0 && info.delivered.consumer_seq === 0) this.#finish();
    } catch (thrown) {
      return this.#break(BeamlineError.from(thrown));
    }
    if (this.#stopped) return;
    this.#heard = performance.now();
    this.#monitor = setInterval(() => {
      if (performance.now() - this.#heard > 2.5 * this.#beatMs) this.#break(this.#trouble("no heartbeat"));
    }, this.#beatMs).unref();
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.complete = false;
    clearInterval(this.#monitor);
    this.#subscription?.unsubscribe();
    const { bus, stream } = this.#bucket;
    // It would go by itself a minute later.
    if (bus.connected) bus.jsm.consumers.delete(stream, this.#consumer).catch(() => undefined);
  }

  #receive(message: Msg, inbox: string): void {
    if (this.#stopped) return;
    this.#heard = performance.now();
    if (message.subject === inbox) return this.#control(message);
    // $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>, or with <domain>.<account> first and more behind.
    const tokens = (message.reply ?? "").split(".");
    const at = tokens.length < 11 ? 5 : 7;
    if (Number(tokens[at + 1]) !== this.#expected++) return this.#break(this.#trouble("a message was lost"));
    this.#take(message, Number(tokens[at]), Math.floor(Number(tokens[at + 2]) / 1e6));
    if (!this.complete && tokens[at + 3] === "0") this.#finish();
  }

  #take(message: Msg, revision: number, timestampMs: number): void {
    // The server can be made to deliver a message of another stream into this one, under the subject it has there.
    if (!message.subject.startsWith(this.#prefix)) return;
    const key = message.subject.slice(this.#prefix.length);
    const headers = fromNats(message);
    if (isDeletion(headers[OPERATION], headers["Nats-Marker-Reason"])) {
      this.#seen.delete(key);
      return this.#events.changed(key, undefined);
    }
    this.#seen.add(key);
    let value: T;
    try {
      value = this.#bucket.decode(key, message.data);
    } catch (thrown) {
      return this.#events.unreadable(BeamlineError.from(thrown));
    }
    this.#events.changed(key, { key, value, revision, timestampMs });
  }

  /** Heartbeats and flow control. */
  #control(message: Msg): void {
    const headers = fromNats(message);
    const stalled = headers["Nats-Consumer-Stalled"];
    if (message.reply !== undefined && message.reply !== "") message.respond();
    else if (stalled !== undefined) this.#bucket.bus.nc.publish(stalled);
    const status = headers["status"] ?? "";
    if (status !== "" && !status.startsWith("100")) return this.#break(this.#trouble(status));
    const last = headers["Nats-Last-Consumer"];
    // The tail of what was sent is missing: the next message would tell, but there may be none for a long time.
    if (last !== undefined && Number(last) >= this.#expected) this.#break(this.#trouble("a message was lost"));
  }

  #finish(): void {
    if (this.complete || this.#stopped) return;
    this.complete = true;
    this.#events.complete(this.#seen);
  }

  #break(error: BeamlineError): void {
    if (this.#stopped) return;
    this.stop();
    this.#events.broken(error);
  }

  #trouble(what: string): BeamlineError {
    return new BeamlineError("unavailable", `watch of bucket ${this.#bucket.name}: ${what}`);
  }
}
