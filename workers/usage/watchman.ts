/**
 * Looks at the system from time to time: dead letters that grow, consumers that fall behind, workers that fall silent (BeamLine, alerts).
 * Several usage workers do the same; an alert's id is made of the moment, so one is kept.
 */
import { asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { readHeartbeat, type Heartbeat } from "../../contracts/execution/heartbeat.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import { streams, type StreamSpec } from "../../contracts/streams.ts";
import type { Alerts } from "./alerts.ts";
import type { Measures } from "./measures.ts";

export interface WatchmanOptions {
  /** Between two looks, milliseconds. */
  readonly everyMs: number;
  /** New dead letters between two looks that are worth a warning; ten times as many are critical. */
  readonly dlqGrowth: number;
  /** Messages a consumer may be behind before it is worth a warning; ten times as many are critical. */
  readonly lag: number;
  /** Silence after which a worker counts as lost, milliseconds. */
  readonly silenceMs: number;
  /** The consumers of assignments, and the subject each takes. */
  readonly assignments: readonly (readonly [consumer: string, subject: string])[];
  readonly now: () => number;
}

/** Consumers that are looked at beside those, the subject each is about, and its stream. */
const consumers = [
  ["router-results", execSubject.result, streams.exec],
  ["router-acks", execSubject.ack, streams.execAcks],
] as const;

interface Worker {
  readonly beat: Heartbeat;
  readonly at: number;
}

export class Watchman {
  readonly #bus: Bus;
  readonly #alerts: Alerts;
  readonly #measures: Measures;
  readonly #options: WatchmanOptions;
  readonly #workers = new Map<string, Worker>();
  #letters: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #subscriptions: { unsubscribe(): void }[] = [];

  constructor(bus: Bus, alerts: Alerts, measures: Measures, options: WatchmanOptions) {
    this.#bus = bus;
    this.#alerts = alerts;
    this.#measures = measures;
    this.#options = options;
  }

  start(): void {
    for (const subject of [execSubject.heartbeat, execSubject.rustHeartbeat])
      this.#subscriptions.push(this.#bus.subscribe(subject, ({ data }) => this.heard(data)));
    this.#timer = setInterval(() => void this.look(), this.#options.everyMs).unref();
    void this.look();
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const subscription of this.#subscriptions) subscription.unsubscribe();
  }

  /** A heartbeat. What is none of the known forms is not a worker's. */
  heard(data: Uint8Array): void {
    let beat: Heartbeat;
    try {
      beat = readHeartbeat(data);
    } catch {
      this.#measures.router_nats_contract_violations_total
        .with({ subject: execSubject.heartbeat, violation: "body" })
        .add();
      return;
    }
    const leaving = beat.status === "draining" || beat.status === "stopped" || beat.metadata["draining"] === "true";
    if (leaving) this.#workers.delete(beat.worker_id);
    else this.#workers.set(beat.worker_id, { beat, at: this.#options.now() });
  }

  /** Workers heard of lately. */
  get workers(): readonly Heartbeat[] {
    return [...this.#workers.values()].map(({ beat }) => beat);
  }

  /** One look. Never throws. */
  async look(): Promise<void> {
    if (!this.#bus.connected) return;
    const moment = Math.floor(this.#options.now() / this.#options.everyMs);
    await Promise.allSettled([
      this.#lookAtLetters(moment),
      ...[...consumers, ...this.#options.assignments].map(([name, subject, stream = streams.exec]) =>
        this.#lookAtConsumer(stream, name, subject, moment),
      ),
    ]);
    this.#lookAtWorkers();
  }

  async #lookAtLetters(moment: number): Promise<void> {
    const { state } = await asking("look at the dead letters", () =>
      this.#bus.jsm.streams.info(streams.deadLetters.name),
    );
    const grown = state.last_seq - (this.#letters ?? state.last_seq);
    this.#letters = state.last_seq;
    const { dlqGrowth, everyMs } = this.#options;
    if (grown < dlqGrowth) return;
    const severity = grown >= 10 * dlqGrowth ? "critical" : "warning";
    const message = `${grown} new dead letters within ${Math.round(everyMs / 1000)} s`;
    this.#alerts.raise(
      { severity, component: "usage", message, metadata: { grown, messages: state.messages } },
      `dlq-${moment}`,
    );
  }

  async #lookAtConsumer(stream: StreamSpec, consumer: string, subject: string, moment: number): Promise<void> {
    const info = await asking("look at a consumer", () => this.#bus.jsm.consumers.info(stream.name, consumer));
    const { num_pending: pending, num_ack_pending: unacknowledged } = info;
    this.#measures.router_jetstream_pending_messages.with({ subject, consumer }).set(pending);
    this.#measures.router_jetstream_ack_pending_messages.with({ subject, consumer }).set(unacknowledged);
    if (pending < this.#options.lag) return;
    const severity = pending >= 10 * this.#options.lag ? "critical" : "warning";
    const message = `consumer ${consumer} is ${pending} messages behind`;
    this.#alerts.raise(
      { severity, component: "usage", message, metadata: { consumer, subject, pending, unacknowledged } },
      `lag-${consumer}-${moment}`,
    );
  }

  #lookAtWorkers(): void {
    const { now, silenceMs } = this.#options;
    for (const [id, { at, beat }] of this.#workers) {
      const silent = now() - at;
      if (silent < silenceMs) continue;
      this.#workers.delete(id);
      const message = `execution worker ${id} fell silent ${Math.round(silent / 1000)} s ago`;
      this.#alerts.raise(
        {
          severity: "warning",
          component: "usage",
          message,
          metadata: { worker_id: id, jobs_in_flight: beat.resources.jobs_in_flight },
        },
        `worker-${id}-${beat.timestamp}`,
      );
    }
  }
}
