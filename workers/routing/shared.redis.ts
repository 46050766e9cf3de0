/**
 * State that all routing workers share, in Redis: sessions, idempotency keys, limits.
 *
 * S1 One question is one script: key, limits and session together, one round trip.
 * S2 Every key carries its tenant, escaped, so that no tenant's key can spell another's.
 * S3 Redis forgets: a marker says since when it knows every key. It is gone after a flush and set anew when the connection was lost, since a Redis
 *    that crashed may have lost its last second. While the marker is younger than a key may be, unknown keys are looked up in the journal.
 * S4 Redis away stops nobody: keys are looked up in the journal, limits and sessions are let be (BeamLine, idempotency, limits).
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Redis } from "ioredis";
import { tokenOf } from "../../bus/keys.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { hot } from "../connect.redis.ts";
import type { Words } from "./decision.ts";
import type { Journal, KeyRecord } from "./journal.nats.ts";
import type { Question, SharedState, Verdict } from "./ports.ts";
import { DOUBT, FORGET, HELD_MS, KEY_TTL_MS, REMEMBER, SETTLE } from "./shared.lua.ts";

export interface RedisStateOptions {
  /** Epoch milliseconds. */
  readonly now: () => number;
  /** Told of what could not be stored. */
  readonly onTrouble: (error: unknown) => void;
}

const BASE = "beamline:routing:";
const SINCE = `${BASE}since`;

/** Pauses between two looks at a key whose first request is under way, milliseconds. */
const FIRST_PAUSE_MS = 4;
const LONGEST_PAUSE_MS = 50;

type Script = (...args: (string | number)[]) => Promise<unknown>;

export class RedisState implements SharedState {
  readonly #journal: Journal;
  readonly #options: RedisStateOptions;
  readonly #settle: Script;
  readonly #remember: Script;
  readonly #forget: Script;

  constructor(redis: Redis, journal: Journal, options: RedisStateOptions) {
    this.#journal = journal;
    this.#options = options;
    this.#settle = scriptOf(redis, "Settle", SETTLE);
    this.#remember = scriptOf(redis, "Remember", REMEMBER, 1);
    this.#forget = scriptOf(redis, "Forget", FORGET, 1);
    doubtAfterLoss(redis, scriptOf(redis, "Doubt", DOUBT, 1), options.onTrouble);
  }

  /** Says that Redis knows every key there is, when there never was one (S3). Throws `unavailable`. */
  static async begin(redis: Redis, journal: Journal): Promise<void> {
    if (await journal.isNew()) await hot(() => redis.set(SINCE, "0", "NX"));
  }

  async settle(question: Question): Promise<Verdict> {
    let inJournal = false;
    const until = this.#options.now() + 2 * HELD_MS;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      const [word = "", ...rest] = await this.#ask(question, inJournal).catch(async (thrown: unknown) => {
        const known = await this.#lookUp(question);
        if (known === undefined) throw thrown;
        return ["known", known.digest, known.bare, known.enveloped];
      });
      switch (word) {
        case "unsure": {
          const known = await this.#lookUp(question);
          if (known !== undefined) return this.#restored(question, known);
          inJournal = true;
          break;
        }
        case "pending":
          if (this.#options.now() > until)
            throw new BeamlineError("unavailable", "the first request with this idempotency key does not end");
          await pause(pauseMs);
          break;
        default:
          return verdictOf(word, rest, question);
      }
    }
  }

  async remember(tenant: string, key: string, digest: string, words: Words): Promise<void> {
    const { bare, enveloped } = words;
    const record = { digest, bare, enveloped, at: this.#options.now() };
    const trouble = this.#options.onTrouble;
    this.#remember(keyName(tenant, key), digest, bare, enveloped, KEY_TTL_MS).catch(trouble);
    await this.#journal.append(tenant, key, record).catch(trouble);
  }

  forget(tenant: string, key: string): void {
    this.#forget(keyName(tenant, key)).catch(this.#options.onTrouble);
  }

  async #ask(question: Question, inJournal: boolean): Promise<string[]> {
    const { tenant, policyId, idempotency, limit, session, windows } = question;
    const of = tokenOf(tenant);
    const keys = [
      SINCE,
      idempotency === undefined ? "-" : keyName(tenant, idempotency.key),
      `${BASE}limit:${of}:${policyId}`,
      `${BASE}session:${of}:${session?.value ?? ""}`,
      ...windows.map(({ seconds }) => `${BASE}window:${of}:${seconds}`),
    ];
    return (await this.#settle(
      keys.length,
      ...keys,
      idempotency?.digest ?? "",
      inJournal ? "1" : "0",
      limit?.perSecond ?? 1,
      limit?.burst ?? 0,
      session?.ttlMs ?? 0,
      session?.offer ?? "",
      windows.length,
      ...windows.flatMap(({ seconds, max }) => [seconds, max]),
      ...(session?.allowed ?? []),
    )) as string[];
  }

  /** What the journal knows of the key; undefined also when it cannot be asked: idempotency fails open. */
  async #lookUp({ tenant, idempotency }: Question): Promise<KeyRecord | undefined> {
    if (idempotency === undefined) return undefined;
    try {
      const known = await this.#journal.find(tenant, idempotency.key);
      return known !== undefined && known.at + KEY_TTL_MS > this.#options.now() ? known : undefined;
    } catch (thrown) {
      this.#options.onTrouble(thrown);
      return undefined;
    }
  }

  /** The verdict on a key Redis had lost, which it gets back. */
  #restored({ tenant, idempotency }: Question, known: KeyRecord): Verdict {
    const { digest, bare, enveloped, at } = known;
    const left = Math.max(1, at + KEY_TTL_MS - this.#options.now());
    this.#remember(keyName(tenant, idempotency?.key ?? ""), digest, bare, enveloped, left).catch(
      this.#options.onTrouble,
    );
    return digest === idempotency?.digest ? { kind: "replay", words: known } : { kind: "conflict" };
  }
}

function verdictOf(word: string, [first = "", second = "", third = ""]: string[], question: Question): Verdict {
  switch (word) {
    case "known":
      return first === question.idempotency?.digest
        ? { kind: "replay", words: { bare: second, enveloped: third } }
        : { kind: "conflict" };
    case "conflict":
      return { kind: "conflict" };
    case "replay":
      return { kind: "replay", words: { bare: first, enveloped: second } };
    case "limited":
      return {
        kind: "limited",
        retryAfterSeconds: Number(second),
        window: first === "policy" ? undefined : question.windows[Number(first) - 1],
      };
    default:
      return first === "" ? { kind: "go" } : { kind: "go", session: { provider: first, kept: second === "1" } };
  }
}

/** S2. */
function keyName(tenant: string, key: string): string {
  return `${BASE}key:${tokenOf(tenant)}:${key}`;
}

/** A script under a name of its own; without a number of keys, that comes first among its arguments. */
export function scriptOf(redis: Redis, name: string, lua: string, numberOfKeys?: number): Script {
  const command = `beamlineRouting${name}`;
  redis.defineCommand(command, { lua, ...(numberOfKeys !== undefined && { numberOfKeys }) });
  const run = (redis as unknown as Readonly<Record<string, Script>>)[command];
  if (run === undefined) throw new Error(`script ${name} was not defined`);
  return run.bind(redis);
}

/** S3: a connection that was lost may have been a Redis that was. */
function doubtAfterLoss(redis: Redis, doubt: Script, onTrouble: (error: unknown) => void): void {
  let lost = false;
  redis.on("close", () => (lost = true));
  redis.on("ready", () => {
    if (lost) doubt(SINCE).catch(onTrouble);
    lost = false;
  });
}
