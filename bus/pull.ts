/**
 * Pull requests of one durable consumer: asks for as many messages as there are free slots, never more.
 *
 * U1 What is asked for and not yet delivered is known at any time; a status message of the server closes its request.
 * U2 Silence is noticed: the server beats every five seconds while a request is open, and two missed beats are trouble.
 */
import { nanos, nuid, type Msg, type Subscription } from "@nats-io/transport-node";
import type { Bus } from "./connect.ts";
import { fromNats } from "./headers.ts";

const EXPIRES_MS = 30_000;
const BEAT_MS = 5_000;

export interface PullEvents {
  readonly message: (message: Msg) => void;
  /** A request ended without filling: ask again. */
  readonly closed: () => void;
  /** The consumer, its stream or the server does not answer as it should; nothing is asked any more until `reset`. */
  readonly trouble: (what: string) => void;
}

export class Pull {
  readonly #bus: Bus;
  readonly #next: string;
  readonly #prefix: string;
  readonly #events: PullEvents;
  readonly #subscription: Subscription;
  readonly #monitor: NodeJS.Timeout;
  /** Messages each open request may still bring, oldest first, which is the order the server serves them in. */
  readonly #open = new Map<string, number>();
  #asked = 0;
  #count = 0;
  #heard = 0;

  constructor(bus: Bus, stream: string, durable: string, events: PullEvents) {
    this.#bus = bus;
    this.#events = events;
    this.#next = `$JS.API.CONSUMER.MSG.NEXT.${stream}.${durable}`;
    this.#prefix = `${bus.inboxPrefix}.${nuid.next()}.`;
    this.#subscription = bus.subscribe(`${this.#prefix}*`, (message) => this.#receive(message));
    this.#monitor = setInterval(() => this.#listen(), BEAT_MS);
    this.#monitor.unref();
  }

  /** Messages asked for and not yet delivered. */
  get asked(): number {
    return this.#asked;
  }

  /** `now` asks for what is there: the request is closed when that was less. */
  ask(batch: number, when: "now" | "later" = "later"): void {
    const reply = this.#prefix + (this.#count++).toString(36);
    if (this.#asked === 0) this.#heard = performance.now();
    this.#open.set(reply, batch);
    this.#asked += batch;
    const waiting = { expires: nanos(EXPIRES_MS), idle_heartbeat: nanos(BEAT_MS) };
    const request = { batch, ...(when === "now" ? { no_wait: true } : waiting) };
    this.#bus.send(this.#next, JSON.stringify(request), undefined, reply);
  }

  /** Forgets what was asked: the server has, too. */
  reset(): void {
    this.#open.clear();
    this.#asked = 0;
  }

  /** No new messages; those under way still arrive before it resolves. */
  async stop(): Promise<void> {
    clearInterval(this.#monitor);
    // A connection that is away delivers nothing more; one that is lost meanwhile ends the drain.
    if (this.#bus.connected) await this.#subscription.drain().catch(() => undefined);
    else this.#subscription.unsubscribe();
    this.reset();
  }

  #receive(message: Msg): void {
    this.#heard = performance.now();
    if (!message.subject.startsWith(this.#prefix)) {
      this.#deliver();
      return this.#events.message(message);
    }
    const status = fromNats(message)["status"] ?? "";
    if (status.startsWith("100")) return;
    const left = this.#open.get(message.subject);
    if (left === undefined) return;
    this.#open.delete(message.subject);
    this.#asked -= left;
    if (/^(404|408|409 Leadership|409 Batch)/.test(status)) return this.#events.closed();
    this.#events.trouble(status === "" ? "an empty status" : status);
  }

  #deliver(): void {
    for (const [request, left] of this.#open) {
      if (left === 1) this.#open.delete(request);
      else this.#open.set(request, left - 1);
      this.#asked--;
      return;
    }
  }

  #listen(): void {
    if (this.#asked === 0 || !this.#bus.connected) return;
    if (performance.now() - this.#heard <= 2.5 * BEAT_MS) return;
    this.reset();
    this.#events.trouble("no heartbeat");
  }
}
