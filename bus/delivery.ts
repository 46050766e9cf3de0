/** One message as a durable consumer receives it, and what it says back about it. */
import type { Msg } from "@nats-io/transport-node";
import type { Headers } from "../contracts/headers.ts";
import type { Bus } from "./connect.ts";
import { fromNats } from "./headers.ts";

export class Delivery {
  readonly #bus: Bus;
  readonly #message: Msg;
  readonly #reply: string;
  #headers: Headers | undefined;
  #settled = false;
  /** Times this stored message was delivered, this time included. */
  readonly deliveryCount: number;
  readonly streamSequence: number;
  /** When the stream stored it, epoch milliseconds. */
  readonly timestampMs: number;
  /** Messages the consumer still has before it. */
  readonly pending: number;

  constructor(bus: Bus, message: Msg) {
    this.#bus = bus;
    this.#message = message;
    this.#reply = message.reply ?? "";
    // $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>, or with <domain>.<account> first and more behind.
    const tokens = this.#reply.split(".");
    const at = tokens.length < 11 ? 4 : 6;
    this.deliveryCount = Number(tokens[at]);
    this.streamSequence = Number(tokens[at + 1]);
    this.timestampMs = Math.floor(Number(tokens[at + 3]) / 1e6);
    this.pending = Number(tokens[at + 4]);
  }

  get subject(): string {
    return this.#message.subject;
  }
  get payload(): Uint8Array {
    return this.#message.data;
  }
  get headers(): Headers {
    return (this.#headers ??= fromNats(this.#message));
  }
  /** True once it was acknowledged or handed back. */
  get settled(): boolean {
    return this.#settled;
  }

  /** Done with it for ever. An acknowledgement that is lost means one more delivery, never a lost message. */
  ack(): void {
    this.#settle("+ACK");
  }

  /** Hands it back, to be delivered again after `delayMs` (default at once). */
  nak(delayMs = 0): void {
    this.#settle(delayMs > 0 ? `-NAK {"delay":${Math.round(delayMs * 1e6)}}` : "-NAK");
  }

  /** Still working on it: the consumer's ack wait starts anew. */
  working(): void {
    if (!this.#settled) this.#say("+WPI");
  }

  #settle(word: string): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#say(word);
  }

  #say(word: string): void {
    // A closed connection says it all: the server delivers again.
    if (!this.#bus.nc.isClosed()) this.#bus.send(this.#reply, word);
  }
}
