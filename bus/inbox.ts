/**
 * One inbox per process for every reply it waits for: a single subscription, a token per waiter. Opening one costs a map entry,
 * not a subscription and not a captured stack trace.
 */
import { nuid, type Msg, type Subscription } from "@nats-io/transport-node";
import type { BeamlineError } from "../contracts/errors.ts";
import type { Bus } from "./connect.ts";

/** Who waits at a reply subject. */
export interface Waiter {
  /** Told of every message that arrives for it; with `error` when the connection is lost, and then never again. */
  settle(message: Msg | undefined, error: BeamlineError | undefined): void;
}

export class Inbox {
  readonly #prefix: string;
  readonly #waiting = new Map<string, Waiter>();
  readonly #lasting = new Map<string, (message: Msg) => void>();
  readonly #subscription: Subscription;
  readonly #unwatch: () => void;
  #next = 0;

  constructor(bus: Bus) {
    this.#prefix = `${bus.inboxPrefix}.${nuid.next()}.`;
    this.#subscription = bus.nc.subscribe(`${this.#prefix}*`, {
      callback: (_error, message) => {
        const { subject } = message;
        const waiter = this.#waiting.get(subject);
        if (waiter === undefined) this.#lasting.get(subject)?.(message);
        else waiter.settle(message, undefined);
      },
    });
    this.#unwatch = bus.onDisconnect((error) => this.#fail(error));
  }

  /** A reply subject of its own; close it when nothing more is expected. */
  open(waiter: Waiter): string {
    const subject = this.#prefix + (this.#next++).toString(36);
    this.#waiting.set(subject, waiter);
    return subject;
  }

  /** A reply subject that survives the loss of the connection, for answers that are asked for again and again. */
  openForEver(listener: (message: Msg) => void): string {
    const subject = this.#prefix + (this.#next++).toString(36);
    this.#lasting.set(subject, listener);
    return subject;
  }

  close(subject: string): void {
    this.#lasting.delete(subject);
    this.#waiting.delete(subject);
  }

  get size(): number {
    return this.#waiting.size;
  }

  stop(): void {
    this.#unwatch();
    this.#subscription.unsubscribe();
  }

  #fail(error: BeamlineError): void {
    const waiters = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiter of waiters) waiter.settle(undefined, error);
  }
}
