import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { LocalStackError } from "./failure.ts";
import { findServers, serversDirectory } from "./find.ts";
import { redisGreeting } from "./greeting.redis.ts";
import { libraryPath } from "./installed.ts";
import { lockStore, namedServer, onSomePort, ownServer, portNote } from "./localserver.ts";
import type { LocalOptions, ManagedServer } from "./localserver.ts";
import { namedRedis } from "./named.ts";
import { LOOPBACK } from "./ports.ts";
import { requirements } from "./requirements.ts";
import { endLeftover, startServer } from "./serverprocess.ts";
import { formatVersion } from "./version.ts";

const CLIENT_PORT = 6379;

/**
 * The Redis server of the local stack: the one `redisUrl` names, or one started here on loopback with its files in `<data dir>/redis`.
 * Resolves when it has read them and answers. Throws like {@link startNats}.
 */
export async function startRedis(options: LocalOptions): Promise<ManagedServer> {
  if (options.redisUrl !== undefined) return namedServer("redis", options.redisUrl, await namedRedis(options.redisUrl));
  const found = (await findServers(["redis"], options.serversDir ?? serversDirectory(), options.onProgress)).get(
    "redis",
  );
  if (found === undefined) throw new LocalStackError("no redis-server");

  const directory = join(options.dataDir, "redis");
  mkdirSync(directory, { recursive: true, mode: 0o700 }); // Tenants' data: for this user only.
  const lock = lockStore(directory, options.dataDir);
  try {
    const pidFile = join(directory, "server.pid");
    await endLeftover(pidFile);
    const preferred = options.ports === "free" ? undefined : CLIENT_PORT;
    const startOn = async (port: number) => {
      const command = {
        name: requirements.redis.binary,
        binary: found.binary,
        args: settings(port, directory),
        env: libraryPath(found.libraries),
        logFile: join(options.dataDir, "logs", "redis.log"),
        pidFile,
      };
      const launch = () =>
        startServer(command, async (pid) => {
          const greeting = await redisGreeting(`redis://${LOOPBACK}:${port}`);
          if (greeting.pid !== pid) throw new Error(`another server answers on port ${port}`);
          if (greeting.loading) throw new Error("still reading its files");
          return true;
        });
      return { process: await launch(), launch };
    };

    const [{ process, launch }, port] = await onSomePort(preferred, startOn);
    const facts = {
      name: "redis",
      url: `redis://${LOOPBACK}:${port}`,
      version: formatVersion(found.version),
      port,
      ...portNote(preferred, port),
      launch,
    } as const;
    return ownServer(facts, process, lock, options.onExit);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/**
 * No configuration file: these are all the settings. Redis holds projections of what JetStream keeps, so losing the last second of its
 * append-only file in a crash costs nothing but catching up, and an fsync per write would buy nothing.
 */
function settings(port: number, directory: string): string[] {
  return Object.entries({
    bind: LOOPBACK,
    port: String(port),
    dir: directory,
    appendonly: "yes",
    appendfsync: "everysec",
    save: "", // The append-only file is enough.
    "maxmemory-policy": "noeviction", // Nothing may vanish from a projection unnoticed.
    daemonize: "no",
    "protected-mode": "yes",
  }).flatMap(([name, value]) => [`--${name}`, value]);
}
