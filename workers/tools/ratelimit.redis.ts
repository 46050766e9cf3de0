/**
 * Token buckets shared by all workers, one per agent and one per tool (aiOS tools, 1.2: both are charged on each call even if the other
 * refuses). One round trip for both. While Redis is away each worker keeps its own buckets: a limit that is too generous for a while is
 * better than tools that do not work. No call waits for a Redis that did not answer the one before: it is asked on the side whether it is back.
 */
import type { Redis } from "ioredis";
import type { Clock } from "../../runtime/clock.ts";

export interface Rate {
  /** Tokens that come back per second; 0 turns the limit off. */
  readonly perSecond: number;
  /** Most tokens kept; buckets start full. */
  readonly capacity: number;
}

export interface Rates {
  readonly agent: Rate;
  readonly tool: Rate;
}

/** Refills and charges each bucket; 1 when every bucket had a token. Time is the server's, so that workers agree on it. */
const SCRIPT = `
local now = redis.call("TIME")
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local pass = 1
for i, key in ipairs(KEYS) do
  local rate, capacity = tonumber(ARGV[i * 2 - 1]), tonumber(ARGV[i * 2])
  local kept = redis.call("HMGET", key, "tokens", "at")
  local tokens = math.min(capacity, (tonumber(kept[1]) or capacity) + math.max(0, ms - (tonumber(kept[2]) or ms)) * rate / 1000)
  if tokens >= 1 then tokens = tokens - 1 else pass = 0 end
  redis.call("HSET", key, "tokens", tostring(tokens), "at", ms)
  redis.call("PEXPIRE", key, math.ceil(capacity / rate * 1000) + 1000)
end
return pass`;

export class RateLimit {
  readonly #redis: Redis;
  readonly #rates: Rates;
  readonly #clock: Clock;
  readonly #own = new Map<string, { tokens: number; at: number }>();
  #sha: Promise<string> | undefined;
  #away = false;
  #asking = false;

  constructor(redis: Redis, rates: Rates, clock: Clock) {
    this.#redis = redis;
    this.#rates = rates;
    this.#clock = clock;
  }

  /** Charges one call. False when the agent or the tool has no token left. */
  async take(tenant: string, agent: string, tool: string): Promise<boolean> {
    const buckets = [["agent", agent, this.#rates.agent] as const, ["tool", tool, this.#rates.tool] as const].filter(
      ([, , rate]) => rate.perSecond > 0,
    );
    if (buckets.length === 0) return true;
    // Braces keep both keys of a tenant on one node of a cluster.
    const keys = buckets.map(([kind, id]) => `{${tenant}}:tools:rate:${kind}:${id}`);
    const limits = buckets.flatMap(([, , rate]) => [rate.perSecond, rate.capacity]);
    if (this.#away) this.#ask();
    else
      try {
        return (await this.#run(keys, limits)) === 1;
      } catch {
        this.#away = true;
      }
    const passes = buckets.map(([, , rate], index) => this.#takeOwn(keys[index] ?? "", rate));
    return passes.every(Boolean);
  }

  #ask(): void {
    if (this.#asking) return;
    this.#asking = true;
    const answered = (): void => void (this.#away = false);
    const asked = (): void => void (this.#asking = false);
    this.#redis.ping().then(answered).then(asked, asked);
  }

  async #run(keys: readonly string[], limits: readonly number[]): Promise<unknown> {
    this.#sha ??= this.#redis.script("LOAD", SCRIPT) as Promise<string>;
    try {
      return await this.#redis.evalsha(await this.#sha, keys.length, ...keys, ...limits);
    } catch (thrown) {
      this.#sha = undefined;
      if (thrown instanceof Error && thrown.message.startsWith("NOSCRIPT"))
        return this.#redis.eval(SCRIPT, keys.length, ...keys, ...limits);
      throw thrown;
    }
  }

  #takeOwn(key: string, { perSecond, capacity }: Rate): boolean {
    const now = this.#clock.monotonic();
    const bucket = this.#own.get(key) ?? { tokens: capacity, at: now };
    const tokens = Math.min(capacity, bucket.tokens + ((now - bucket.at) * perSecond) / 1000);
    if (this.#own.size > 10_000) this.#own.clear();
    this.#own.set(key, { tokens: tokens >= 1 ? tokens - 1 : tokens, at: now });
    return tokens >= 1;
  }
}
