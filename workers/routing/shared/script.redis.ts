/** Scripts on a connection to Redis. */
import type { Redis } from "ioredis";

export type Script = (...args: (string | number)[]) => Promise<unknown>;

/** A script under a name of its own; sent once, then called by its digest. It names its keys in its arguments. */
export function scriptOf(redis: Redis, name: string, lua: string): Script {
  const command = `beamlineRouting${name}`;
  redis.defineCommand(command, { lua, numberOfKeys: 0 });
  const run = (redis as unknown as Readonly<Record<string, Script>>)[command];
  if (run === undefined) throw new Error(`script ${name} was not defined`);
  return run.bind(redis);
}
