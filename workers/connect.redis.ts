/** The connection to Redis, the same for every worker. Redis holds hot state only: what it loses is rebuilt from the log. */
import { Redis } from "ioredis";
import { BeamlineError } from "../contracts/errors.ts";
import { writeOncePerTick } from "./onewrite.redis.ts";

export interface HotState {
  readonly redis: Redis;
  /** Whether it answers. */
  ping(): Promise<boolean>;
  close(): Promise<void>;
}

/**
 * Connects. While Redis is away commands fail at once instead of queueing, and it reconnects by itself.
 * Throws `unavailable` when it cannot be reached at start. A command without an answer fails after `commandTimeoutMs` (default 5000); a
 * connection on which nothing is answered for twice as long is made anew.
 */
export async function connectRedis(url: string, name: string, commandTimeoutMs = 5_000): Promise<HotState> {
  const redis = new Redis(url, {
    lazyConnect: true,
    connectionName: `beamline-${name}`,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: commandTimeoutMs,
    // Or a server whose host is gone would be waited for until TCP gives up, a quarter of an hour.
    socketTimeout: 2 * commandTimeoutMs,
    retryStrategy: (attempt) => Math.min(1_000, 50 * attempt),
    // Auto-pipelining halves Lua throughput; commands of one tick leave in one write without it, too.
    enableAutoPipelining: false,
  });
  writeOncePerTick(redis);
  redis.on("error", () => undefined); // each command reports its own failure, readiness the state
  try {
    await redis.connect();
  } catch (cause) {
    redis.disconnect();
    throw new BeamlineError("unavailable", `cannot connect to Redis at ${withoutPassword(url)}`, { cause });
  }
  return {
    redis,
    async ping() {
      return redis.status === "ready" && (await redis.ping()) === "PONG";
    },
    async close() {
      await redis.quit().catch(() => redis.disconnect());
    },
  };
}

/** Runs Redis commands; what the client throws becomes `unavailable`, an error of ours passes. */
export async function hot<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    if (cause instanceof BeamlineError) throw cause;
    throw new BeamlineError("unavailable", "hot state (Redis) cannot be reached", { cause });
  }
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, "//");
}
