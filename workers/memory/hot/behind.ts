/**
 * The log written behind: ordinary events and metrics, already acknowledged from hot state, go to the log in batches.
 *
 * W1 A batch that cannot be stored is kept and tried again; beyond `limit` entries the oldest are given up and counted. This is the one
 *    place where something acknowledged may be lost, and only together with hot state (design, acked-is-durable: the named exception).
 * W2 Closing writes what is left, and tries again as long as there is time.
 * W3 One write at a time: what is under way is nobody else's, and comes back to its place when it cannot be stored.
 */
import type { JsonObject } from "../../../contracts/codec.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Logger } from "../../../runtime/log.ts";
import { fitting, type Arrival } from "../arrival.ts";
import type { MemoryLog } from "../log.ts";
import type { MetricSet } from "../ports.ts";

interface Batch {
  readonly events: Arrival[];
  readonly metrics: Map<string, JsonObject>;
}

export interface BehindOptions {
  /** How long entries may wait for company, milliseconds. */
  readonly everyMs: number;
  /** Entries per message. */
  readonly perMessage?: number;
  /** Entries kept while the log cannot be written. */
  readonly limit?: number;
  /** Told the sequence of each batch of events once it is logged. */
  readonly onLogged?: (seq: number) => Promise<void>;
}

/** W2: between two tries, milliseconds. */
const AGAIN_MS = 100;

export class Behind {
  readonly #log: MemoryLog;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #everyMs: number;
  readonly #perMessage: number;
  readonly #limit: number;
  readonly #onLogged: (seq: number) => Promise<void>;
  readonly #tenants = new Map<string, Batch>();
  readonly #stop = new AbortController();
  #size = 0;
  #running: Promise<void> | undefined;
  /** W3. Never rejects. */
  #writing: Promise<void> = Promise.resolve();
  /** Entries given up (W1). */
  lost = 0;

  constructor(
    log: MemoryLog,
    clock: Clock,
    logger: Logger,
    { everyMs, perMessage = 1_000, limit = 100_000, onLogged }: BehindOptions,
  ) {
    this.#log = log;
    this.#clock = clock;
    this.#logger = logger;
    this.#everyMs = everyMs;
    this.#perMessage = perMessage;
    this.#limit = limit;
    this.#onLogged = onLogged ?? (() => Promise.resolve());
  }

  /** Entries not in the log yet. */
  get size(): number {
    return this.#size;
  }

  add(events: readonly Arrival[], metrics: readonly MetricSet[]): void {
    for (const event of events) this.#of(event.tenant).events.push(event);
    this.#size += events.length;
    for (const { tenant, key, at, value, timestamp } of metrics) {
      const { metrics: known } = this.#of(tenant);
      if (!known.has(key)) this.#size++;
      known.set(key, { value, timestamp, at });
    }
    if (this.#size > this.#limit) this.#giveUp();
    this.#running ??= this.#run();
  }

  /** Everything added so far is in the log when it resolves. Throws what the log throws. */
  async flush(): Promise<void> {
    await this.#writing;
    while (this.#size > 0) await this.#write();
  }

  /** W2. @param late says when the time is up; throws what the log throws then */
  async close(late: AbortSignal): Promise<void> {
    this.#stop.abort();
    await this.#running;
    for (;;) {
      try {
        return await this.flush();
      } catch (error) {
        if (late.aborted) throw error;
        await this.#clock.sleep(AGAIN_MS, late).catch(() => undefined);
      }
    }
  }

  async #run(): Promise<void> {
    let wait = this.#everyMs;
    while (this.#size > 0 && !this.#stop.signal.aborted) {
      try {
        await this.#clock.sleep(wait, this.#stop.signal);
        await this.#write();
        wait = this.#everyMs;
      } catch (error) {
        if (this.#stop.signal.aborted) break;
        if (wait === this.#everyMs)
          this.#logger.warn("events and metrics cannot be logged now; they are kept and tried again", { error });
        wait = Math.min(5_000, wait * 2);
      }
    }
    this.#running = undefined;
  }

  #write(): Promise<void> {
    const write = this.#writing.then(() => this.#writeAll());
    this.#writing = write.catch(() => undefined);
    return write;
  }

  async #writeAll(): Promise<void> {
    let logged = 0;
    for (const [tenant, batch] of this.#tenants) {
      while (batch.events.length > 0 || batch.metrics.size > 0) {
        const events = batch.events.splice(0, fitting(batch.events, this.#perMessage));
        const metrics = new Map(batch.metrics);
        batch.metrics.clear();
        this.#size -= events.length + metrics.size;
        try {
          if (events.length > 0) logged = Math.max(logged, await this.#log.appendRecent(tenant, events));
          await Promise.all([...metrics].map(([key, value]) => this.#log.setMetric(tenant, key, value)));
        } catch (error) {
          batch.events.unshift(...events);
          this.#size += events.length;
          for (const [key, value] of metrics) {
            if (batch.metrics.has(key)) continue; // set again meanwhile: the newer one stands
            batch.metrics.set(key, value);
            this.#size++;
          }
          throw error;
        }
      }
      this.#tenants.delete(tenant);
    }
    // Only a bookmark: what it does not cover is pushed again, and kept once.
    if (logged > 0) await this.#onLogged(logged).catch(() => undefined);
  }

  #giveUp(): void {
    for (const { events } of this.#tenants.values()) {
      const gone = events.splice(0, Math.max(0, this.#size - this.#limit)).length;
      this.lost += gone;
      this.#size -= gone;
    }
  }

  #of(tenant: string): Batch {
    let batch = this.#tenants.get(tenant);
    if (batch === undefined) this.#tenants.set(tenant, (batch = { events: [], metrics: new Map() }));
    return batch;
  }
}
