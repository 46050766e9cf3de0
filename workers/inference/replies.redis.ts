/**
 * Answers already given, by the caller's idempotency key: asking again neither asks the provider nor costs anything.
 *
 * R1 Hot state that is away makes nobody pay twice: what it could not keep the worker that asked knows, as long as there is room.
 * R2 It fails open: what nobody knows is simply asked.
 */
import type { Redis } from "ioredis";
import { tokenOf } from "../../bus/keys.ts";

export interface Replies {
  /** The reply that was kept, undefined when there is none. */
  find(tenant: string, key: string): Promise<string | undefined>;
  keep(tenant: string, key: string, reply: string): Promise<void>;
}

/** As long as the contract remembers keys (BeamLine, idempotency), milliseconds. */
const KEPT_MS = 60 * 60 * 1000;
const LARGEST = 1024 * 1024;
/** R1: characters of all of them. */
const ROOM = 16 * 1024 * 1024;

/** @param now epoch milliseconds */
export function redisReplies(redis: Redis, now: () => number): Replies {
  const keyOf = (tenant: string, key: string): string => `beamline:inference:${tokenOf(tenant)}:reply:${key}`;
  const own = new Map<string, { readonly reply: string; readonly until: number }>();
  let taken = 0;
  const forget = (name: string): void => {
    taken -= own.get(name)?.reply.length ?? 0;
    own.delete(name);
  };
  const remember = (name: string, reply: string): void => {
    forget(name);
    own.set(name, { reply, until: now() + KEPT_MS });
    taken += reply.length;
    for (const [oldest, { until }] of own) {
      if (taken <= ROOM && until > now()) break;
      forget(oldest);
    }
  };
  return {
    async find(tenant, key) {
      const name = keyOf(tenant, key);
      const kept = own.get(name);
      if (kept !== undefined && kept.until > now()) return kept.reply;
      return (await redis.get(name).catch(() => null)) ?? undefined;
    },
    async keep(tenant, key, reply) {
      if (reply.length > LARGEST) return;
      const name = keyOf(tenant, key);
      await redis.set(name, reply, "PX", KEPT_MS).catch(() => remember(name, reply));
    },
  };
}
