/**
 * Keeps the totals up with the usage stream.
 *
 * T1 Every usage worker reads the whole stream in order; the projection's own position decides whose batch counts, so an event counts once.
 *    What other programs put beside our events (a gateway its own copy of each) has none of our ids, and counts for nothing.
 * T2 Where the projection is gone (Redis was flushed), reading begins again at its beginning. A question waits for that.
 */
import { asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { followStream } from "../../bus/follow.ts";
import { isMetered } from "../../contracts/execution/subjects.ts";
import { meteredIn } from "../../contracts/execution/usage.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { header } from "../../contracts/headers.ts";
import { streams } from "../../contracts/streams.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Addition, DayTotal, TotalsStore } from "./totals.redis.ts";

interface Entry {
  readonly seq: number;
  readonly body: JsonObject | undefined;
}

const BATCH = 500;
const PAUSE_MS = 500;

export class Totals {
  readonly #bus: Bus;
  readonly #store: TotalsStore;
  readonly #log: Logger;
  #stopped = false;
  #reader: AbortController | undefined;
  #wake: (() => void) | undefined;
  #loop: Promise<void> = Promise.resolve();
  /** Highest sequence this process has seen applied. */
  #applied = 0;

  constructor(bus: Bus, store: TotalsStore, log: Logger) {
    this.#bus = bus;
    this.#store = store;
    this.#log = log;
  }

  start(): void {
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#reader?.abort();
    this.#wake?.();
    await this.#loop;
  }

  /** Totals of a tenant on the given days, with every event that was stored before the question. Throws `unavailable`, `deadline_exceeded`. */
  async of(tenant: string, days: readonly string[], signal: AbortSignal): Promise<DayTotal[]> {
    const { last_seq: last } = (
      await asking("look at the usage stream", () => this.#bus.jsm.streams.info(streams.usage.name))
    ).state;
    for (;;) {
      const at = await this.#store.position();
      if (at !== undefined && at >= last) return this.#store.read(tenant, days);
      if (at === undefined) this.#reader?.abort(); // T2
      await pause(20, signal);
    }
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#store.begin();
        await this.#follow((await this.#store.position()) ?? 0);
      } catch (thrown) {
        this.#log.warn("usage totals are behind", { error: BeamlineError.from(thrown) });
      }
      if (!this.#stopped)
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, PAUSE_MS);
          this.#wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
    }
  }

  /** Reads on from a position until told to stop, or until the projection is not where it should be. */
  async #follow(from: number): Promise<void> {
    this.#applied = from;
    const reader = new AbortController();
    this.#reader = reader;
    if (this.#stopped) reader.abort();
    let batch: Entry[] = [];
    const options = { from: from + 1, signal: reader.signal, window: BATCH };
    for await (const message of followStream(this.#bus, streams.usage.name, options)) {
      const ours = isMetered(message.headers?.get(header.msgId) ?? "");
      batch.push({ seq: message.seq, body: ours ? parsed(message.data) : undefined });
      if (message.info.pending > 0 && batch.length < 50) continue;
      if (!(await this.#apply(batch))) return;
      batch = [];
    }
  }

  /** T1. False when the projection is behind what was read: reading has to begin again there. */
  async #apply(batch: readonly Entry[]): Promise<boolean> {
    for (;;) {
      // What another worker had applied beyond the last batch may reach into this one.
      const rest = batch.filter(({ seq }) => seq > this.#applied);
      const last = rest.at(-1);
      if (last === undefined) return true;
      const at = await this.#store.apply(this.#applied, last.seq, additionsOf(rest));
      if (at === last.seq) {
        this.#applied = at;
        return true;
      }
      if (at < this.#applied) return false;
      this.#applied = at;
    }
  }
}

/** One addition per tenant, day, provider and status. */
function additionsOf(batch: readonly Entry[]): Addition[] {
  const sums = new Map<string, Addition>();
  for (const { body } of batch) {
    const event = body === undefined ? undefined : meteredIn(body);
    if (event === undefined) continue;
    const key = [event.tenant, event.day, event.provider, event.status].join("\0");
    const sum = sums.get(key) ?? { ...event, count: 0, micros: 0, latencyMs: 0 };
    sums.set(key, {
      ...sum,
      count: sum.count + 1,
      micros: sum.micros + event.micros,
      latencyMs: sum.latencyMs + event.latencyMs,
    });
  }
  return [...sums.values()];
}

function parsed(data: Uint8Array): JsonObject | undefined {
  try {
    const body: unknown = JSON.parse(Buffer.from(data).toString("utf8"));
    return typeof body === "object" && body !== null ? (body as JsonObject) : undefined;
  } catch {
    return undefined;
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve) => setTimeout(resolve, ms));
}
