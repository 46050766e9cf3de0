/**
 * Request/reply over one shared inbox.
 *
 * K1 Nobody listening is `unavailable` at once and says which worker; nobody answering is `deadline_exceeded` after the wait.
 * K2 A lost connection fails what is in flight with `unavailable`: its outcome is unknown, so the caller decides.
 * K3 A cancelled call is forgotten here and the worker is told, so that it can stop.
 */
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { errorOfBody } from "../contracts/errorbody.ts";
import { header, type Headers } from "../contracts/headers.ts";
import type { Bus } from "./connect.ts";
import { fromNats, isNoResponders, textOf } from "./headers.ts";
import { Inbox } from "./inbox.ts";

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
    const { bus, inbox } = this;
    if (!bus.connected) {
      done(new BeamlineError("unavailable", "the bus is not connected"), undefined);
      return nothing;
    }
    let open = true;
    const finish = (error: BeamlineError | undefined, reply: Reply | undefined): void => {
      if (!open) return;
      open = false;
      inbox.close(inboxSubject);
      clearTimeout(timer);
      done(error, reply);
    };
    const inboxSubject = inbox.open((message, error) => {
      if (message === undefined) finish(error, undefined);
      else if (isNoResponders(message)) finish(nobody(subject, options.worker), undefined);
      else finish(undefined, { text: textOf(message), headers: fromNats(message) });
    });
    const timer = setTimeout(() => {
      finish(
        new BeamlineError("deadline_exceeded", `no answer to ${subject} within ${options.timeoutMs} ms`),
        undefined,
      );
    }, roundUp(options.timeoutMs));
    try {
      bus.send(subject, data, options.headers, inboxSubject);
    } catch (thrown) {
      finish(BeamlineError.from(thrown), undefined);
    }
    return () => {
      if (!open) return;
      if (bus.connected) bus.send(CANCEL_SUBJECT, inboxSubject);
      finish(new BeamlineError("cancelled", "the call was cancelled"), undefined);
    };
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
    const body = parseJson(reply.text);
    if (isError(reply.headers)) throw errorOfBody(body, reply.headers[header.serviceError]);
    return body;
  }

  stop(): void {
    this.inbox.stop();
  }
}

/**
 * Timers of one length share a list; a length of its own for every call is a list of its own. Whoever set a long deadline keeps it
 * too, so being a little late here only frees the place a little later.
 */
function roundUp(ms: number): number {
  return ms < 1_000 ? ms : Math.ceil(ms / 100) * 100;
}

export function nobody(subject: string, worker: string | undefined): BeamlineError {
  const who = worker === undefined ? "nobody" : `no ${worker} worker`;
  return new BeamlineError("unavailable", `${who} is serving ${subject}`, {
    details: { subject, ...(worker !== undefined && { worker }) },
  });
}

/** Whether a reply's headers mark it as an error (NATS ADR-32). */
export function isError(headers: Headers): boolean {
  return headers[header.serviceErrorCode] !== undefined;
}

/** Throws `invalid_argument` for text that is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalidArgument("body", "is not valid JSON");
  }
}
