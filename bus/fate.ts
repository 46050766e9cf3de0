/** What becomes of a message that was not simply done: a later try, or a dead letter. Rules C1 and C2 of bus/consume. */
import { BeamlineError, meaning } from "../contracts/errors.ts";
import type { StreamSpec } from "../contracts/streams.ts";
import type { Bus } from "./connect.ts";
import { deadLetter, reasonOf } from "./deadletter.ts";
import type { DeadLetterReason } from "./letter.ts";
import { canPark, cannotPark, park } from "./retry.ts";
import type { Work } from "./work.ts";

export interface FateOptions {
  readonly stream: StreamSpec;
  /** Name shared by all replicas; no dots. */
  readonly durable: string;
  /** Tries before a message is a dead letter. Default 5. */
  readonly maxDeliver?: number;
  /** Pauses before the second, third, ... try, milliseconds; the last one repeats. A tenth of jitter is added or taken. Default 1, 5, 15 s. */
  readonly backoffMs?: readonly number[];
  /** Where dead letters go. Default the stream of the contracts. */
  readonly letters?: StreamSpec;
  /** From 0 to 1, for the jitter. Default `Math.random`. */
  readonly random?: () => number;
}

/** What became of a failed try. */
export type Fate =
  | { readonly type: "done" }
  | { readonly type: "retry"; readonly error: BeamlineError; readonly delayMs: number }
  | { readonly type: "dead"; readonly error: BeamlineError; readonly reason: DeadLetterReason };

export class Fates {
  readonly maxDeliver: number;
  readonly #bus: Bus;
  readonly #options: FateOptions;

  constructor(bus: Bus, options: FateOptions) {
    this.#bus = bus;
    this.#options = options;
    this.maxDeliver = options.maxDeliver ?? 5;
  }

  /** C2: acts on a failed try. Throws when its fate could not be stored; the message must then come again. */
  async decide(work: Work, error: BeamlineError): Promise<Fate> {
    const { attempt } = work;
    const { outcome } = meaning(error.code);
    if (outcome === "done") {
      work.delivery.ack();
      return { type: "done" };
    }
    if (outcome === "term") return this.bury(work, error, reasonOf(error));
    if (attempt >= this.maxDeliver) return this.bury(work, error, "maxdeliver_exhausted");
    const delayMs = Math.max(this.delay(attempt), (error.retryAfterSeconds ?? 0) * 1_000);
    await this.#later(work, delayMs);
    return { type: "retry", error, delayMs };
  }

  /** Nobody answered for the last of its tries: the process died, or hung. */
  lost(work: Work): Promise<Fate> {
    const text = `${work.attempt - 1} tries ended without an answer: the process died, or its answer was lost`;
    return this.bury(work, new BeamlineError("internal", text), "maxdeliver_exhausted");
  }

  /** C1: the dead letter first. */
  async bury(work: Work, error: BeamlineError, reason: DeadLetterReason): Promise<Fate> {
    const { delivery, origin } = work;
    const { stream, durable, letters } = this.#options;
    const attempts = Math.min(origin.attempt, this.maxDeliver);
    const rites = { reason, error, origin, stream: stream.name, durable, attempts, timestamp: Date.now() };
    await deadLetter(this.#bus, rites, delivery.payload, letters === undefined ? {} : { letters });
    delivery.ack();
    return { type: "dead", error, reason };
  }

  /** Pause after the given try, milliseconds. */
  delay(attempt: number): number {
    const { backoffMs = [1_000, 5_000, 15_000], random = Math.random } = this.#options;
    const base = backoffMs[Math.min(attempt, backoffMs.length) - 1] ?? 0;
    return Math.round(base * (0.9 + 0.2 * random()));
  }

  /** C1: parked, or where that is impossible handed back with a delay. */
  async #later({ delivery, origin }: Work, delayMs: number): Promise<void> {
    const { stream, durable } = this.#options;
    if (!canPark(stream)) return delivery.nak(delayMs);
    try {
      await park(this.#bus, stream, durable, delivery, origin, delayMs);
    } catch (thrown) {
      if (!cannotPark(thrown)) throw thrown;
      return delivery.nak(delayMs);
    }
    delivery.ack();
  }
}
