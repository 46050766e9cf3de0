/** Answers already given, by the caller's idempotency key: asking again neither asks the provider nor costs anything. */
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

/** Fails open: without hot state a question is simply asked. */
export function redisReplies(redis: Redis): Replies {
  const keyOf = (tenant: string, key: string): string => `beamline:inference:${tokenOf(tenant)}:reply:${key}`;
  return {
    find: async (tenant, key) => (await redis.get(keyOf(tenant, key)).catch(() => null)) ?? undefined,
    async keep(tenant, key, reply) {
      if (reply.length <= LARGEST) await redis.set(keyOf(tenant, key), reply, "PX", KEPT_MS).catch(() => undefined);
    },
  };
}
