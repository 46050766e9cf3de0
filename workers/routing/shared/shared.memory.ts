/**
 * Shared state of a single worker, in its memory: sessions, idempotency, limits. Right for one worker and for tests; several workers need a
 * shared adapter. Everything has an end: what is past its time is dropped when it is met or when the store is full.
 */
import type { Words } from "../choice/decision.ts";
import type { Question, SessionQuestion, SharedState, Verdict } from "../ports.ts";
import { Recent } from "./recent.ts";

/** How long a key is remembered (BeamLine, idempotency). */
export const IDEMPOTENCY_TTL_MS = 3_600_000;

interface Session {
  readonly provider: string;
  readonly endsAt: number;
}

interface Known {
  readonly digest: string;
  readonly endsAt: number;
  /** What was decided, once it is. */
  words: Words | undefined;
  /** Repetitions that arrived while the first was under way. */
  readonly waiting: ((verdict: Verdict | undefined) => void)[];
}

interface Bucket {
  tokens: number;
  /** Second up to which it was refilled. */
  second: number;
}

export class MemoryState implements SharedState {
  readonly #now: () => number;
  readonly #sessions: Recent<Session>;
  readonly #keys: Recent<Known>;
  readonly #buckets: Recent<Bucket>;
  readonly #windows: Recent<{ number: number; used: number }>;

  /** @param limit entries of each kind kept at least */
  constructor(now: () => number, limit = 100_000) {
    this.#now = now;
    this.#sessions = new Recent(limit);
    this.#keys = new Recent(limit);
    this.#buckets = new Recent(limit);
    this.#windows = new Recent(limit);
  }

  settle(question: Question): Verdict | Promise<Verdict> {
    const { tenant, idempotency } = question;
    if (idempotency === undefined) return this.#beyondKey(question);
    const name = scoped(tenant, idempotency.key);
    const known = this.#keys.get(name);
    if (known !== undefined && known.endsAt > this.#now()) {
      if (known.digest !== idempotency.digest) return { kind: "conflict" };
      if (known.words !== undefined) return { kind: "replay", words: known.words };
      return new Promise((resolve) => known.waiting.push((verdict) => resolve(verdict ?? this.settle(question))));
    }
    const verdict = this.#beyondKey(question);
    if (verdict.kind === "go") {
      this.#keys.set(name, {
        digest: idempotency.digest,
        endsAt: this.#now() + IDEMPOTENCY_TTL_MS,
        words: undefined,
        waiting: [],
      });
    }
    return verdict;
  }

  remember(tenant: string, key: string, _digest: string, words: Words): void {
    const known = this.#keys.get(scoped(tenant, key));
    if (known === undefined) return;
    known.words = words;
    for (const resolve of known.waiting.splice(0)) resolve({ kind: "replay", words });
  }

  forget(tenant: string, key: string): void {
    const name = scoped(tenant, key);
    const known = this.#keys.get(name);
    this.#keys.delete(name);
    for (const resolve of known?.waiting.splice(0) ?? []) resolve(undefined);
  }

  #beyondKey({ tenant, policyId, limit, session, windows }: Question): Verdict {
    const second = Math.floor(this.#now() / 1_000);
    const used = windows.map(({ seconds }) => this.#window(scoped(tenant, String(seconds)), second, seconds));
    for (const [at, window] of windows.entries()) {
      if ((used[at]?.used ?? 0) < window.max) continue;
      return { kind: "limited", retryAfterSeconds: window.seconds - (second % window.seconds), window };
    }
    if (limit !== undefined) {
      const wait = this.#take(scoped(tenant, policyId), limit.perSecond, limit.burst);
      if (wait > 0) return { kind: "limited", retryAfterSeconds: wait };
    }
    for (const one of used) one.used++;
    return { kind: "go", session: session && this.#session(tenant, session) };
  }

  #window(name: string, second: number, seconds: number): { number: number; used: number } {
    const number = Math.floor(second / seconds);
    let window = this.#windows.get(name);
    if (window?.number !== number) this.#windows.set(name, (window = { number, used: 0 }));
    return window;
  }

  /** A token bucket refilled in whole seconds (BeamLine, rate limits). Seconds to wait, 0 when a token was taken. */
  #take(name: string, perSecond: number, burst: number): number {
    const second = Math.floor(this.#now() / 1_000);
    let bucket = this.#buckets.get(name);
    if (bucket === undefined) this.#buckets.set(name, (bucket = { tokens: burst, second }));
    bucket.tokens = Math.min(burst, bucket.tokens + Math.max(0, second - bucket.second) * perSecond);
    bucket.second = second;
    if (bucket.tokens < 1) return 1;
    bucket.tokens--;
    return 0;
  }

  #session(
    tenant: string,
    { value, ttlMs, offer, allowed }: SessionQuestion,
  ): { provider: string; kept: boolean } | undefined {
    const name = scoped(tenant, value);
    const now = this.#now();
    const found = this.#sessions.get(name);
    const kept = found !== undefined && found.endsAt > now && allowed.includes(found.provider);
    const provider = kept ? found.provider : offer;
    if (provider === undefined) return undefined;
    this.#sessions.set(name, { provider, endsAt: now + ttlMs });
    return { provider, kept };
  }
}

function scoped(tenant: string, key: string): string {
  return `${tenant}\u0000${key}`;
}
