/**
 * The words of decisions, kept once in Redis however many keys and message ids mean them: most decisions of a policy say the same.
 *
 * A worker writes words it has not written lately together with the first thing that means them. Should they be missing all the same - Redis was
 * flushed, and the worker does not know yet - whoever finds that takes it for what it is, a loss (shared.redis.ts, S3).
 */
import { createHash } from "node:crypto";
import type { Words } from "../choice/decision.ts";
import { Recent } from "./recent.ts";
import { BASE, KEY_TTL_MS } from "./shared.lua.ts";

export const WORDS = `${BASE}words:`;
/** Longer than anything that means them, by as much as a worker may go without writing them anew. */
const TTL_MS = 2 * KEY_TTL_MS;
const ANEW_MS = KEY_TTL_MS / 2;
/** Words known to be written at least. */
const KNOWN = 10_000;

export class WordBook {
  readonly #now: () => number;
  readonly #refs = new WeakMap<Words, string>();
  #written = new Recent<number>(KNOWN);

  /** @param now epoch milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** The name of words; puts name, value and TTL into `args` when they have to be written. */
  refOf(words: Words, args: (string | number)[]): string {
    let ref = this.#refs.get(words);
    if (ref === undefined) this.#refs.set(words, (ref = digestOf(words)));
    const now = this.#now();
    if ((this.#written.get(ref) ?? 0) + ANEW_MS < now) {
      this.#written.set(ref, now);
      args.push(WORDS + ref, textOf(words), TTL_MS);
    }
    return ref;
  }

  /** Nothing counts as written any more. */
  forget(): void {
    this.#written = new Recent(KNOWN);
  }
}

/** As it is stored: the bare decision, and what the envelope's has beyond it. */
export function textOf({ bare, enveloped }: Words): string {
  return `${bare}\n${enveloped.slice(bare.length - 1)}`;
}

export function wordsIn(text: string): Words {
  const end = text.indexOf("\n");
  const bare = text.slice(0, end);
  return { bare, enveloped: bare.slice(0, -1) + text.slice(end + 1) };
}

function digestOf(words: Words): string {
  return createHash("sha256").update(textOf(words)).digest("base64url").slice(0, 22);
}
