/**
 * Decisions by message id for every routing worker, in Redis for an hour (`get_decision`).
 *
 * G1 Deciding does not wait for it: decisions are gathered and written together a few times a second, and what does not fit in between is left out
 *    - then only the worker that decided knows them.
 * G2 One entry per message id and tenant. Whoever names no tenant gets the decision when one tenant alone used the id.
 * G3 A decision that is not found may be on its way: it is looked for once more after the next writing.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Redis } from "ioredis";
import { hot } from "../connect.redis.ts";
import { RecentDecisions } from "./decisions.memory.ts";
import type { Decisions } from "./ports.ts";
import { scriptOf } from "./script.redis.ts";

const BASE = "beamline:routing:decision:";
const TTL_SECONDS = 3_600;
/** Between two writings, milliseconds. */
const EVERY_MS = 25;
/** Decisions gathered in between at most. */
const MOST = 2_000;

/** ARGV: seconds, then message id, tenant and decision of each. Answers nothing. */
const WRITE = `
for i = 2, #ARGV, 3 do
  local key = '${BASE}' .. ARGV[i]
  redis.call('HSET', key, ARGV[i + 1], ARGV[i + 2])
  redis.call('EXPIRE', key, ARGV[1])
end`;

export interface RedisDecisionsOptions {
  readonly onTrouble: (error: unknown) => void;
}

export class RedisDecisions implements Decisions {
  readonly #redis: Redis;
  readonly #own = new RecentDecisions();
  readonly #write: (...args: (string | number)[]) => Promise<unknown>;
  readonly #onTrouble: (error: unknown) => void;
  #gathered: string[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(redis: Redis, { onTrouble }: RedisDecisionsOptions) {
    this.#redis = redis;
    this.#onTrouble = onTrouble;
    this.#write = scriptOf(redis, "Decisions", WRITE);
  }

  remember(tenant: string, messageId: string, decision: string): void {
    this.#own.remember(tenant, messageId, decision);
    if (this.#gathered.length >= 3 * MOST) return;
    this.#gathered.push(messageId, tenant, decision);
    this.#timer ??= setTimeout(() => void this.flush(), EVERY_MS);
  }

  async recall(tenant: string | undefined, messageId: string): Promise<string | undefined> {
    const own = this.#own.recall(tenant, messageId);
    if (own !== undefined && tenant !== undefined) return own;
    let stored = await this.#stored(tenant, messageId);
    if (stored.length === 0 && own === undefined) {
      await pause(2 * EVERY_MS);
      stored = await this.#stored(tenant, messageId);
    }
    if (stored.length > 1) return undefined;
    return stored[0] ?? own;
  }

  /** Writes what was gathered. Never rejects. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const gathered = this.#gathered;
    this.#gathered = [];
    if (gathered.length > 0) await this.#write(TTL_SECONDS, ...gathered).catch(this.#onTrouble);
  }

  /** Decisions of the tenant, or of all tenants. None also while Redis is away: then this worker's own are all there are. */
  async #stored(tenant: string | undefined, messageId: string): Promise<string[]> {
    try {
      const key = BASE + messageId;
      if (tenant === undefined) return await hot(() => this.#redis.hvals(key));
      const stored = await hot(() => this.#redis.hget(key, tenant));
      return stored === null ? [] : [stored];
    } catch (thrown) {
      this.#onTrouble(thrown);
      return [];
    }
  }
}
