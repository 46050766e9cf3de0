/**
 * Messages to JetStream and its acknowledgements, all on one inbox of the process.
 *
 * Written for the hot path: one object, one promise and one place in the inbox per publish.
 */
import type { Msg } from "@nats-io/transport-node";
import { BeamlineError } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";
import { asking, forbidden } from "./apierror.ts";
import type { Bus } from "./connect.ts";
import { isNoResponders, textOf } from "./headers.ts";
import { Inbox, Waiter } from "./inbox.ts";

/** How long an acknowledgement may take when nobody says, milliseconds. */
export const DEFAULT_ACK_TIMEOUT_MS = 5_000;

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

/** One message under way. */
class Pending<T> extends Waiter {
  readonly #inbox: Inbox;
  readonly #timeoutMs: number;
  readonly #read: Read<T>;
  readonly #resolve: (value: T) => void;
  readonly #reject: (error: unknown) => void;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort: (() => void) | undefined;

  constructor(
    inbox: Inbox,
    subject: string,
    { timeoutMs = DEFAULT_ACK_TIMEOUT_MS, signal }: AckOptions,
    read: Read<T>,
    resolve: (value: T) => void,
    reject: (error: unknown) => void,
  ) {
    super(subject, timeoutMs);
    this.#inbox = inbox;
    this.#timeoutMs = timeoutMs;
    this.#read = read;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#signal = signal;
    this.#onAbort = signal === undefined ? undefined : () => this.fail(cancelled(subject));
    if (this.#onAbort !== undefined) signal?.addEventListener("abort", this.#onAbort, { once: true });
    inbox.expect(this);
  }

  arrived(message: Msg): void {
    this.#deaf();
    if (isNoResponders(message)) return void explainNobody(this.#inbox.bus, this.subject).then(this.#reject);
    try {
      this.#resolve(this.#read(ackIn(message, this.subject), this.subject));
    } catch (thrown) {
      this.#reject(thrown);
    }
  }

  lost(error: BeamlineError): void {
    this.fail(error);
  }

  expire(): void {
    const text = `publish to ${this.subject}: no acknowledgement within ${this.#timeoutMs} ms; it may have been stored`;
    this.fail(new BeamlineError("deadline_exceeded", text));
  }

  deny(): void {
    this.fail(forbidden(`publish to ${this.subject}`, undefined));
  }

  fail(error: BeamlineError): void {
    this.#inbox.forget(this);
    this.#deaf();
    this.#reject(error);
  }

  #deaf(): void {
    if (this.#onAbort !== undefined) this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}

const ofBus = new WeakMap<Bus, Inbox>();

function inboxOf(bus: Bus): Inbox {
  let inbox = ofBus.get(bus);
  if (inbox === undefined) ofBus.set(bus, (inbox = new Inbox(bus)));
  return inbox;
}

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
    const pending = new Pending(inboxOf(bus), subject, options, read, resolve, reject);
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
