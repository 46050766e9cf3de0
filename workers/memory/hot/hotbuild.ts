/**
 * Hot state from the log: built when there is none (Redis was flushed, or is new), then kept up.
 *
 * H1 While there is none nothing is answered: calls wait for the building, which one of them starts.
 * H2 Building applies the same guarded records as everything else, so it may run twice at once, and beside new writes.
 * H3 What other workers have acknowledged and not logged yet is not in the log that is read: it is read again when they have had time to.
 * H4 What empties Redis while it is built, by hand or by another worker's rebuild, is seen at the end: then building begins again.
 * H5 Redis may have lost its last second whenever it was away. Until that has been read again the bookmark of ordinary events stays where
 *    Redis has it: moved on, it would hide what is missing.
 */
import { randomUUID } from "node:crypto";
import type { Clock } from "../../../runtime/clock.ts";
import { NoProjection, type RedisHot } from "./hot.redis.ts";
import { METRIC_STREAM, type Entry, type MemoryLog } from "../log.ts";
import { readArrivals, type Arrival } from "../arrival.ts";
import type { Hot, MetricSet } from "../ports.ts";
import { CRITICAL, RECENT, RECORDS, type Logged } from "../record.ts";
import { partOf } from "../../../bus/keys.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { batches, readable, type Progress, type Projection } from "../tail.ts";

export interface BuildOptions {
  /** Events kept per tenant in the ring. */
  readonly ring: number;
  /** Critical events older than this are not shown any more, milliseconds; 0 keeps them all. */
  readonly criticalAgeMs: number;
  /** Ordinary events likewise. */
  readonly eventAgeMs: number;
  /** How long workers may take to log what they acknowledged, milliseconds (H3). */
  readonly behindMs: number;
}

export interface BuildParts {
  /** Writes what waits to be logged, before the log is read. */
  readonly flush: () => Promise<void>;
  /** Keeps what can never be read; the rest is built without it. */
  readonly bury: (entry: Entry, error: BeamlineError) => Promise<void>;
  /** Aborts when the worker stops. */
  readonly signal: AbortSignal;
}

/** Longer than logging takes once it has begun, milliseconds. */
const SETTLE_MS = 1_000;

/** How the tail knows this projection, and what its dead letters are named after. */
export const HOT_STATE = "hot state";

export class HotBuilder {
  readonly #hot: RedisHot;
  readonly #log: MemoryLog;
  readonly #clock: Clock;
  readonly #options: BuildOptions;
  readonly #parts: BuildParts;
  #building: Promise<void> | undefined;
  #settling: Promise<void> = Promise.resolve();
  #renew = new AbortController();
  /** H5. What is whole is so as long as Redis has not been away since. */
  #whole: AbortController | undefined;

  constructor(hot: RedisHot, log: MemoryLog, clock: Clock, options: BuildOptions, parts: BuildParts) {
    this.#hot = hot;
    this.#log = log;
    this.#clock = clock;
    this.#options = options;
    this.#parts = parts;
  }

  /** Builds hot state when there is none, or one of another log (tail, T4). */
  async ensure(): Promise<void> {
    const applied = await this.#hot.applied();
    if (applied !== undefined && applied <= (await this.#log.bounds("MEMORY")).last) return;
    if (applied !== undefined) await this.#hot.clear();
    await this.build();
  }

  /** Builds hot state, once at a time (H1). Throws `unavailable`; then it can be tried again. */
  build(progress: (progress: Progress) => void = () => undefined): Promise<void> {
    this.#building ??= this.#build(progress).finally(() => (this.#building = undefined));
    return this.#building;
  }

  /** Hot state whose calls wait for it to be built when it is not there. */
  guarded(): Hot {
    const hot = this.#hot;
    const ensure = async <T>(run: () => Promise<T>): Promise<T> => {
      try {
        return await run();
      } catch (thrown) {
        if (!(thrown instanceof NoProjection)) throw thrown;
        await this.build();
        return run();
      }
    };
    return {
      get up() {
        return hot.up;
      },
      apply: (records) => ensure(() => hot.apply(records)),
      push: (events, metrics) => ensure(() => hot.push(events, metrics)),
      peek: (tenant, wanted) => ensure(() => hot.peek(tenant, wanted)),
      group: (tenant, kind, group) => ensure(() => hot.group(tenant, kind, group)),
      events: (tenant, count, category, source) => ensure(() => hot.events(tenant, count, category, source)),
      metrics: (tenant, keys) => ensure(() => hot.metrics(tenant, keys)),
      pattern: (tenant, trigger, leastRate) => ensure(() => hot.pattern(tenant, trigger, leastRate)),
    };
  }

  /** Everything in the log of ordinary events up to this sequence has been pushed by somebody: what is read again begins after it (H5). */
  async bookmark(seq: number): Promise<void> {
    if (this.#whole === this.#renew) await this.#hot.setRecent(seq);
  }

  /** What the tail of the log does with it. */
  projection(report: (progress: Progress | undefined) => void = () => undefined): Projection {
    return {
      name: HOT_STATE,
      renewed: () => this.#renew.signal,
      subjects: [`${RECORDS}.>`, `${CRITICAL}.>`],
      applied: async () => {
        const applied = await this.#hot.applied();
        if (applied !== undefined) await this.#recover();
        return applied;
      },
      build: () => this.build(),
      empty: () => this.#hot.clear(),
      apply: async (entries) => {
        const { records, arrivals } = await this.#sort(entries);
        await this.#hot.apply(records);
        if (arrivals.length > 0) await this.#hot.push(arrivals, []);
      },
      setApplied: (seq) => this.#hot.setApplied(seq),
      report,
    };
  }

  /** Redis was away and may have lost its last writes: the tail goes back to the watermark that Redis still has. */
  renew(): void {
    const old = this.#renew;
    this.#renew = new AbortController();
    old.abort();
  }

  /** Resolves when nothing is left to be done after a build. */
  async settled(): Promise<void> {
    await this.#settling;
  }

  /** H3. A worker that cannot log for longer than this shows these events again when hot state is next read from the log. */
  async #settle(from: number): Promise<void> {
    try {
      await this.#clock.sleep(2 * this.#options.behindMs + SETTLE_MS, this.#parts.signal);
      await this.#recover(from);
    } catch {
      // The worker stops, or Redis is away again: its return reads the log.
    }
  }

  /** Ordinary events and metrics that the log has and hot state may have lost; pushing them again keeps them once. */
  async #recover(since?: number): Promise<void> {
    const life = this.#renew;
    const from = since ?? (await this.#hot.recent()) ?? 0;
    let last = from;
    for await (const batch of batches(
      this.#log.read({ stream: "MEMORY_RECENT", subjects: [`${RECENT}.>`], from: from + 1 }),
    )) {
      await this.#push(await this.#arrivals(batch));
      last = batch.at(-1)?.seq ?? last;
    }
    await this.#loadMetrics(() => undefined);
    if (life !== this.#renew) return; // it was away again
    if (last > from) await this.#hot.setRecent(last);
    this.#whole = life;
  }

  async #push(arrivals: readonly Arrival[]): Promise<void> {
    for (let at = 0; at < arrivals.length; at += 1_000) await this.#hot.loadPush(arrivals.slice(at, at + 1_000), []);
  }

  async #loadMetrics(count: (batch: readonly Entry[]) => void): Promise<void> {
    for await (const batch of batches(this.#log.read({ stream: METRIC_STREAM, subjects: [`$KV.>`] }))) {
      await this.#hot.loadPush(
        [],
        batch.map(metricOf).filter((metric) => metric !== undefined),
      );
      count(batch);
    }
  }

  /** H4. */
  async #build(progress: (progress: Progress) => void): Promise<void> {
    let recent: number | undefined;
    const life = this.#renew;
    while (recent === undefined) {
      if (this.#parts.signal.aborted) throw new BeamlineError("unavailable", "the memory worker stops");
      recent = await this.#load(progress);
    }
    this.#whole = life;
    this.#settling = Promise.all([this.#settling, this.#settle(recent)]).then(() => undefined);
  }

  /** Last sequence of the stream of ordinary events that is in; undefined when it was emptied meanwhile. */
  async #load(progress: (progress: Progress) => void): Promise<number | undefined> {
    const building = randomUUID();
    await this.#hot.begin(building);
    await this.#parts.flush();
    const [memory, recent] = await Promise.all([this.#log.bounds("MEMORY"), this.#log.bounds("MEMORY_RECENT")]);
    let total = memory.last + recent.last;
    let done = 0;
    const count = (batch: readonly Entry[]): void => {
      done += batch.length;
      total = Math.max(done + (batch.at(-1)?.pending ?? 0), 1);
      progress({ done, total });
    };
    for await (const batch of batches(this.#log.read({ stream: "MEMORY", subjects: [`${RECORDS}.>`], latest: true }))) {
      await this.#hot.load(await readable(batch, (entry) => this.#log.record(entry), this.#parts.bury));
      count(batch);
    }
    for await (const batch of batches(this.#log.read({ stream: "MEMORY", subjects: [`${CRITICAL}.>`] }))) {
      await this.#push(await this.#arrivals(batch));
      count(batch);
    }
    await this.#loadRecent(count);
    await this.#loadMetrics(count);
    // What was appended meanwhile is read by the tail, from where the log was when this began.
    return (await this.#hot.finish(building, memory.last, recent.last)) ? recent.last : undefined;
  }

  /** The newest events of every tenant: only as many as the ring holds are kept while reading. */
  async #loadRecent(count: (batch: readonly Entry[]) => void): Promise<void> {
    const rings = new Map<string, Arrival[]>();
    for await (const batch of batches(this.#log.read({ stream: "MEMORY_RECENT", subjects: [`${RECENT}.>`] }))) {
      for (const arrival of await this.#arrivals(batch)) {
        const ring = rings.get(arrival.tenant);
        if (ring === undefined) rings.set(arrival.tenant, [arrival]);
        else if (ring.push(arrival) > this.#options.ring * 2) ring.splice(0, ring.length - this.#options.ring);
      }
      count(batch);
    }
    for (const ring of rings.values()) {
      // An event may be logged twice (relog), and has one place in the ring.
      const once = new Map<string, Arrival>();
      for (const arrival of ring.sort((a, b) => a.at - b.at))
        if (!once.has(arrival.entry)) once.set(arrival.entry, arrival);
      await this.#push([...once.values()].slice(-this.#options.ring));
    }
  }

  async #arrivals(batch: readonly Entry[]): Promise<Arrival[]> {
    const read = async (entry: Entry): Promise<Arrival[]> => this.#arrivalsOf(entry, await this.#log.text(entry));
    return (await readable(batch, read, this.#parts.bury)).flat();
  }

  /** Throws for an entry that cannot be read: the tail buries it. */
  async #sort(entries: readonly Entry[]): Promise<{ records: Logged[]; arrivals: Arrival[] }> {
    const records: Logged[] = [];
    const arrivals: Arrival[] = [];
    for (const entry of entries) {
      if (entry.subject.startsWith(`${RECORDS}.`)) records.push(await this.#log.record(entry));
      else arrivals.push(...this.#arrivalsOf(entry, await this.#log.text(entry)));
    }
    return { records, arrivals };
  }

  #arrivalsOf(entry: Entry, text: string): Arrival[] {
    const ageMs = entry.subject.startsWith(`${CRITICAL}.`) ? this.#options.criticalAgeMs : this.#options.eventAgeMs;
    const oldest = ageMs === 0 ? 0 : (this.#clock.now() - ageMs) * 1000;
    return readArrivals(entry.subject, text).filter(({ at }) => at >= oldest);
  }
}

/** The metric of an entry of their bucket; undefined for one that was deleted, and for what is none: the bucket is open to other programs. */
export function metricOf({ subject, text }: Entry): MetricSet | undefined {
  if (text === "") return undefined;
  try {
    const { key, at, value, timestamp } = JSON.parse(text) as Omit<MetricSet, "tenant">;
    const whole = typeof key === "string" && Number.isSafeInteger(at) && at >= 0 && Number.isFinite(value);
    BigInt(timestamp); // throws for what is no moment
    return whole ? { tenant: partOf(subject.split(".")[2] ?? "="), key, at, value, timestamp } : undefined;
  } catch {
    return undefined;
  }
}
