/** One Redis read of twenty events with the client library: what GetRecentEvents is compared with. */
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { servePeer, setting } from "../kit/peer.ts";
import { connectRedis } from "../../workers/connect.redis.ts";

export interface ReadLoad {
  /** Events of this many bytes each are read, twenty at a time, from a list. */
  readonly bytes: number;
  readonly inFlight: number;
  readonly count: number;
}

const { redis } = await connectRedis(setting("REDIS_URL"), "bench-read");

servePeer({}, async ({ bytes, inFlight, count }: ReadLoad): Promise<Load> => {
  const key = `bench:events:${bytes}`;
  if ((await redis.llen(key)) === 0)
    await redis.lpush(key, ...Array.from({ length: 1_000 }, (_, n) => `${n}`.padEnd(bytes, "x")));
  return runLoad(
    count,
    inFlight,
    awaited(() => redis.lrange(key, 0, 19)),
  );
});
