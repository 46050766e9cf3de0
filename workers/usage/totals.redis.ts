/**
 * Totals per tenant, day and provider: a projection of the usage stream, one hash per tenant and day.
 *
 * The position in the stream lies beside the totals and changes with them in one script, so a flush loses both, and whoever reads on notices.
 */
import type { Redis } from "ioredis";
import { tokenOf } from "../../bus/keys.ts";
import { hot } from "../connect.redis.ts";

/** What one batch adds. `provider` and `day` as they are in the events. */
export interface Addition {
  readonly tenant: string;
  readonly day: string;
  readonly provider: string;
  readonly status: string;
  readonly count: number;
  /** Integer micro-dollars. */
  readonly micros: number;
  readonly latencyMs: number;
}

export interface DayTotal {
  readonly day: string;
  readonly provider_id: string;
  readonly requests: number;
  /** Requests by status of their result. */
  readonly by_status: Readonly<Record<string, number>>;
  readonly micros: number;
  readonly latency_ms: number;
}

/** Says where the projection is; applies only when that is where the batch begins. */
const APPLY = `
local at = tonumber(redis.call('GET', KEYS[1]) or '-1')
if at ~= tonumber(ARGV[1]) then return at end
local i = 3
for k = 2, #KEYS do
  local provider, status = ARGV[i], ARGV[i + 1]
  redis.call('HINCRBY', KEYS[k], 'n\\0' .. provider, ARGV[i + 2])
  redis.call('HINCRBY', KEYS[k], 's\\0' .. provider .. '\\0' .. status, ARGV[i + 2])
  redis.call('HINCRBY', KEYS[k], 'c\\0' .. provider, ARGV[i + 3])
  redis.call('HINCRBY', KEYS[k], 'l\\0' .. provider, ARGV[i + 4])
  i = i + 5
end
redis.call('SET', KEYS[1], ARGV[2])
return tonumber(ARGV[2])`;

export class TotalsStore {
  readonly #redis: Redis;
  readonly #base: string;

  /** `incarnation` tells this stream from an earlier one of the same name: its totals lie apart. */
  constructor(redis: Redis, incarnation: string) {
    this.#redis = redis;
    // Of the second layout: totals of the first could count an event twice, and are made again.
    this.#base = `beamline:usage:2:${incarnation}`;
  }

  /** Last sequence applied; undefined when there is no projection. Throws `unavailable`. */
  async position(): Promise<number | undefined> {
    const at = await hot(() => this.#redis.get(this.#positionKey));
    return at === null ? undefined : Number(at);
  }

  /** Begins an empty projection, unless there is one. */
  async begin(): Promise<void> {
    await hot(() => this.#redis.set(this.#positionKey, "0", "NX"));
  }

  /** Applies what lies after `from` up to `to`, if the projection is at `from`. Gives where it is then; -1 when there is none. */
  async apply(from: number, to: number, additions: readonly Addition[]): Promise<number> {
    const keys = [this.#positionKey, ...additions.map(({ tenant, day }) => this.#dayKey(tenant, day))];
    const args = additions.flatMap(({ provider, status, count, micros, latencyMs }) => [
      provider,
      status,
      count,
      micros,
      latencyMs,
    ]);
    return hot(async () => (await this.#redis.eval(APPLY, keys.length, ...keys, from, to, ...args)) as number);
  }

  /** Totals of a tenant on the given days. */
  async read(tenant: string, days: readonly string[]): Promise<DayTotal[]> {
    return hot(async () => {
      const hashes = await Promise.all(days.map((day) => this.#redis.hgetall(this.#dayKey(tenant, day))));
      return hashes.flatMap((hash, at) => totalsIn(days[at] ?? "", hash));
    });
  }

  get #positionKey(): string {
    return `${this.#base}:position`;
  }

  #dayKey(tenant: string, day: string): string {
    return `${this.#base}:${tokenOf(tenant)}:${day}`;
  }
}

function totalsIn(day: string, hash: Readonly<Record<string, string>>): DayTotal[] {
  const providers = new Map<
    string,
    { requests: number; micros: number; latency_ms: number; by_status: Record<string, number> }
  >();
  for (const [field, text] of Object.entries(hash)) {
    const [kind, provider = "", status = ""] = field.split("\0");
    const total = providers.get(provider) ?? { requests: 0, micros: 0, latency_ms: 0, by_status: {} };
    providers.set(provider, total);
    if (kind === "n") total.requests = Number(text);
    else if (kind === "c") total.micros = Number(text);
    else if (kind === "l") total.latency_ms = Number(text);
    else total.by_status[status] = Number(text);
  }
  const totals: DayTotal[] = [];
  for (const [provider_id, total] of providers) totals.push({ day, provider_id, ...total });
  return totals.sort((a, b) => (a.provider_id < b.provider_id ? -1 : 1));
}
