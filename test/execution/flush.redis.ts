import { Redis } from "ioredis";

/** Makes Redis forget everything. */
export async function flushRedis(url: string): Promise<void> {
  const redis = new Redis(url);
  await redis.flushall();
  redis.disconnect();
}
