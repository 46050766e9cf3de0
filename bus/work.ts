/** One message in this process, from its delivery to its fate, and what a handler sees of it. */
import type { BeamlineError } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";
import type { Delivery } from "./delivery.ts";
import { originOf, type Origin } from "./retry.ts";

/** A message on its way through a handler; the same for an original and for a later try of it. */
export interface MessageContext {
  /** Subject the publisher sent it to. */
  readonly subject: string;
  /** Headers as the publisher sent them. */
  readonly headers: Headers;
  /** `Nats-Msg-Id` of the publisher, undefined when it sent none. */
  readonly msgId: string | undefined;
  /** 1 for the first try. */
  readonly attempt: number;
  /** How often the server delivered this stored message. Above 1, an earlier try may have done its work without saying so. */
  readonly deliveryCount: number;
  /** Sequence of the original in its stream: the same for every try. */
  readonly streamSequence: number;
  /** When the stream stored the original, epoch milliseconds. */
  readonly timestampMs: number;
  /** Aborts when the lease is over (`deadline_exceeded`) or the process stops (`unavailable`). Made on first use. */
  readonly signal: AbortSignal;
}

export class Work implements MessageContext {
  readonly delivery: Delivery;
  readonly origin: Origin;
  /** Rejects when the work has to end early; otherwise never settles. */
  readonly ended: Promise<never>;
  readonly #started = performance.now();
  #fail: (reason: BeamlineError) => void = () => undefined;
  #reason: BeamlineError | undefined;
  #controller: AbortController | undefined;

  constructor(delivery: Delivery) {
    this.delivery = delivery;
    this.origin = originOf(delivery);
    this.ended = new Promise<never>((_resolve, reject) => (this.#fail = reject));
    this.ended.catch(() => undefined);
  }

  get subject(): string {
    return this.origin.subject;
  }
  get headers(): Headers {
    return this.origin.headers;
  }
  get msgId(): string | undefined {
    return this.origin.msgId;
  }
  get attempt(): number {
    return this.origin.attempt;
  }
  get deliveryCount(): number {
    return this.delivery.deliveryCount;
  }
  get streamSequence(): number {
    return this.origin.sequence;
  }
  get timestampMs(): number {
    return this.origin.firstSeenMs;
  }
  get ms(): number {
    return performance.now() - this.#started;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** Tells the handler to stop, and stops waiting for it. */
  end(reason: BeamlineError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#controller?.abort(reason);
    this.#fail(reason);
  }

  /** Its fate is decided: nothing aborts it any more. */
  settle(): void {
    this.#fail = () => undefined;
  }
}
