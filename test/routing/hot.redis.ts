import { Redis } from "ioredis";

/** How many keys of Redis match a pattern. */
export async function countKeys(url: string, pattern: string): Promise<number> {
  const redis = new Redis(url);
  const keys = await redis.keys(pattern);
  redis.disconnect();
  return keys.length;
}
