/**
 * State that all routing workers share, in Redis: sessions, idempotency keys, limits.
 *
 * S1 One question is one round trip: key, limits and session together. Questions that come while others are on their way leave together.
 * S2 Every key carries its tenant, escaped, so that no tenant's key can spell another's.
 * S3 Redis forgets: a marker says that it knows every key there is. It goes with a flush, and is taken away when the connection was lost, since a
 *    Redis that crashed may have lost its last second. Without it unknown keys wait until the journal was read back (rebuild.redis.ts).
 * S4 Redis away stops nobody: this worker's own latest keys are known still, limits and sessions are let be (BeamLine, idempotency, limits).
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Redis } from "ioredis";
import { tokenOf } from "../../../bus/keys.ts";
import type { Words } from "../choice/decision.ts";
import type { Journal } from "./journal.nats.ts";
import type { Question, SharedState, Verdict } from "../ports.ts";
import { Rebuild } from "./rebuild.redis.ts";
import { Recent } from "./recent.ts";
import { scriptOf, type Script } from "./script.redis.ts";
import { wordsIn, type WordBook } from "./words.redis.ts";
import { asks, BASE, FORGET, HELD_MS, KEY_TTL_MS, SETTLE, WRITE } from "./shared.lua.ts";

export interface RedisStateOptions {
  /** Epoch milliseconds. */
  readonly now: () => number;
  /** Told of what could not be stored. */
  readonly onTrouble: (error: unknown) => void;
  readonly words: WordBook;
}

/** Pauses between two looks at a key whose first request is under way, milliseconds. */
const FIRST_PAUSE_MS = 4;
const LONGEST_PAUSE_MS = 50;
/** Longest a request waits for a key, milliseconds: what the gateways wait, less a little. */
const LONGEST_WAIT_MS = 4_500;
/** Questions of one call. */
const MOST = 256;
/** This worker's own keys known without Redis at least (S4). */
const OWN_KEYS = 20_000;

interface Asked {
  readonly question: Question;
  readonly resolve: (answer: string) => void;
  readonly reject: (thrown: unknown) => void;
}

export class RedisState implements SharedState {
  readonly #journal: Journal;
  readonly #options: RedisStateOptions;
  readonly #rebuild: Rebuild;
  readonly #settle: Script;
  readonly #remember: Script;
  readonly #forget: Script;
  readonly #own = new Recent<{ readonly digest: string; readonly words: Words; readonly endsAt: number }>(OWN_KEYS);
  readonly #asked: Asked[] = [];
  readonly #remembered: (string | number)[] = [];
  #asking = false;
  #writing = false;

  constructor(redis: Redis, journal: Journal, options: RedisStateOptions) {
    this.#journal = journal;
    this.#options = options;
    this.#rebuild = new Rebuild(redis, journal, options);
    this.#settle = scriptOf(redis, "Settle", SETTLE);
    this.#remember = scriptOf(redis, "Write", WRITE);
    this.#forget = scriptOf(redis, "Forget", FORGET);
  }

  /** Makes Redis know every key, if it does not. Does not wait for it. */
  begin(): void {
    this.#rebuild.run().catch(this.#options.onTrouble);
  }

  settle(question: Question): Promise<Verdict> {
    const answered = this.#ask(question);
    return question.idempotency === undefined
      ? answered.then((answer) => verdictOf(answer, question))
      : this.#settleKey(question, answered);
  }

  /** J1 of the journal: first there, then in Redis, so that what Redis knows the journal does. */
  async remember(tenant: string, key: string, digest: string, words: Words, ttlMs = KEY_TTL_MS): Promise<void> {
    const name = keyName(tenant, key);
    const ttl = Math.min(ttlMs, KEY_TTL_MS);
    const endsAt = this.#options.now() + ttl;
    this.#own.set(name, { digest, words, endsAt });
    try {
      // The journal counts an hour from the moment it is told.
      await this.#journal.append({ name, digest, words, at: endsAt - KEY_TTL_MS });
    } catch (thrown) {
      this.#options.onTrouble(thrown);
    }
    if (!this.#writing && this.#remembered.length === 0) queueMicrotask(() => void this.#write());
    const ref = this.#options.words.refOf(words, this.#remembered);
    this.#remembered.push(name, `a${digest}${ref}`, ttl);
  }

  forget(tenant: string, key: string): void {
    this.#forget(keyName(tenant, key)).catch(this.#options.onTrouble);
  }

  /** S3: asks again while the key is held by another request, or Redis does not know every key. */
  async #settleKey(question: Question, first: Promise<string>): Promise<Verdict> {
    const until = this.#options.now() + LONGEST_WAIT_MS;
    for (let answered = first, pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      let answer: string;
      try {
        answer = await answered;
      } catch (thrown) {
        return this.#withoutRedis(question, thrown);
      }
      if (answer !== "p" && answer !== "u") return verdictOf(answer, question);
      if (this.#options.now() > until) return { kind: "busy", retryAfterSeconds: Math.ceil(HELD_MS / 1_000) };
      if (answer === "u") {
        this.#options.words.forget();
        this.#rebuild.run().catch(this.#options.onTrouble);
      }
      await pause(pauseMs);
      answered = this.#ask(question);
    }
  }

  /** S4. Throws what Redis threw when the key is not known here. */
  #withoutRedis({ tenant, idempotency }: Question, thrown: unknown): Verdict {
    const known = idempotency && this.#own.get(keyName(tenant, idempotency.key));
    if (known === undefined || known.endsAt <= this.#options.now()) throw thrown;
    return known.digest === idempotency?.digest ? { kind: "replay", words: known.words } : { kind: "conflict" };
  }

  /** S1: alone, a question leaves at once; while others are on their way it waits for them and leaves with whoever else has come. */
  #ask(question: Question): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#asked.push({ question, resolve, reject });
      if (this.#asking || this.#asked.length > 1) return;
      queueMicrotask(() => void this.#send());
    });
  }

  /** Never rejects. */
  async #send(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    while (this.#asked.length > 0) {
      const some = this.#asked.splice(0, MOST);
      const args: (string | number)[] = [];
      for (const { question } of some) spell(question, args);
      try {
        const answers = (await this.#settle(...args)) as string[];
        for (const [at, { resolve }] of some.entries()) resolve(answers[at] ?? "g");
      } catch (thrown) {
        for (const { reject } of some) reject(thrown);
      }
    }
    this.#asking = false;
  }

  /** The same for answers; what they say is not waited for. */
  async #write(): Promise<void> {
    if (this.#writing) return;
    this.#writing = true;
    while (this.#remembered.length > 0) {
      try {
        await this.#remember(...this.#remembered.splice(0, 3 * MOST));
      } catch (thrown) {
        this.#options.onTrouble(thrown);
      }
    }
    this.#writing = false;
  }
}

/** A question as the script reads it. */
function spell({ tenant, policyId, idempotency, limit, session, windows }: Question, args: (string | number)[]): void {
  const of = tokenOf(tenant);
  args.push(
    (idempotency === undefined ? 0 : asks.key) +
      (limit === undefined ? 0 : asks.limit) +
      (windows.length === 0 ? 0 : asks.windows) +
      (session === undefined ? 0 : asks.session),
  );
  if (idempotency !== undefined) args.push(keyName(tenant, idempotency.key), idempotency.digest);
  if (limit !== undefined) args.push(`${BASE}limit:${of}:${policyId}`, limit.perSecond, limit.burst);
  if (windows.length > 0) {
    args.push(windows.length);
    for (const { seconds, max } of windows) args.push(`${BASE}window:${of}:${seconds}`, seconds, max);
  }
  if (session !== undefined) {
    const { value, ttlMs, offer, allowed } = session;
    args.push(`${BASE}session:${of}:${value}`, ttlMs, offer ?? "", `\n${allowed.join("\n")}\n`);
  }
}

function verdictOf(answer: string, question: Question): Verdict {
  const rest = answer.slice(1);
  switch (answer[0]) {
    case "c":
      return { kind: "conflict" };
    case "r":
      return { kind: "replay", words: wordsIn(rest) };
    case "l": {
      const [window = 0, seconds = 1] = rest.split(":").map(Number);
      return { kind: "limited", retryAfterSeconds: seconds, window: question.windows[window - 1] };
    }
    case "k":
      return { kind: "go", session: { provider: rest, kept: true } };
    case "n":
      return { kind: "go", session: { provider: rest, kept: false } };
    default:
      return { kind: "go" };
  }
}

/** S2. */
function keyName(tenant: string, key: string): string {
  return `${BASE}key:${tokenOf(tenant)}:${key}`;
}
