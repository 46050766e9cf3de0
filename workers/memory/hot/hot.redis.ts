/** Hot state in Redis: one script per question, one round trip each. Layout and rules are in hot.lua. */
import type { Redis } from "ioredis";
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { hot } from "../../connect.redis.ts";
import * as lua from "./hot.lua.ts";
import { shownText, type Arrival } from "../arrival.ts";
import type { Held, Hot, MetricSet } from "../ports.ts";
import { lowerAscii } from "../index/score.ts";
import { idToken, tenantToken, type Kind, type Logged } from "../record.ts";

export const BASE = "beamline:memory:";

/** Thrown, as the reason of `unavailable`, while there is no projection: Redis was flushed or is new. */
export class NoProjection extends BeamlineError {
  constructor() {
    super("unavailable", "hot state of memory is being rebuilt from the log", { retryAfterSeconds: 1 });
  }
}

type Script = (base: string, ...args: (string | number)[]) => Promise<unknown>;

/** Events per script call: Lua hands no more than some thousand arguments on at once. */
const MAX_EVENTS = 1_000;

/** Tenants remembered to need the script for their events. */
const MOST_MIXED = 10_000;

/** Status words after which a goal is not active any more (aiOS, memory, working tier: exact, lower case). */
const ended = new Set(["completed", "failed", "cancelled"]);

export class RedisHot implements Hot {
  readonly #redis: Redis;
  readonly #ring: number;
  readonly #scripts: Readonly<Record<keyof typeof lua, Script>>;
  /** Tokens of tenants whose newest events were not all plain ones when they were last read. */
  readonly #mixed = new Set<string>();

  /** @param ring events kept per tenant, critical ones apart */
  constructor(redis: Redis, ring: number) {
    this.#redis = redis;
    this.#ring = ring;
    this.#scripts = Object.fromEntries(
      Object.entries(lua).map(([name, text]) => [name, scriptOf(redis, name, text)]),
    ) as Record<keyof typeof lua, Script>;
  }

  get up(): boolean {
    return this.#redis.status === "ready";
  }

  async apply(records: readonly Logged[]): Promise<void> {
    if (records.length > 0) await this.#run("APPLY", ...records.flatMap(rowOf));
  }

  /** Applies while the projection is being built: nobody reads it yet. */
  async load(records: readonly Logged[]): Promise<void> {
    if (records.length > 0) await this.#run("LOAD", ...records.flatMap(rowOf));
  }

  async push(events: readonly Arrival[], metrics: readonly MetricSet[]): Promise<void> {
    for (let at = 0; at === 0 || at < events.length; at += MAX_EVENTS) {
      const some = events.length <= MAX_EVENTS ? events : events.slice(at, at + MAX_EVENTS);
      await this.#run("PUSH", this.#ring, ...pushRows(some, at === 0 ? metrics : []));
    }
  }

  async loadPush(events: readonly Arrival[], metrics: readonly MetricSet[]): Promise<void> {
    if (events.length + metrics.length > 0) await this.#run("LOAD_PUSH", this.#ring, ...pushRows(events, metrics));
  }

  async peek(tenant: string, wanted: readonly (readonly [Kind, string])[]): Promise<(Held | undefined)[]> {
    const values = (await this.#run("PEEK", tenantToken(tenant), ...wanted.flat())) as (string | null)[];
    return wanted.map(([, id], at) => heldOf(id, values[at]));
  }

  async group(tenant: string, kind: Kind, group: string): Promise<Held[]> {
    const pairs = (await this.#run("GROUP", tenantToken(tenant), kind, groupToken(group))) as string[];
    const found: Held[] = [];
    for (let at = 0; at < pairs.length; at += 2) {
      const held = heldOf(pairs[at] ?? "", pairs[at + 1]);
      if (held?.state !== undefined) found.push(held);
    }
    return found;
  }

  async events(tenant: string, count: number, category: string, source: string): Promise<string> {
    if (count === 0) return "[]";
    const wanted: string[] = [];
    if (category !== "") wanted.push(`,"category":${JSON.stringify(category)}`);
    if (source !== "") wanted.push(`,"source":${JSON.stringify(source)}`);
    const token = tenantToken(tenant);
    if (wanted.length === 0 && !this.#mixed.has(token)) {
      const plain = await this.#plainEvents(token, count);
      if (plain !== undefined) return plain;
    }
    const [ordinary, critical] = (await (wanted.length === 0
      ? this.#run("EVENTS", token, count < 0 ? -1 : count - 1)
      : this.#run("FIND_EVENTS", token, count < 0 ? -1 : count, ...wanted))) as [string[], string[]];
    if (wanted.length === 0) this.#remember(token, critical.length > 0 || ordinary.some(isUntimed));
    return newestOf(ordinary, critical, count < 0 ? Infinity : count);
  }

  /**
   * The newest events as one array, when there are some and all are ordinary ones with timestamps (arrival, E2): they need no script, which would
   * cost Redis three times as much. The ring is read before the watermark is, so that no emptied one passes for a whole one.
   */
  async #plainEvents(token: string, count: number): Promise<string | undefined> {
    const applied = `${BASE}applied`;
    const [entries, marks] = await hot(() =>
      Promise.all([
        this.#redis.zrevrange(`${BASE}${token}:ring`, 0, count < 0 ? -1 : count - 1),
        this.#redis.exists(applied, applied, `${BASE}${token}:critical`), // the watermark counts twice
      ]),
    );
    if (marks < 2) throw new NoProjection();
    return marks > 2 || entries.length === 0 || entries.some(isUntimed) ? undefined : `[${entries.join(",")}]`;
  }

  #remember(token: string, mixed: boolean): void {
    if (!mixed) return void this.#mixed.delete(token);
    if (this.#mixed.size >= MOST_MIXED) this.#mixed.clear();
    this.#mixed.add(token);
  }

  async metrics(
    tenant: string,
    keys: readonly string[],
  ): Promise<({ value: number; timestamp: number | string } | undefined)[]> {
    const texts = (await this.#run("METRICS", tenantToken(tenant), ...keys)) as (string | null)[];
    return texts.map((text) =>
      text === null
        ? undefined
        : (JSON.parse(text.slice(text.indexOf("\n") + 1)) as { value: number; timestamp: number | string }),
    );
  }

  /** Ordinary events of the ring that arrived after a moment, oldest first. */
  async arrivedAfter(tenant: string, at: number): Promise<Arrival[]> {
    const ring = `${BASE}${tenantToken(tenant)}:ring`;
    const pairs = await hot(() => this.#redis.zrangebyscore(ring, `(${at}`, "+inf", "WITHSCORES"));
    const found: Arrival[] = [];
    for (let n = 0; n < pairs.length; n += 2)
      found.push({ tenant, at: Number(pairs[n + 1]), critical: false, entry: pairs[n] ?? "" });
    return found;
  }

  /** All metrics of a tenant as they were set. */
  async metricsSet(tenant: string): Promise<MetricSet[]> {
    const texts = await hot(() => this.#redis.hgetall(`${BASE}${tenantToken(tenant)}:metrics`));
    return Object.entries(texts).map(([key, text]) => {
      const end = text.indexOf("\n");
      const { value, timestamp } = JSON.parse(text.slice(end + 1)) as Pick<MetricSet, "value" | "timestamp">;
      return { tenant, key, at: Number(text.slice(0, end)), value, timestamp };
    });
  }

  async pattern(tenant: string, trigger: string, leastRate: number): Promise<Held | undefined> {
    const value = (await this.#run("PATTERN", tenantToken(tenant), lowerAscii(trigger), leastRate)) as string | null;
    if (value === null) return undefined;
    const id = (JSON.parse(value.slice(stateAt(value))) as { id: string }).id;
    return heldOf(id, value);
  }

  /** Watermark of the log, undefined while there is no projection. */
  async applied(): Promise<number | undefined> {
    const text = await hot(() => this.#redis.get(`${BASE}applied`));
    return text === null ? undefined : Number(text);
  }

  /** Moves the watermark; never brings a flushed projection to life. */
  async setApplied(seq: number): Promise<void> {
    await hot(() => this.#redis.set(`${BASE}applied`, String(seq), "XX"));
  }

  /** A building begins: what it loads is shown to nobody before `finish`. */
  async begin(building: string): Promise<void> {
    await hot(() => this.#redis.sadd(`${BASE}builds`, building));
  }

  /** Makes what was loaded visible, with both watermarks. False when it was emptied meanwhile: then it has to be loaded again. */
  async finish(building: string, applied: number, recent: number): Promise<boolean> {
    return (await this.#run("FINISH", building, applied, recent)) === 1;
  }

  /** Last sequence of the stream of ordinary events that is known to be in; undefined while there is no projection. */
  async recent(): Promise<number | undefined> {
    const text = await hot(() => this.#redis.get(`${BASE}recent`));
    return text === null ? undefined : Number(text);
  }

  async setRecent(seq: number): Promise<void> {
    await hot(() => this.#redis.set(`${BASE}recent`, String(seq)));
  }

  /** Called when Redis is back after it was away: what it had not yet written down is missing. */
  onReturn(listener: () => void): void {
    let away = false;
    this.#redis.on("close", () => (away = true));
    this.#redis.on("ready", () => {
      if (away) listener();
      away = false;
    });
  }

  /** Empties the projection; reads fail until it is built. A building that goes on meanwhile, here or elsewhere, has to begin again. */
  async clear(): Promise<void> {
    await hot(async () => {
      const visible = [`${BASE}applied`, `${BASE}builds`];
      await this.#redis.del(...visible);
      let cursor = "0";
      do {
        const [next, keys] = await this.#redis.scan(cursor, "MATCH", `${BASE}*`, "COUNT", 1_000);
        cursor = next;
        if (keys.length > 0) await this.#redis.unlink(...keys);
      } while (cursor !== "0");
      await this.#redis.del(...visible); // what began after the first of these has lost some of its keys
    });
  }

  /** Tokens of the tenants that have anything here. */
  async tenants(): Promise<string[]> {
    return hot(() => this.#redis.smembers(`${BASE}tenants`));
  }

  /** All things of a kind, page by page, those given up included. */
  async *all(tenant: string, kind: Kind): AsyncGenerator<Held> {
    let cursor = "0";
    do {
      const [next, pairs] = await hot(() =>
        this.#redis.hscan(`${BASE}${tenantToken(tenant)}:${kind}`, cursor, "COUNT", 200),
      );
      cursor = next;
      for (let at = 0; at < pairs.length; at += 2) {
        const held = heldOf(pairs[at] ?? "", pairs[at + 1]);
        if (held !== undefined) yield held;
      }
    } while (cursor !== "0");
  }

  /** Takes things out of hot state that the log keeps; those that changed meanwhile stay. */
  async drop(tenant: string, kind: Kind, things: readonly Held[]): Promise<number> {
    if (things.length === 0) return 0;
    return (await this.#run(
      "DROP",
      tenantToken(tenant),
      kind,
      ...things.flatMap(({ id, seq }) => [id, seq]),
    )) as number;
  }

  /** Forgets events that arrived before the given moments, microseconds. */
  async forgetEvents(tenant: string, ordinaryBefore: number, criticalBefore: number): Promise<number> {
    return (await this.#run("FORGET_EVENTS", tenantToken(tenant), ordinaryBefore, criticalBefore)) as number;
  }

  /** True for one caller per period: whoever gets it does the periodic work. */
  async lease(name: string, holder: string, ms: number): Promise<boolean> {
    const key = `${BASE}lease:${name}`;
    return hot(async () => (await this.#redis.set(key, holder, "PX", Math.max(1, Math.round(ms)), "NX")) === "OK");
  }

  async #run(name: keyof typeof lua, ...args: (string | number)[]): Promise<unknown> {
    return hot(async () => {
      try {
        return await this.#scripts[name](BASE, ...args);
      } catch (thrown) {
        if (thrown instanceof Error && thrown.message.includes("NOTREADY")) throw new NoProjection();
        throw thrown;
      }
    });
  }
}

function scriptOf(redis: Redis, name: string, text: string): Script {
  const command = `beamlineMemory${name}`;
  redis.defineCommand(command, { numberOfKeys: 0, lua: text });
  const run = (redis as unknown as Readonly<Record<string, Script>>)[command];
  if (run === undefined) throw new Error(`script ${name} was not defined`);
  return run.bind(redis);
}

function rowOf(record: Logged): (string | number)[] {
  const { tenant, kind, id, seq, born, state } = record;
  const pattern = kind === "pattern" ? state : undefined;
  return [
    tenantToken(tenant),
    kind,
    id,
    seq,
    born,
    state === undefined ? "" : groupOf(kind, state),
    Number(pattern?.["success_rate"] ?? 0),
    Number(pattern?.["uses"] ?? 0),
    lowerAscii(textIn(pattern, "trigger")),
    state === undefined ? "" : JSON.stringify(state),
  ];
}

/** The group a thing belongs to: what is asked for together. */
function groupOf(kind: Kind, state: JsonObject): string {
  if (kind === "goal") return ended.has(textIn(state, "status")) ? "ended" : "active";
  if (kind === "task") return groupToken(textIn(state, "goal_id"));
  if (kind === "tool_call") return groupToken(textIn(state, "task_id"));
  return "";
}

function groupToken(group: string): string {
  return idToken(group);
}

function textIn(state: JsonObject | undefined, field: string): string {
  const value = state?.[field];
  return typeof value === "string" ? value : "";
}

/** Per tenant: its token, how many of each, then two arguments per event and three per metric. */
function pushRows(events: readonly Arrival[], metrics: readonly MetricSet[]): (string | number)[] {
  const [first] = events;
  const one = first?.tenant ?? metrics[0]?.tenant ?? "";
  const alone = events.every(({ tenant }) => tenant === one) && metrics.every(({ tenant }) => tenant === one);
  if (alone) return tenantRows([], one, events, metrics);
  const rows: (string | number)[] = [];
  for (const tenant of new Set([...events, ...metrics].map((each) => each.tenant))) {
    const its = (each: { readonly tenant: string }): boolean => each.tenant === tenant;
    tenantRows(rows, tenant, events.filter(its), metrics.filter(its));
  }
  return rows;
}

function tenantRows(
  rows: (string | number)[],
  tenant: string,
  events: readonly Arrival[],
  metrics: readonly MetricSet[],
): (string | number)[] {
  const critical = events.filter((event) => event.critical);
  rows.push(tenantToken(tenant), events.length - critical.length, critical.length, metrics.length);
  for (const event of events) if (!event.critical) rows.push(event.at, event.entry);
  for (const { at, entry } of critical) rows.push(at, entry);
  for (const { key, at, value, timestamp } of metrics) rows.push(key, at, JSON.stringify({ value, timestamp }));
  return rows;
}

/** Two lists of text and arrival in turn, newest first, as one JSON array. */
function newestOf(ordinary: readonly string[], critical: readonly string[], count: number): string {
  let texts = "";
  for (let taken = 0, a = 0, b = 0; taken < count && (a < ordinary.length || b < critical.length); taken++) {
    const fromOrdinary = b >= critical.length || Number(ordinary[a + 1]) >= Number(critical[b + 1]);
    const [entry = "", at] = fromOrdinary ? [ordinary[a], ordinary[a + 1]] : [critical[b], critical[b + 1]];
    if (fromOrdinary) a += 2;
    else b += 2;
    texts += (texts === "" ? "" : ",") + shownText({ at: Number(at), entry });
  }
  return `[${texts}]`;
}

/** E2 of arrival; an arrival, among entries, is none. */
const isUntimed = (entry: string): boolean => entry.startsWith("\n");

/** `<seq>\n<born>\n<group>\n<state>`. */
function heldOf(id: string, value: string | null | undefined): Held | undefined {
  if (value === null || value === undefined) return undefined;
  const first = value.indexOf("\n");
  const second = value.indexOf("\n", first + 1);
  const text = value.slice(stateAt(value));
  return {
    id,
    seq: Number(value.slice(0, first)),
    born: Number(value.slice(first + 1, second)),
    state: text === "" ? undefined : (JSON.parse(text) as JsonObject),
  };
}

function stateAt(value: string): number {
  const first = value.indexOf("\n");
  const second = value.indexOf("\n", first + 1);
  return value.indexOf("\n", second + 1) + 1;
}
