/**
 * Server streams over a reply inbox.
 *
 * T1 The caller opens with a window; the worker first answers `open` with a control subject, then `data` messages in order.
 * T2 The worker never has more unconfirmed messages under way than the window; the caller confirms with `credit`.
 *    A caller without a window (a plain NATS client) gets everything as it comes.
 * T3 The end is one message marked `end`, a failure one marked `error`; after either nothing follows.
 *    Nothing is sent to a subject the caller may not send to: `permission_denied`, at once.
 * T4 The caller cancels with `cancel`, or by unsubscribing and letting the deadline pass; the worker's handler sees its signal abort.
 * T5 A worker that has nothing to say beats; a caller that hears nothing for three beats gives up with `unavailable`.
 */
import { BeamlineError } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import { CANCEL_SUBJECT, errorOfReply, forbidden, isError, nobody, type CallOptions, type Caller } from "./call.ts";
import type { Bus } from "./connect.ts";
import type { IncomingCall } from "./context.ts";
import { fromNats, isNoResponders, textOf } from "./headers.ts";
import type { Inbox } from "./inbox.ts";

const BEAT_MS = 5_000;
const SILENCE_MS = 3 * BEAT_MS;
const DEFAULT_WINDOW = 64;

const mark = (kind: string): Headers => ({ [header.stream]: kind });

/** Sends what a handler yields to the caller's inbox; resolves when the end is sent, rejects with what the handler threw. */
export async function sendStream(
  bus: Bus,
  control: Inbox,
  called: string,
  chunks: AsyncIterable<string>,
  call: IncomingCall,
  reply: string,
): Promise<void> {
  if (reply === "")
    throw new BeamlineError("invalid_argument", "a streamed call needs a reply subject", { field: "reply" });
  const window = Number(call.headers[header.stream]);
  let room = window > 0 ? window : Infinity;
  let wake: (() => void) | undefined;
  const controlSubject = control.open((message) => {
    if (message === undefined) return call.end(new BeamlineError("unavailable", "the bus connection was lost"));
    const headers = fromNats(message);
    if (headers[header.stream] === "cancel") call.end(new BeamlineError("cancelled", "the caller gave up"));
    else if (headers[header.stream] === "credit") room += Number(textOf(message)) || 0;
    wake?.();
  });
  const beat = setInterval(() => bus.connected && bus.send(reply, "", mark("beat")), BEAT_MS);
  const { signal } = call;
  const onAbort = (): void => wake?.();
  signal.addEventListener("abort", onAbort);
  const iterator = chunks[Symbol.asyncIterator]();
  try {
    bus.send(reply, "", mark("open"), controlSubject);
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(BeamlineError.from(signal.reason)), { once: true });
    });
    aborted.catch(() => undefined);
    for (;;) {
      const next = await Promise.race([iterator.next(), aborted]);
      if (next.done === true) break;
      while (room <= 0 && !signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
      signal.throwIfAborted();
      room--;
      bus.answer(called, reply, next.value, mark("data"));
    }
    bus.send(reply, "", mark("end"));
  } finally {
    clearInterval(beat);
    control.close(controlSubject);
    signal.removeEventListener("abort", onAbort);
    void iterator.return?.()?.catch(() => undefined);
  }
}

export interface StreamOptions extends CallOptions {
  /** Messages the worker may send ahead of the reader. Default 64. */
  readonly window?: number;
  /** How long nothing at all may be heard, milliseconds. Default three beats. */
  readonly silenceMs?: number;
}

/** Calls a streaming endpoint; yields each message's text. Leaving the loop cancels the call. Throws what the worker threw. */
export async function* openStream(
  caller: Caller,
  subject: string,
  data: string,
  options: StreamOptions,
): AsyncGenerator<string> {
  const { bus, inbox } = caller;
  if (!bus.connected) throw new BeamlineError("unavailable", "the bus is not connected");
  const window = options.window ?? DEFAULT_WINDOW;
  const arrived: string[] = [];
  let control: string | undefined;
  let failure: BeamlineError | undefined;
  let ended = false;
  /** The worker itself said that nothing follows, so there is nothing to cancel. */
  let over = false;
  let heard = false;
  let wake: (() => void) | undefined;
  let consumed = 0;

  const stop = (error: BeamlineError | undefined): void => {
    failure ??= error;
    ended = true;
    wake?.();
  };
  const finish = (error: BeamlineError | undefined): void => {
    over = true;
    stop(error);
  };
  const silence = setTimeout(
    () => stop(new BeamlineError("unavailable", `the worker serving ${subject} fell silent`)),
    options.silenceMs ?? SILENCE_MS,
  );
  const deadline = setTimeout(
    () =>
      stop(
        new BeamlineError("deadline_exceeded", `the stream from ${subject} did not end within ${options.timeoutMs} ms`),
      ),
    options.timeoutMs,
  );
  const abort = (): void => stop(new BeamlineError("cancelled", "the call was cancelled"));
  const reply = inbox.open((message, error) => {
    if (message === undefined) return stop(error);
    heard = true;
    silence.refresh();
    if (isNoResponders(message)) return finish(nobody(subject, options.worker));
    const headers = fromNats(message);
    if (isError(headers)) return finish(errorOfReply({ text: textOf(message), headers }));
    switch (headers[header.stream]) {
      case "open":
        control = message.reply;
        return;
      case "end":
        return finish(undefined);
      case "beat":
        return;
      default:
        arrived.push(textOf(message));
        wake?.();
    }
  });
  const undeny = bus.onDenied((denied) => {
    // Of another call to the same subject it is true as well, unless this one was let through before.
    if (denied === subject && !heard) finish(forbidden(subject));
  });
  options.signal?.addEventListener("abort", abort, { once: true });
  try {
    if (options.signal?.aborted === true) abort();
    else bus.send(subject, data, { ...options.headers, [header.stream]: String(window) }, reply);
    for (;;) {
      const next = arrived.shift();
      if (next !== undefined) {
        yield next;
        if (++consumed * 2 >= window && control !== undefined && !ended) {
          bus.send(control, String(consumed), mark("credit"));
          consumed = 0;
        }
      } else if (ended) {
        if (failure !== undefined) throw failure;
        return;
      } else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    inbox.close(reply);
    undeny();
    clearTimeout(silence);
    clearTimeout(deadline);
    options.signal?.removeEventListener("abort", abort);
    if (!over && bus.connected) {
      if (control === undefined) bus.send(CANCEL_SUBJECT, reply);
      else bus.send(control, "", mark("cancel"));
    }
  }
}
