/**
 * Durable consumption: every message is handled to an end - done, tried again later, or a dead letter - whatever dies in between.
 *
 * C1 A message is acknowledged when its fate is on the disk: handled, parked for a later try, or stored as a dead letter.
 * C2 What a failure means is said by the table of errors: `term` is a dead letter, `retry` a later try until `maxDeliver`, `done` an end.
 * C3 Deliveries that nobody answered count as tries: a message that kills its process ends as a dead letter too.
 * C4 A handler keeps its lease while it works, for `maxWorkMs` at most; then it is told to stop and the try has failed.
 * C5 No more messages are fetched than there are free slots. Replicas share the durable.
 * C6 Lost connections, restarts of the server and a deleted consumer are survived without help.
 * C7 Stopping: no new messages, in-flight ones finish until the deadline, the rest is handed back at once.
 * C8 With `gatherMs` messages are fetched and handled together: when the time is up, when the slots are taken, or when it stops (bus/gathering).
 */
import type { Msg } from "@nats-io/transport-node";
import { BeamlineError } from "../contracts/errors.ts";
import type { Bus } from "./connect.ts";
import { Delivery } from "./delivery.ts";
import { ensureDurable, positionNow, type DurableConfig, type Position } from "./durable.ts";
import { Fates, type Fate, type FateOptions } from "./fate.ts";
import { Gathering } from "./gathering.ts";
import { Pull } from "./pull.ts";
import { canPark, handedOver, retryPrefix } from "./retry.ts";
import { Work, type MessageContext } from "./work.ts";

export type { MessageContext } from "./work.ts";

export type MessageHandler = (payload: Uint8Array, context: MessageContext) => Promise<void>;

export type ConsumerEvent =
  | (Fate & { readonly context: MessageContext; readonly ms: number })
  /** Neither parked nor buried: it comes again. */
  | { readonly type: "undecided"; readonly context: MessageContext; readonly error: BeamlineError }
  | { readonly type: "trouble"; readonly error: BeamlineError }
  | { readonly type: "recovered" };

export interface ConsumeOptions extends FateOptions {
  /** Subjects of the stream it takes; they must not overlap. */
  readonly filterSubjects: readonly string[];
  /** Must be idempotent: a message may come more than once. */
  readonly handler: MessageHandler;
  /** Handlers that run at once in this process. Default 16. */
  readonly concurrency?: number;
  /** Lease of a message, renewed while its handler runs; a dead process's messages come again after it, milliseconds. Default 30 000. */
  readonly ackWaitMs?: number;
  /** Longest a handler may work on one message, milliseconds. Default 15 minutes. */
  readonly maxWorkMs?: number;
  /** Unacknowledged messages of all replicas together. Default 10 000. */
  readonly maxAckPending?: number;
  /**
   * How long a message may wait for others, to be handled together with them, milliseconds: for work nobody waits for, which then costs less
   * and leaves the machine to those who do. Default 0, each at once.
   */
  readonly gatherMs?: number;
  /** Runs around each handler: tracing and metrics come in here. */
  readonly around?: <T>(context: MessageContext, run: () => T) => T;
  /** Told of every fate and every trouble, for logs and metrics. */
  readonly onEvent?: (event: ConsumerEvent) => void;
}

const POSITION_MS = 30_000;
const FIRST_RECOVERY_MS = 100;
const LONGEST_RECOVERY_MS = 5_000;

/** Starts consuming. Throws `not_found` without the stream, `failed_precondition` when the durable cannot be had, `unavailable`. */
export async function consume(bus: Bus, options: ConsumeOptions): Promise<Consumption> {
  const { stream, durable, ackWaitMs = 30_000, maxAckPending = 10_000 } = options;
  const filterSubjects = [...options.filterSubjects, ...(canPark(stream) ? [`${retryPrefix(stream, durable)}.*`] : [])];
  const config = { stream: stream.name, durable, filterSubjects, ackWaitMs, maxAckPending };
  return new Consumption(bus, options, config, await ensureDurable(bus, config));
}

export class Consumption {
  readonly #bus: Bus;
  readonly #options: ConsumeOptions;
  readonly #config: DurableConfig;
  readonly #concurrency: number;
  readonly #fates: Fates;
  readonly #pull: Pull;
  readonly #gathering: Gathering | undefined;
  readonly #work = new Set<Work>();
  readonly #timers: readonly NodeJS.Timeout[];
  readonly #unwatch: () => void;
  #position: Position;
  /** Highest sequence that ever arrived here: what comes at or below it comes again. */
  #highest = 0;
  #recovering: NodeJS.Timeout | undefined;
  #stopping = false;
  #stopped: Promise<void> | undefined;
  #idle: (() => void) | undefined;

  constructor(bus: Bus, options: ConsumeOptions, config: DurableConfig, position: Position) {
    this.#bus = bus;
    this.#options = options;
    this.#config = config;
    this.#position = position;
    this.#fates = new Fates(bus, options);
    this.#concurrency = options.concurrency ?? 16;
    this.#pull = new Pull(bus, config.stream, config.durable, {
      message: (message) => this.#receive(message),
      closed: () => {
        this.#gathering?.end();
        this.#refill();
      },
      trouble: (what) =>
        this.#trouble(new BeamlineError("unavailable", `consumer ${config.durable}: ${what}`), FIRST_RECOVERY_MS),
    });
    const { gatherMs = 0 } = options;
    if (gatherMs > 0)
      this.#gathering = new Gathering({
        ms: gatherMs,
        slots: this.#concurrency,
        pull: this.#pull,
        free: () => (this.#mayAsk() ? this.#free : 0),
      });
    this.#timers = [
      setInterval(() => this.#renewLeases(), config.ackWaitMs / 3).unref(),
      setInterval(() => void this.#locate(), POSITION_MS).unref(),
    ];
    this.#unwatch = bus.onReconnect(() => this.#trouble(undefined, 0));
    this.#refill();
  }

  /** Messages in handlers, or whose fate is being stored. */
  get inFlight(): number {
    return this.#work.size;
  }

  /** What is left to do, asked from the server now. Throws `unavailable`, `not_found` when the consumer is gone. */
  async lag(): Promise<{ readonly pending: number; readonly ackPending: number }> {
    await this.#locate();
    const { pending, ackPending } = this.#position;
    return { pending, ackPending };
  }

  /** C7; the deadline is in epoch milliseconds. A message handed back counts as delivered once more. */
  stop(deadline: number): Promise<void> {
    return (this.#stopped ??= this.#stop(deadline));
  }

  async #stop(deadline: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#recovering);
    await this.#pull.stop();
    this.#gathering?.end();
    if (this.#work.size > 0) {
      const finished = new Promise<void>((resolve) => (this.#idle = resolve));
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, Math.max(0, deadline - Date.now()))));
      await Promise.race([finished, late]);
      clearTimeout(timer);
    }
    const reason = new BeamlineError("unavailable", `the consumer ${this.#config.durable} is stopping`);
    for (const work of this.#work) {
      work.delivery.nak();
      work.end(reason);
    }
    for (const timer of this.#timers) clearInterval(timer);
    this.#unwatch();
    if (this.#bus.connected) await this.#bus.flush();
  }

  #mayAsk(): boolean {
    return !this.#stopping && this.#recovering === undefined && this.#bus.connected;
  }

  get #free(): number {
    return this.#concurrency - this.#work.size - this.#pull.asked;
  }

  #refill(): void {
    if (!this.#mayAsk()) return;
    if (this.#gathering !== undefined) return this.#gathering.refill();
    const { asked } = this.#pull;
    const free = this.#free;
    // A request per freed slot would double the traffic; waiting for a quarter of them keeps the rest busy.
    if (free > 0 && (asked === 0 || free >= this.#concurrency / 4)) this.#pull.ask(free);
  }

  #receive(message: Msg): void {
    const delivery = new Delivery(this.#bus, message);
    // Under way while stopping, or asked for before trouble and again after it.
    if (this.#stopping || this.#work.size >= this.#concurrency) return delivery.nak();
    const { streamSequence: sequence } = delivery;
    // A server that was killed may have forgotten its count together with the acknowledgement.
    const again = delivery.deliveryCount > 1 || sequence <= this.#highest;
    this.#highest = Math.max(this.#highest, sequence);
    const work = new Work(delivery);
    this.#work.add(work);
    void this.#handle(work, again, this.#gathering?.arrived());
  }

  /** Never rejects. */
  async #handle(work: Work, again: boolean, moment: Promise<void> | undefined): Promise<void> {
    try {
      if (moment !== undefined) await moment;
      const fate = await this.#attempt(work, again);
      if (fate !== undefined) this.#tell({ ...fate, context: work, ms: work.ms });
    } catch (thrown) {
      this.#tell({ type: "undecided", context: work, error: BeamlineError.from(thrown) });
      work.delivery.nak(this.#fates.delay(work.attempt));
    }
    work.settle();
    this.#work.delete(work);
    if (this.#work.size === 0) this.#idle?.();
    this.#refill();
  }

  /** What became of it; undefined when an earlier delivery, or the end of this process, took it over. */
  async #attempt(work: Work, again: boolean): Promise<Fate | undefined> {
    const { delivery, origin } = work;
    const { handler, around, stream, durable } = this.#options;
    if (again && canPark(stream) && (await handedOver(this.#bus, stream, durable, delivery, origin))) {
      delivery.ack();
      return undefined;
    }
    if (work.attempt > this.#fates.maxDeliver) return this.#fates.lost(work);
    try {
      const run = async (): Promise<void> => handler(delivery.payload, work);
      await Promise.race([around === undefined ? run() : around(work, run), work.ended]);
    } catch (thrown) {
      return delivery.settled ? undefined : this.#fates.decide(work, BeamlineError.from(thrown));
    }
    delivery.ack();
    return { type: "done" };
  }

  /** C4. */
  #renewLeases(): void {
    const { maxWorkMs = 15 * 60_000 } = this.#options;
    for (const work of this.#work) {
      if (work.ms > maxWorkMs) work.end(new BeamlineError("deadline_exceeded", `not handled within ${maxWorkMs} ms`));
      work.delivery.working();
    }
  }

  /** Remembers how far the consumer is, and notices when it is gone. */
  async #locate(): Promise<void> {
    if (!this.#bus.connected) return;
    try {
      const position = await positionNow(this.#bus, this.#config, this.#position);
      if (position === undefined)
        this.#trouble(new BeamlineError("not_found", `consumer ${this.#config.durable} is gone`), 0);
      else this.#position = position;
    } catch (thrown) {
      this.#tell({ type: "trouble", error: BeamlineError.from(thrown) });
    }
  }

  /** C6: one recovery at a time, again and again until it works. */
  #trouble(error: BeamlineError | undefined, waitMs: number): void {
    if (this.#stopping || this.#recovering !== undefined) return;
    if (error !== undefined) this.#tell({ type: "trouble", error });
    this.#recovering = setTimeout(() => void this.#recover(waitMs), waitMs);
  }

  async #recover(waitedMs: number): Promise<void> {
    try {
      if (this.#bus.connected) {
        const { streamCreated } = this.#position;
        this.#position = await ensureDurable(this.#bus, this.#config, this.#position);
        if (this.#position.streamCreated !== streamCreated) this.#highest = 0;
        this.#recovering = undefined;
        this.#pull.reset();
        this.#gathering?.end();
        this.#tell({ type: "recovered" });
        return this.#refill();
      }
    } catch (thrown) {
      this.#tell({ type: "trouble", error: BeamlineError.from(thrown) });
    }
    const waitMs = Math.min(Math.max(waitedMs * 2, FIRST_RECOVERY_MS), LONGEST_RECOVERY_MS);
    if (!this.#stopping) this.#recovering = setTimeout(() => void this.#recover(waitMs), waitMs);
  }

  #tell(event: ConsumerEvent): void {
    try {
      this.#options.onEvent?.(event);
    } catch {
      // Whoever listens has no say in what becomes of a message.
    }
  }
}
