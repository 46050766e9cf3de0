/**
 * Request/reply over one shared inbox.
 *
 * K1 Nobody listening is `unavailable` at once and says which worker; nobody answering is `deadline_exceeded` after the wait.
 * K2 A lost connection fails what is in flight with `unavailable`: its outcome is unknown, so the caller decides.
 *    A subject this process may not send to is `permission_denied`, also at once.
 * K3 A cancelled call is forgotten here and the worker is told, so that it can stop.
 */
import type { Msg } from "@nats-io/transport-node";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { errorOfBody } from "../contracts/errorbody.ts";
import { header, type Headers } from "../contracts/headers.ts";
import type { Bus } from "./connect.ts";
import { fromNats, isNoResponders, textOf } from "./headers.ts";
import { Inbox, Waiter } from "./inbox.ts";

/** Broadcast to all workers when a caller gives up: the payload is the reply subject of the abandoned call. */
export const CANCEL_SUBJECT = "beamline.cancel.v1";

export interface CallOptions {
  readonly headers?: Headers;
  /** How long to wait, milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Who should be listening, for the message of `unavailable`. */
  readonly worker?: string;
}

export type Done = (error: BeamlineError | undefined, reply: Reply | undefined) => void;

const nothing = (): void => undefined;

export interface Reply {
  readonly text: string;
  readonly headers: Headers;
}

export class Caller {
  readonly bus: Bus;
  readonly inbox: Inbox;

  constructor(bus: Bus) {
    this.bus = bus;
    this.inbox = new Inbox(bus);
  }

  /**
   * One request, one reply, whatever it says. `done` is called exactly once: with the reply, or with `unavailable`,
   * `deadline_exceeded`, `cancelled`, `message_too_large`. Returns how to give up.
   */
  start(subject: string, data: string, options: CallOptions, done: Done): () => void {
    if (!this.bus.connected) {
      done(new BeamlineError("unavailable", "the bus is not connected"), undefined);
      return nothing;
    }
    const pending = new PendingCall(this.inbox, subject, options, done);
    try {
      this.bus.send(subject, data, options.headers, pending.reply);
    } catch (thrown) {
      pending.fail(BeamlineError.from(thrown));
    }
    return () => pending.giveUp();
  }

  /** `start` as a promise, cancelled by `options.signal`. */
  call(subject: string, data: string, options: CallOptions): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const { signal } = options;
      if (signal?.aborted === true) return reject(new BeamlineError("cancelled", "the call was cancelled"));
      let giveUp = nothing;
      const onAbort = (): void => giveUp();
      signal?.addEventListener("abort", onAbort, { once: true });
      giveUp = this.start(subject, data, options, (error, reply) => {
        signal?.removeEventListener("abort", onAbort);
        if (reply === undefined) reject(error);
        else resolve(reply);
      });
    });
  }

  /** One request whose reply is JSON; an error reply in any contract's form is thrown. */
  async request(subject: string, json: unknown, options: CallOptions): Promise<unknown> {
    const reply = await this.call(subject, JSON.stringify(json), options);
    if (isError(reply.headers)) throw errorOfReply(reply);
    return parseJson(reply.text);
  }

  stop(): void {
    this.inbox.stop();
  }
}

/** One call under way: an object and its place in the inbox, no timer and no promise of its own. */
class PendingCall extends Waiter {
  readonly #inbox: Inbox;
  readonly #options: CallOptions;
  readonly #done: Done;
  #open = true;

  constructor(inbox: Inbox, subject: string, options: CallOptions, done: Done) {
    super(subject, options.timeoutMs);
    this.#inbox = inbox;
    this.#options = options;
    this.#done = done;
    inbox.expect(this);
  }

  arrived(message: Msg): void {
    this.#open = false;
    if (isNoResponders(message)) this.#done(nobody(this.subject, this.#options.worker), undefined);
    else this.#done(undefined, { text: textOf(message), headers: fromNats(message) });
  }

  lost(error: BeamlineError): void {
    this.fail(error);
  }

  expire(): void {
    const { timeoutMs } = this.#options;
    this.fail(new BeamlineError("deadline_exceeded", `no answer to ${this.subject} within ${timeoutMs} ms`));
  }

  deny(): void {
    this.fail(forbidden(this.subject));
  }

  giveUp(): void {
    if (!this.#open) return;
    if (this.#inbox.bus.connected) this.#inbox.bus.send(CANCEL_SUBJECT, this.reply);
    this.fail(new BeamlineError("cancelled", "the call was cancelled"));
  }

  fail(error: BeamlineError): void {
    if (!this.#open) return;
    this.#open = false;
    this.#inbox.forget(this);
    this.#done(error, undefined);
  }
}

export function nobody(subject: string, worker: string | undefined): BeamlineError {
  const who = worker === undefined ? "nobody" : `no ${worker} worker`;
  return new BeamlineError("unavailable", `${who} is serving ${subject}`, {
    details: { subject, ...(worker !== undefined && { worker }) },
  });
}

/** K2. */
export function forbidden(subject: string): BeamlineError {
  return new BeamlineError("permission_denied", `the bus user of this process may not send to ${subject}`, {
    details: { subject },
  });
}

/** Whether a reply's headers mark it as an error (NATS ADR-32). */
export function isError(headers: Headers): boolean {
  return headers[header.serviceErrorCode] !== undefined;
}

/** The error a reply stands for, in any contract's form; `internal` when its body cannot be read. */
export function errorOfReply(reply: Reply): BeamlineError {
  let body: unknown;
  try {
    body = JSON.parse(reply.text);
  } catch {
    body = undefined;
  }
  return errorOfBody(body, reply.headers[header.serviceError]);
}

/** Throws `invalid_argument` for text that is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalidArgument("body", "is not valid JSON");
  }
}

/** The JSON of a request; no text at all is an empty one. Throws `invalid_argument` for text that is not a JSON object. */
export function parseRequest(text: string): unknown {
  const json = text === "" ? {} : parseJson(text);
  if (typeof json === "object" && json !== null && !Array.isArray(json)) return json;
  throw invalidArgument("body", "must be a JSON object");
}
