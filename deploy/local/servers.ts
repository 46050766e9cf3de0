import { credentialEnv, loadCredentials } from "./credentials.ts";
import type { NatsCredentials } from "./credentials.ts";
import { findServers, serversDirectory } from "./find.ts";
import type { LocalOptions, ManagedServer } from "./localserver.ts";
import { startNats } from "./nats.ts";
import { startRedis } from "./redis.ts";

export type { NatsCredential, NatsCredentials, NatsUser } from "./credentials.ts";
export { LocalStackError } from "./failure.ts";
export type { LocalOptions, LocalServer, ManagedServer } from "./localserver.ts";
export { startNats } from "./nats.ts";
export { startRedis } from "./redis.ts";

/** Both servers, ready to be used. */
export interface LocalServers extends AsyncDisposable {
  readonly nats: ManagedServer;
  readonly redis: ManagedServer;
  /** How to log in to NATS when it is ours. */
  readonly credentials: NatsCredentials;
  /** What a process needs to find them: `NATS_URL`, `REDIS_URL`, and for a NATS of ours the passwords and `BEAMLINE_NATS_MONITOR_URL`. */
  readonly env: Record<string, string>;
  /** Stops what was started here, both at once. Resolves when no process is left. May be called again. */
  stop(): Promise<void>;
}

/**
 * Finds or fetches both servers, starts those no URL names, and waits until they answer.
 * Throws LocalStackError, and leaves nothing running, when either cannot be used.
 */
export async function startServers(options: LocalOptions): Promise<LocalServers> {
  const needed = [
    ...(options.natsUrl === undefined ? ["nats" as const] : []),
    ...(options.redisUrl === undefined ? ["redis" as const] : []),
  ];
  // Both in one go: whatever is fetched shares one look at the package lists.
  await findServers(needed, options.serversDir ?? serversDirectory(), options.onProgress);
  const [nats, redis] = await bothOrNone(startNats(options), startRedis(options));
  const credentials = loadCredentials(options.dataDir);
  const stop = async () => {
    await Promise.all([nats.stop(), redis.stop()]);
  };
  return {
    nats,
    redis,
    credentials,
    env: {
      NATS_URL: nats.url,
      REDIS_URL: redis.url,
      ...(nats.started ? credentialEnv(credentials) : {}),
      ...(nats.monitorUrl === undefined ? {} : { BEAMLINE_NATS_MONITOR_URL: nats.monitorUrl }),
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

async function bothOrNone(
  nats: Promise<ManagedServer>,
  redis: Promise<ManagedServer>,
): Promise<[ManagedServer, ManagedServer]> {
  const outcomes = await Promise.allSettled([nats, redis]);
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed === undefined) return [await nats, await redis];
  await Promise.all(outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value.stop()] : [])));
  throw failed.reason;
}
