/**
 * Operational memory: the ring of recent events, and metrics (aiOS, memory, operational tier).
 *
 * O1 One call to hot state at a time; the events and metrics that arrive meanwhile go with the next. An ordinary one is acknowledged from there.
 * O2 A critical event is on the disk of the log before it is acknowledged. Those that arrive while one is being written are written together.
 * O3 Order is by arrival, which is stamped here and never runs back: a rebuilt ring has the order of the one that was lost.
 */
import { codecOf, type JsonObject } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import {
  Event,
  type MetricUpdate,
  type MetricValue,
  type RecentEventsRequest,
} from "../../contracts/gen/aios/memory.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Ids } from "../../runtime/ids.ts";
import { entryOf, fitting, type Arrival } from "./arrival.ts";
import type { Behind } from "./hot/behind.ts";
import { requireFinite, requireText } from "./check.ts";
import { canonicalEvent } from "./event.ts";
import type { MemoryLog } from "./log.ts";
import type { Hot, MetricSet } from "./ports.ts";

const events = codecOf(Event);

/** Critical events written together at most. */
const MOST_CRITICAL = 1_000;

/** What is answered to a write that was kept: the JSON of the contract's empty reply. */
const KEPT = "{}";

/** Events and metrics that go to hot state in one call. All their callers wait for one promise. */
class Round {
  readonly events: Arrival[] = [];
  readonly metrics: MetricSet[] = [];
  readonly #kept = Promise.withResolvers<string>();
  readonly kept = this.#kept.promise;

  done(): void {
    this.#kept.resolve(KEPT);
  }

  failed(error: unknown): void {
    this.#kept.reject(error);
  }
}

export interface OperationalParts {
  readonly hot: Hot;
  readonly log: MemoryLog;
  readonly behind: Behind;
  readonly clock: Clock;
  readonly ids: Ids;
}

export class Operational {
  readonly #parts: OperationalParts;
  #lastAt = 0;
  #round = new Round();
  #pushing = false;
  readonly #critical = new Map<string, CriticalQueue>();

  constructor(parts: OperationalParts) {
    this.#parts = parts;
  }

  /** Keeps an event; fills an empty id and a zero timestamp. Throws `invalid_argument` for `data_json` that is not JSON. */
  async push(tenant: string, event: Event): Promise<void> {
    await this.pushCanonical(tenant, canonicalEvent(event));
  }

  /** The same for an event as canonical JSON (event.ts). Resolves to the JSON of the reply. */
  pushCanonical(tenant: string, event: JsonObject): Promise<string> {
    let kept = event;
    if (event["id"] === undefined) {
      const { timestamp = Math.floor(this.#parts.clock.now() / 1000), ...rest } = event;
      kept = { id: this.#parts.ids.v4(), timestamp, ...rest };
    }
    return this.pushEntry(tenant, entryOf(kept), event["critical"] === true);
  }

  /** The same for an event as the text it is kept as (arrival, E1 and E2). */
  pushEntry(tenant: string, entry: string, critical: boolean): Promise<string> {
    const arrival: Arrival = { tenant, at: this.#arrive(), critical, entry };
    if (!critical) {
      this.#round.events.push(arrival);
      return this.#soon();
    }
    let queue = this.#critical.get(tenant);
    if (queue === undefined) {
      queue = new CriticalQueue((batch) => this.#storeCritical(tenant, batch));
      this.#critical.set(tenant, queue);
    }
    return queue.add(arrival);
  }

  /** Newest first by arrival; `count` 0 is none, a negative one is all; filters are exact. */
  async recent(tenant: string, { count, category, source }: RecentEventsRequest): Promise<Event[]> {
    const found = JSON.parse(await this.#parts.hot.events(tenant, count, category, source)) as JsonObject[];
    return found.map((event) => events.fromJson(event));
  }

  /** The same as the JSON of an EventList: what is stored is the contract's JSON already, and needs no reading to be passed on. */
  async recentText(tenant: string, { count, category, source }: RecentEventsRequest): Promise<string> {
    return `{"events":${await this.#parts.hot.events(tenant, count, category, source)}}`;
  }

  /** The last write wins, by arrival, whatever its timestamp says; a zero timestamp becomes now. */
  async update(tenant: string, { key, value, timestamp }: MetricUpdate): Promise<void> {
    requireText("key", key);
    requireFinite("value", value);
    const moment = timestamp === 0n ? BigInt(Math.floor(this.#parts.clock.now() / 1000)) : timestamp;
    const wire = Number.isSafeInteger(Number(moment)) ? Number(moment) : String(moment);
    this.#round.metrics.push({ tenant, key, at: this.#arrive(), value, timestamp: wire });
    await this.#soon();
  }

  /** Throws `not_found` for a metric that was never set. */
  async metric(tenant: string, key: string): Promise<MetricValue> {
    const [found] = await this.#parts.hot.metrics(tenant, [key]);
    if (found === undefined) throw new BeamlineError("not_found", `Metric not found: ${key}`, { field: "key" });
    return { key, value: found.value, timestamp: BigInt(found.timestamp) };
  }

  /** O3. */
  #arrive(): number {
    this.#lastAt = Math.max(this.#lastAt + 1, this.#parts.clock.micros());
    return this.#lastAt;
  }

  /** O1. What was added to the round that is open goes with the next call to hot state. */
  #soon(): Promise<string> {
    const { kept } = this.#round;
    if (!this.#pushing) {
      this.#pushing = true;
      setImmediate(() => void this.#pushAll());
    }
    return kept;
  }

  async #pushAll(): Promise<void> {
    while (this.#round.events.length > 0 || this.#round.metrics.length > 0) {
      const round = this.#round;
      this.#round = new Round();
      try {
        await this.#parts.hot.push(round.events, round.metrics);
        this.#parts.behind.add(round.events, round.metrics);
        round.done();
      } catch (error) {
        round.failed(error);
      }
    }
    this.#pushing = false;
  }

  /**
   * O2. Without hot state nothing is stored, and the caller hears it at once. When it is lost between the two steps the caller is told that it
   * failed, and the tail of the log shows the event later: pushing it again keeps it once.
   */
  async #storeCritical(tenant: string, batch: readonly Arrival[]): Promise<void> {
    if (!this.#parts.hot.up) throw new BeamlineError("unavailable", "hot state (Redis) cannot be reached");
    let left = batch;
    while (left.length > 0) {
      const count = fitting(left, MOST_CRITICAL);
      await this.#parts.log.appendCritical(tenant, left.slice(0, count));
      left = left.slice(count);
    }
    await this.#parts.hot.push(batch, []);
  }
}

/** One write at a time; what arrives meanwhile goes with the next. */
class CriticalQueue {
  readonly #store: (batch: readonly Arrival[]) => Promise<void>;
  readonly #rounds: Round[] = [];
  #busy = false;

  constructor(store: (batch: readonly Arrival[]) => Promise<void>) {
    this.#store = store;
  }

  add(event: Arrival): Promise<string> {
    let round = this.#rounds.at(-1);
    if (round === undefined || round.events.length === MOST_CRITICAL) this.#rounds.push((round = new Round()));
    round.events.push(event);
    if (!this.#busy) {
      this.#busy = true;
      queueMicrotask(() => void this.#run()); // what the bus brought along with it goes along with it
    }
    return round.kept;
  }

  async #run(): Promise<void> {
    for (let round = this.#rounds.shift(); round !== undefined; round = this.#rounds.shift()) {
      try {
        await this.#store(round.events);
        round.done();
      } catch (error) {
        round.failed(error);
      }
    }
    this.#busy = false;
  }
}
