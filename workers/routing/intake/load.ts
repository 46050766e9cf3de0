/**
 * How loaded the router is (BeamLine, backpressure), looked at a few times a second.
 *
 * L1 Of `beamline.router.v1.decide`: `inflight` are the calls this worker has accepted and not answered, waiting ones included; `pending` those that
 *    wait, and the assignments that wait for an execution worker; the latency is what a decision took in the 95th percentile, and how late the
 *    process itself runs.
 * L2 Of the subjects of the execution contract: what their consumer has not been given, and what it has not acknowledged.
 * L3 While the decide subject is active requests are refused. A figure that cannot be had counts as nothing.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Bus } from "../../../bus/connect.ts";
import { execSubject } from "../../../contracts/execution/subjects.ts";
import { streams, type StreamSpec } from "../../../contracts/streams.ts";
import { overIn, statusOf } from "./backpressure.ts";
import type { Measures } from "../measures.ts";
import type { Load, LoadFigures } from "../ports.ts";

/** The consumers beside those of assignments, by the subject each is about. */
const consumers: Readonly<Record<string, readonly [durable: string, stream: StreamSpec]>> = {
  [execSubject.result]: ["router-results", streams.exec],
  [execSubject.ack]: ["router-acks", streams.execAcks],
};

/** Decisions the percentile is about. */
const SAMPLES = 512;
/** Between two looks, milliseconds; at the consumers, every fourth look. */
const EVERY_MS = 250;
const LAG_EVERY = 4;

export interface LoadOptions {
  /** The consumer of each subject assignments go to. */
  readonly assignments: Readonly<Record<string, string>>;
  readonly subject: string;
  readonly measures: Measures;
  /** Calls that run and wait in this process. */
  readonly calls: () => { readonly active: number; readonly waiting: number };
}

interface Lag {
  readonly pending: number;
  readonly unacknowledged: number;
}

export class LoadMeter implements Load {
  refusing = false;
  readonly #bus: Bus;
  readonly #options: LoadOptions;
  readonly #took = new Float64Array(SAMPLES);
  readonly #delay = monitorEventLoopDelay({ resolution: 20 });
  #count = 0;
  #seen = 0;
  #looks = 0;
  #most = 0;
  #lateMs = 0;
  #lag: Lag = { pending: 0, unacknowledged: 0 };
  #timer: NodeJS.Timeout | undefined;

  constructor(bus: Bus, options: LoadOptions) {
    this.#bus = bus;
    this.#options = options;
  }

  start(): void {
    this.#delay.enable();
    this.#timer = setInterval(() => void this.look(), EVERY_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#delay.disable();
  }

  took(ms: number): void {
    this.#took[this.#count++ % SAMPLES] = ms;
  }

  async measure(subject: string): Promise<LoadFigures | undefined> {
    if (subject === this.#options.subject) return this.#own();
    const assigned = this.#options.assignments[subject];
    const [consumer, stream] = assigned === undefined ? (consumers[subject] ?? []) : [assigned];
    if (consumer === undefined) return undefined;
    const lag = await this.#lagOf(consumer, stream);
    return lag && { pendingMessages: lag.pending, latencyP95Ms: 0, inflightMessages: lag.unacknowledged };
  }

  /** One look. Never rejects. */
  async look(): Promise<void> {
    const { subject, measures } = this.#options;
    this.#lateMs = this.#delay.percentile(95) / 1e6;
    this.#delay.reset();
    // What was slow is forgotten when nothing came since: an idle router is not a slow one.
    if (this.#seen === this.#count) this.#count = 0;
    this.#seen = this.#count;
    const figures = this.#own();
    const active = statusOf(figures) === "active";
    if (active && !this.refusing) measures.overloaded(subject, overIn(figures).join("+"));
    this.refusing = active;
    this.#most = Math.max(this.#most, figures.inflightMessages);
    measures.load(subject, figures.inflightMessages, this.#most, active);
    if (this.#looks++ % LAG_EVERY !== 0) return;
    const lags = await Promise.all(Object.values(this.#options.assignments).map((consumer) => this.#lagOf(consumer)));
    const sum = (of: keyof Lag): number => lags.reduce((all, lag) => all + (lag?.[of] ?? 0), 0);
    this.#lag = { pending: sum("pending"), unacknowledged: sum("unacknowledged") };
  }

  /** L1. */
  #own(): LoadFigures {
    const { active, waiting } = this.#options.calls();
    return {
      pendingMessages: waiting + this.#lag.pending,
      latencyP95Ms: Math.round(Math.max(this.#p95(), Number.isFinite(this.#lateMs) ? this.#lateMs : 0)),
      inflightMessages: active + waiting,
    };
  }

  #p95(): number {
    const count = Math.min(this.#count, SAMPLES);
    if (count === 0) return 0;
    const sorted = this.#took.slice(0, count).sort();
    return sorted[Math.ceil(0.95 * count) - 1] ?? 0;
  }

  /** Undefined while nobody consumes, or the bus is away. */
  async #lagOf(consumer: string, stream: StreamSpec = streams.exec): Promise<Lag | undefined> {
    if (!this.#bus.connected) return undefined;
    try {
      const { num_pending: pending, num_ack_pending: unacknowledged } = await this.#bus.jsm.consumers.info(
        stream.name,
        consumer,
      );
      return { pending, unacknowledged };
    } catch {
      return undefined;
    }
  }
}
