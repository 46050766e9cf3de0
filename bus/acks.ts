/**
 * Messages to JetStream and its acknowledgements, all on one inbox of the process.
 *
 * Written for the hot path: one object, one promise and one map entry per publish, and one timer for all of them. A timer each would cost
 * a third of a publish; looking through what is in flight costs nothing at the sizes that occur.
 */
import type { Msg } from "@nats-io/transport-node";
import { BeamlineError } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";
import { asking, forbidden } from "./apierror.ts";
import type { Bus } from "./connect.ts";
import { isNoResponders, textOf } from "./headers.ts";
import { Inbox } from "./inbox.ts";

/** How long an acknowledgement may take when nobody says, milliseconds. */
export const DEFAULT_ACK_TIMEOUT_MS = 5_000;

/** How late a timeout may be noticed, milliseconds. */
const SWEEP_MS = 20;

/** What a stream answers. Empty for the first message of a batch. */
export interface Ack {
  readonly stream?: string;
  readonly seq?: number;
  readonly duplicate?: boolean;
  /** Messages of the batch this acknowledges. */
  readonly count?: number;
  readonly error?: { readonly code: number; readonly err_code: number; readonly description: string };
}

export interface AckOptions {
  /** Default 5000. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Makes the result of an acknowledgement, or throws what it refuses. */
export type Read<T> = (ack: Ack, subject: string) => T;

interface Outcome<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
  readonly read: Read<T>;
}

/** One message under way. */
class Pending<T> {
  readonly #acks: Acks;
  readonly #outcome: Outcome<T>;
  readonly #signal: AbortSignal | undefined;
  readonly subject: string;
  readonly timeoutMs: number;
  readonly deadline: number;
  reply = "";

  constructor(acks: Acks, subject: string, options: AckOptions, outcome: Outcome<T>) {
    this.#acks = acks;
    this.#outcome = outcome;
    this.#signal = options.signal;
    this.subject = subject;
    this.timeoutMs = options.timeoutMs ?? DEFAULT_ACK_TIMEOUT_MS;
    this.deadline = performance.now() + this.timeoutMs;
    this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  readonly #onAbort = (): void => this.fail(cancelled(this.subject));

  settle(message: Msg | undefined, error: BeamlineError | undefined): void {
    if (message === undefined)
      return this.fail(error ?? new BeamlineError("unavailable", "the bus connection was lost"));
    this.#close();
    if (isNoResponders(message)) return void explainNobody(this.#acks.bus, this.subject).then(this.#outcome.reject);
    try {
      this.#outcome.resolve(this.#outcome.read(ackIn(message, this.subject), this.subject));
    } catch (thrown) {
      this.#outcome.reject(thrown);
    }
  }

  fail(error: BeamlineError): void {
    this.#close();
    this.#outcome.reject(error);
  }

  #close(): void {
    this.#acks.forget(this);
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}

/** The acknowledgements one connection waits for. */
class Acks {
  readonly bus: Bus;
  readonly #inbox: Inbox;
  readonly #pending = new Set<Pending<never>>();
  #sweeper: NodeJS.Timeout | undefined;

  constructor(bus: Bus) {
    this.bus = bus;
    this.#inbox = new Inbox(bus);
    // The server tells of a missing right beside the message, so it is looked up by the subject.
    bus.onDenied((subject) => {
      for (const pending of this.#pending) {
        if (pending.subject === subject) pending.fail(forbidden(`publish to ${subject}`, undefined));
      }
    });
  }

  add<T>(pending: Pending<T>): void {
    pending.reply = this.#inbox.open(pending);
    this.#pending.add(pending as unknown as Pending<never>);
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS);
  }

  forget<T>(pending: Pending<T>): void {
    this.#inbox.close(pending.reply);
    this.#pending.delete(pending as unknown as Pending<never>);
  }

  #sweep(): void {
    const now = performance.now();
    for (const pending of this.#pending) {
      if (pending.deadline > now) continue;
      const text = `publish to ${pending.subject}: no acknowledgement within ${pending.timeoutMs} ms; it may have been stored`;
      pending.fail(new BeamlineError("deadline_exceeded", text));
    }
    if (this.#pending.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }
}

const ofBus = new WeakMap<Bus, Acks>();

/**
 * Sends with the reply subject it is given, and reads what comes back. Throws `unavailable`, `deadline_exceeded`, `cancelled`,
 * `message_too_large`, and what `read` throws.
 */
export function acknowledged<T>(
  bus: Bus,
  subject: string,
  options: AckOptions,
  read: Read<T>,
  send: (reply: string) => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (!bus.connected)
      return reject(new BeamlineError("unavailable", `publish to ${subject}: the bus is not connected`));
    if (options.signal?.aborted === true) return reject(cancelled(subject));
    if ((options.timeoutMs ?? 1) <= 0)
      return reject(new BeamlineError("deadline_exceeded", `publish to ${subject}: no time is left`));
    let acks = ofBus.get(bus);
    if (acks === undefined) ofBus.set(bus, (acks = new Acks(bus)));
    const pending = new Pending(acks, subject, options, { resolve, reject, read });
    acks.add(pending);
    try {
      send(pending.reply);
    } catch (thrown) {
      pending.fail(BeamlineError.from(thrown));
    }
  });
}

/** Sends one message and reads its acknowledgement. Throws as `acknowledged`. */
export function exchange<T>(
  bus: Bus,
  subject: string,
  payload: string | Uint8Array,
  headers: Headers | undefined,
  options: AckOptions,
  read: Read<T>,
): Promise<T> {
  return acknowledged(bus, subject, options, read, (reply) => bus.send(subject, payload, headers, reply));
}

function cancelled(subject: string): BeamlineError {
  return new BeamlineError("cancelled", `publish to ${subject}: cancelled; it may have been stored`);
}

function ackIn(message: Msg, subject: string): Ack {
  if (message.data.length === 0) return {};
  try {
    const parsed: unknown = JSON.parse(textOf(message));
    if (typeof parsed === "object" && parsed !== null) return parsed;
  } catch {
    // Not JSON: told below.
  }
  throw new BeamlineError("internal", `publish to ${subject}: something that is not a stream answered`);
}

/** Nobody answered: no stream takes the subject, or JetStream is not ready. Both may pass (streams are made at start), so both are `unavailable`. */
async function explainNobody(bus: Bus, subject: string): Promise<BeamlineError> {
  let names: string[];
  try {
    names = await asking("look for a stream", () => bus.jsm.streams.names(subject).next());
  } catch {
    return new BeamlineError("unavailable", `publish to ${subject}: JetStream is not ready`, { details: { subject } });
  }
  const why = names.length === 0 ? "no stream takes this subject" : `stream ${names.join(", ")} is not ready`;
  return new BeamlineError("unavailable", `publish to ${subject}: ${why}`, { details: { subject, streams: names } });
}
