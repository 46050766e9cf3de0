/**
 * Operational memory: the ring of recent events, and metrics (aiOS, memory, operational tier).
 *
 * O1 One call to hot state at a time; the events and metrics that arrive meanwhile go with the next. An ordinary one is acknowledged from there.
 * O2 A critical event is on the disk of the log before it is acknowledged. Those that arrive while one is being written are written together.
 * O3 Order is by arrival, which is stamped here and never runs back: a rebuilt ring has the order of the one that was lost.
 */
import { codecOf } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import {
  Event,
  type MetricUpdate,
  type MetricValue,
  type RecentEventsRequest,
} from "../../contracts/gen/aios/memory.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Ids } from "../../runtime/ids.ts";
import { arrivalOf, identityOf, type Arrival } from "./arrival.ts";
import type { Behind } from "./behind.ts";
import { requireFinite, requireJson, requireText } from "./check.ts";
import type { MemoryLog } from "./log.ts";
import type { Hot, MetricSet } from "./ports.ts";

const events = codecOf(Event);

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
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
  #events: Arrival[] = [];
  #metrics: MetricSet[] = [];
  #waiting: Waiter[] = [];
  #pushing = false;
  readonly #critical = new Map<string, CriticalQueue>();

  constructor(parts: OperationalParts) {
    this.#parts = parts;
  }

  /** Keeps an event; fills an empty id and a zero timestamp. Throws `invalid_argument` for `data_json` that is not JSON. */
  push(tenant: string, event: Event): Promise<void> {
    requireJson("data_json", event.data_json);
    const json = events.toJson(event);
    let text = JSON.stringify(json);
    // What was given decides whether it is the same event again, before anything is filled in.
    const identity = event.id === "" ? this.#parts.ids.v4() : identityOf(event.id, text);
    if (event.id === "" || event.timestamp === 0n) {
      if (event.id === "") json["id"] = identity;
      if (event.timestamp === 0n) json["timestamp"] = Math.floor(this.#parts.clock.now() / 1000);
      text = JSON.stringify(json);
    }
    const arrive = (): Arrival => arrivalOf(tenant, identity, this.#arrive(), json, text);
    if (!event.critical) return this.#soon(() => this.#events.push(arrive()));
    let queue = this.#critical.get(tenant);
    if (queue === undefined) {
      queue = new CriticalQueue((batch) => this.#storeCritical(tenant, batch));
      this.#critical.set(tenant, queue);
    }
    return queue.add(arrive);
  }

  /** Newest first by arrival; `count` 0 is none, a negative one is all; filters are exact. */
  async recent(tenant: string, { count, category, source }: RecentEventsRequest): Promise<Event[]> {
    const found = await this.#parts.hot.events(tenant, count, category, source);
    return found.map((text) => events.fromJson(JSON.parse(text)));
  }

  /** The same as the JSON of an EventList: what is stored is the contract's JSON already, and needs no reading to be passed on. */
  async recentText(tenant: string, { count, category, source }: RecentEventsRequest): Promise<string> {
    return `{"events":[${(await this.#parts.hot.events(tenant, count, category, source)).join(",")}]}`;
  }

  /** The last write wins, by arrival, whatever its timestamp says; a zero timestamp becomes now. */
  update(tenant: string, { key, value, timestamp }: MetricUpdate): Promise<void> {
    requireText("key", key);
    requireFinite("value", value);
    const moment = timestamp === 0n ? BigInt(Math.floor(this.#parts.clock.now() / 1000)) : timestamp;
    const wire = Number.isSafeInteger(Number(moment)) ? Number(moment) : String(moment);
    return this.#soon(() => this.#metrics.push({ tenant, key, at: this.#arrive(), value, timestamp: wire }));
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

  /** O1. */
  #soon(add: () => unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      add();
      this.#waiting.push({ resolve, reject });
      if (this.#pushing) return;
      this.#pushing = true;
      setImmediate(() => void this.#pushAll());
    });
  }

  async #pushAll(): Promise<void> {
    while (this.#waiting.length > 0) await this.#pushWaiting();
    this.#pushing = false;
  }

  async #pushWaiting(): Promise<void> {
    const [arrived, metrics, waiting] = [this.#events, this.#metrics, this.#waiting];
    this.#events = [];
    this.#metrics = [];
    this.#waiting = [];
    try {
      await this.#parts.hot.push(arrived, metrics);
      this.#parts.behind.add(arrived, metrics);
      for (const { resolve } of waiting) resolve();
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }

  /** O2. Hot state is asked first: what cannot be shown is not stored either, and the caller hears it at once. */
  async #storeCritical(tenant: string, batch: readonly (() => Arrival)[]): Promise<void> {
    await this.#parts.hot.metrics(tenant, []);
    const arrivals = batch.map((arrive) => arrive());
    await this.#parts.log.appendCritical(tenant, arrivals);
    await this.#parts.hot.push(arrivals, []);
  }
}

/** One write at a time; what arrives meanwhile goes with the next. */
class CriticalQueue {
  readonly #store: (batch: readonly (() => Arrival)[]) => Promise<void>;
  #batch: (() => Arrival)[] = [];
  #waiting: Waiter[] = [];
  #busy = false;

  constructor(store: (batch: readonly (() => Arrival)[]) => Promise<void>) {
    this.#store = store;
  }

  add(event: () => Arrival): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#batch.push(event);
      this.#waiting.push({ resolve, reject });
      if (!this.#busy) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#busy = true;
    await new Promise((resolve) => setImmediate(resolve)); // the rest of this tick comes along
    while (this.#batch.length > 0) {
      const batch = this.#batch.splice(0, 1_000);
      const waiting = this.#waiting.splice(0, 1_000);
      try {
        await this.#store(batch);
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        for (const { reject } of waiting) reject(error);
      }
    }
    this.#busy = false;
  }
}
