/**
 * One inbox per process for every reply it waits for: a single subscription, a place per waiter. Waiting for a reply costs a place in an
 * array, not a subscription, a timer and a captured stack trace.
 */
import { nuid, type Msg, type Subscription } from "@nats-io/transport-node";
import type { BeamlineError } from "../contracts/errors.ts";
import type { Bus } from "./connect.ts";
import { Places } from "./places.ts";

/** How late a deadline may be noticed, milliseconds. One sweep for all costs less than a timer for each. */
const SWEEP_MS = 20;

/** Who waits for one reply. */
export abstract class Waiter {
  /** Where the request went. */
  readonly subject: string;
  /** `performance.now()` from which on it waits no longer. */
  readonly expires: number;
  /** Reply subject, and by what the inbox knows it. Given by `Inbox.expect`. */
  reply = "";
  place = -1;
  serial = -1;

  constructor(subject: string, timeoutMs: number) {
    this.subject = subject;
    this.expires = performance.now() + timeoutMs;
  }

  /** Told of the reply, at most once. */
  abstract arrived(message: Msg): void;
  /** Told that there will be none: the connection is lost. */
  abstract lost(error: BeamlineError): void;
  /** Told that its time is over. */
  abstract expire(): void;
  /** Told that the server does not let this process send there. */
  abstract deny(): void;
}

/** Who is told of every message at a subject, and with `error`, when the connection is lost, that no more will come. */
export type Listener = (message: Msg | undefined, error: BeamlineError | undefined) => void;

/** The subject as it came over the wire. */
interface RawMessage {
  readonly _msg: { readonly subject: Uint8Array };
}

const ZERO = 48;
const DASH = 45;

/** Value of a decimal digit; negative or NaN for anything else, and beyond the end. */
function digitAt(bytes: Uint8Array, at: number): number {
  const digit = (bytes[at] ?? 0) - ZERO;
  return digit <= 9 ? digit : -1;
}

export class Inbox {
  readonly bus: Bus;
  readonly #prefix: string;
  readonly #waiting = new Places<Waiter>();
  readonly #listening = new Map<string, { readonly listener: Listener; readonly lasts: boolean }>();
  readonly #subscription: Subscription;
  readonly #unwatch: readonly (() => void)[];
  #sweeper: NodeJS.Timeout | undefined;
  #next = 0;

  constructor(bus: Bus) {
    this.bus = bus;
    this.#prefix = `${bus.inboxPrefix}.${nuid.next()}.`;
    this.#subscription = bus.subscribe(`${this.#prefix}*`, (message) => this.#arrive(message));
    this.#unwatch = [
      bus.onDisconnect((error) => this.#lost(error)),
      // The server tells of a missing right beside the message, so it is looked up by the subject.
      bus.onDenied((subject) => {
        for (const waiter of this.#waiting) if (waiter.subject === subject) waiter.deny();
      }),
    ];
  }

  /** Gives a waiter its reply subject. It waits until it is told of something, or forgotten. */
  expect(waiter: Waiter): void {
    const serial = this.#next++;
    const place = this.#waiting.add(waiter);
    waiter.place = place;
    // The serial makes the subject one of its own: a late reply to who had the place before finds nobody.
    waiter.serial = serial;
    waiter.reply = `${this.#prefix}${place}-${serial}`;
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS);
  }

  forget(waiter: Waiter): void {
    this.#waiting.remove(waiter.place, waiter);
  }

  /** A reply subject for many messages, until the connection is lost; close it when nothing more is expected. */
  open(listener: Listener): string {
    return this.#listen(listener, false);
  }

  /** A reply subject that survives the loss of the connection, for answers that are asked for again and again. */
  openForEver(listener: (message: Msg) => void): string {
    return this.#listen((message) => message !== undefined && listener(message), true);
  }

  close(subject: string): void {
    this.#listening.delete(subject);
  }

  stop(): void {
    for (const unwatch of this.#unwatch) unwatch();
    this.#subscription.unsubscribe();
    clearInterval(this.#sweeper);
  }

  #listen(listener: Listener, lasts: boolean): string {
    const subject = `${this.#prefix}l${this.#next++}`;
    this.#listening.set(subject, { listener, lasts });
    return subject;
  }

  /** Reads place and serial from the bytes of the subject: as text they would be decoded, hashed and thrown away. */
  #arrive(message: Msg): void {
    const { subject } = (message as unknown as RawMessage)._msg;
    const start = this.#prefix.length;
    let at = start;
    let place = 0;
    let serial = 0;
    for (let digit = digitAt(subject, at); digit >= 0; digit = digitAt(subject, ++at)) place = place * 10 + digit;
    if (at === start) return this.#listening.get(message.subject)?.listener(message, undefined);
    if (subject[at] !== DASH) return;
    for (let digit = digitAt(subject, ++at); digit >= 0; digit = digitAt(subject, ++at)) serial = serial * 10 + digit;
    const waiter = this.#waiting.at(place);
    if (waiter?.serial !== serial) return;
    this.#waiting.remove(place, waiter);
    waiter.arrived(message);
  }

  #sweep(): void {
    if (this.#waiting.size === 0) {
      clearInterval(this.#sweeper);
      this.#sweeper = undefined;
      return;
    }
    const now = performance.now();
    for (const waiter of this.#waiting) if (waiter.expires <= now) waiter.expire();
  }

  #lost(error: BeamlineError): void {
    for (const waiter of this.#waiting) {
      this.forget(waiter);
      waiter.lost(error);
    }
    const told = Array.from(this.#listening).filter(([, { lasts }]) => !lasts);
    for (const [subject] of told) this.#listening.delete(subject);
    for (const [, { listener }] of told) listener(undefined, error);
  }
}
