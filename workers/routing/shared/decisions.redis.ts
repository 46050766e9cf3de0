/**
 * Decisions by message id for every routing worker, in Redis for an hour (`get_decision`).
 *
 * G1 Deciding does not wait for it: decisions are gathered and written together a few times a second, and what does not fit in between is left out
 *    - then only the worker that decided knows them.
 * G2 One entry per message id and tenant. Whoever names no tenant gets the decision when one tenant alone used the id.
 *    While Redis is away a worker knows its own alone, and can say of no other that there is none: `unavailable`.
 * G3 A decision that is not found may be on its way: it is looked for once more after the next writing.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Redis } from "ioredis";
import { hot } from "../../connect.redis.ts";
import { RecentDecisions } from "./decisions.memory.ts";
import type { Decisions } from "../ports.ts";
import type { Words } from "../choice/decision.ts";
import { scriptOf } from "./script.redis.ts";
import { WORDS, wordsIn, type WordBook } from "./words.redis.ts";

const BASE = "beamline:routing:decision:";
const TTL_SECONDS = 3_600;
/** How much time one hash is about. */
const STRETCH_SECONDS = 600;
/** Between two writings, milliseconds. */
const EVERY_MS = 25;
/** Decisions gathered in between at most. */
const MOST = 1_500;

/**
 * A hash per stretch of time: field message id, value `<tenant>\n<name of the words>\n`, or when several tenants used it all of theirs, one after
 * another. ARGV: the hash, how many words, name, value and milliseconds of each; then message id, tenant and words of each decision.
 */
const REMEMBER = `
local bucket, i = ARGV[1], 3
for _ = 1, tonumber(ARGV[2]) do
  redis.call('SET', ARGV[i], ARGV[i + 1], 'PX', ARGV[i + 2])
  i = i + 3
end
local first = i
local ids = {}
while i < #ARGV do
  ids[#ids + 1] = ARGV[i]
  i = i + 3
end
local held = redis.call('HMGET', bucket, unpack(ids))
local known, pairs = {}, {}
for n, id in ipairs(ids) do
  local tenant = ARGV[first + 3 * n - 2]
  local mine = tenant .. '\\n' .. ARGV[first + 3 * n - 1] .. '\\n'
  local before = known[id] or held[n]
  if before and string.sub(before, 1, #tenant + 1) ~= tenant .. '\\n' then
    for other, words in string.gmatch(before, '([^\\n]*)\\n([^\\n]*)\\n') do
      if other ~= tenant then mine = mine .. other .. '\\n' .. words .. '\\n' end
    end
  end
  known[id] = mine
  pairs[2 * n - 1] = id
  pairs[2 * n] = mine
end
redis.call('HSET', bucket, unpack(pairs))
redis.call('EXPIRE', bucket, ${TTL_SECONDS + STRETCH_SECONDS})`;

export interface RedisDecisionsOptions {
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly onTrouble: (error: unknown) => void;
  readonly words: WordBook;
}

export class RedisDecisions implements Decisions {
  readonly #redis: Redis;
  readonly #own = new RecentDecisions();
  readonly #write: (...args: (string | number)[]) => Promise<unknown>;
  readonly #onTrouble: (error: unknown) => void;
  readonly #words: WordBook;
  readonly #now: () => number;
  #newWords: (string | number)[] = [];
  #gathered: string[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(redis: Redis, { now, onTrouble, words }: RedisDecisionsOptions) {
    this.#now = now;
    this.#redis = redis;
    this.#onTrouble = onTrouble;
    this.#words = words;
    this.#write = scriptOf(redis, "Decisions", REMEMBER);
  }

  remember(tenant: string, messageId: string, words: Words): void {
    this.#own.remember(tenant, messageId, words);
    if (this.#gathered.length >= 3 * MOST) return;
    this.#gathered.push(messageId, tenant, this.#words.refOf(words, this.#newWords));
    this.#timer ??= setTimeout(() => void this.flush(), EVERY_MS);
  }

  async recall(tenant: string | undefined, messageId: string): Promise<string | undefined> {
    const own = this.#own.recall(tenant, messageId);
    if (own !== undefined && tenant !== undefined) return own;
    let stored: readonly string[];
    try {
      stored = await this.#stored(tenant, messageId);
    } catch (thrown) {
      this.#onTrouble(thrown);
      if (own === undefined) throw thrown;
      return own;
    }
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
    const [gathered, newWords] = [this.#gathered, this.#newWords];
    [this.#gathered, this.#newWords] = [[], []];
    if (gathered.length > 0)
      await this.#write(this.#bucket(0), newWords.length / 3, ...newWords, ...gathered).catch(this.#onTrouble);
  }

  /** Decisions of the tenant, or of all tenants. Throws `unavailable`. */
  async #stored(tenant: string | undefined, messageId: string): Promise<string[]> {
    return hot(async () => {
      const looks = this.#redis.pipeline();
      for (let back = 0; back <= TTL_SECONDS / STRETCH_SECONDS; back++) looks.hget(this.#bucket(back), messageId);
      const found = (await looks.exec()) ?? [];
      const byTenant = new Map<string, string>();
      for (const [error, text] of found) {
        if (error !== null) throw error;
        const lines = typeof text === "string" ? text.split("\n") : [];
        for (let at = 0; at + 1 < lines.length; at += 2) {
          const [owner = "", words = ""] = lines.slice(at, at + 2);
          if (!byTenant.has(owner) && (tenant === undefined || owner === tenant)) byTenant.set(owner, WORDS + words);
        }
      }
      const names = [...byTenant.values()];
      if (names.length === 0) return [];
      const texts = await this.#redis.mget(...names);
      return texts.filter((text) => text !== null).map((text) => wordsIn(text).bare);
    });
  }

  /** The hash of now, or of so many stretches before. */
  #bucket(back: number): string {
    return `${BASE}${Math.floor(this.#now() / (1_000 * STRETCH_SECONDS)) - back}`;
  }
}
