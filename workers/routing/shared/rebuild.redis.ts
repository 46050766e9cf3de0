/**
 * Bringing idempotency keys back to a Redis that lost them, from the journal.
 *
 * B1 One worker does it at a time, whoever asks first; the others find it done. Should it die, its token ends and another begins.
 * B2 What is in Redis stays: a key that was answered meanwhile is newer than the journal's.
 * B3 Lost again meanwhile - the token went with the keys - means not done: the next question begins anew.
 */
import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import { hot } from "../../connect.redis.ts";
import type { Journal } from "./journal.nats.ts";
import { scriptOf, type Script } from "./script.redis.ts";
import { WordBook } from "./words.redis.ts";
import { COMPLETE, FINISH, KEY_TTL_MS, REBUILD_MS, REBUILDING, RESTORE } from "./shared.lua.ts";

/** Keys brought back with one call. */
const CHUNK = 500;

export interface RebuildOptions {
  readonly now: () => number;
  readonly onTrouble: (error: unknown) => void;
}

export class Rebuild {
  readonly #redis: Redis;
  readonly #journal: Journal;
  readonly #options: RebuildOptions;
  readonly #restore: Script;
  readonly #finish: Script;
  #running: Promise<void> | undefined;

  constructor(redis: Redis, journal: Journal, options: RebuildOptions) {
    this.#redis = redis;
    this.#journal = journal;
    this.#options = options;
    this.#restore = scriptOf(redis, "Restore", RESTORE);
    this.#finish = scriptOf(redis, "Finish", FINISH);
    this.#doubtAfterLoss();
  }

  /** Resolves when Redis knows every key, or another worker is about it. Throws `unavailable`. */
  run(): Promise<void> {
    return (this.#running ??= this.#run().finally(() => (this.#running = undefined)));
  }

  async #run(): Promise<void> {
    const redis = this.#redis;
    if ((await hot(() => redis.exists(COMPLETE))) === 1) return;
    const token = randomUUID();
    if ((await hot(() => redis.set(REBUILDING, token, "PX", REBUILD_MS, "NX"))) === null) return; // B1
    const now = this.#options.now();
    const book = new WordBook(this.#options.now);
    for await (const records of this.#journal.read()) {
      for (let at = 0; at < records.length; at += CHUNK) {
        const args: (string | number)[] = [];
        for (const { name, digest, words, at: answered } of records.slice(at, at + CHUNK)) {
          const left = answered + KEY_TTL_MS - now;
          if (left > 0) args.push(name, `a${digest}${book.refOf(words, args)}`, left);
        }
        if ((await hot(() => this.#restore(token, ...args))) === 0) return; // B3
      }
    }
    await hot(() => this.#finish(token));
  }

  /** A connection that was lost may have been a Redis that was: what it did not yet write down is missing. */
  #doubtAfterLoss(): void {
    const redis = this.#redis;
    let lost = false;
    redis.on("close", () => (lost = true));
    redis.on("ready", () => {
      if (!lost) return;
      lost = false;
      hot(() => redis.del(COMPLETE))
        .then(() => this.run())
        .catch(this.#options.onTrouble);
    });
  }
}
