import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { credentialEnv, loadCredentials } from "./credentials.ts";
import { LocalStackError } from "./failure.ts";
import { findServers, serversDirectory } from "./find.ts";
import { natsGreeting } from "./greeting.nats.ts";
import { libraryPath } from "./installed.ts";
import { lockStore, namedServer, onSomePort, ownServer, portNote } from "./localserver.ts";
import type { LocalOptions, ManagedServer } from "./localserver.ts";
import { namedNats } from "./named.ts";
import { LOOPBACK, freePort, isPortFree } from "./ports.ts";
import { requirements } from "./requirements.ts";
import { endLeftover, startServer } from "./serverprocess.ts";
import { formatVersion } from "./version.ts";

const CLIENT_PORT = 4222;
const MONITOR_PORT = 8222;

/**
 * The NATS server of the local stack: the one `natsUrl` names, or one started here on loopback, with the shipped `nats.conf` and its store in
 * `<data dir>/nats`. Resolves when it answers and JetStream has read its store.
 * Throws LocalStackError when there is no server to start, when the store is in use, and when a named one is too old.
 */
export async function startNats(options: LocalOptions): Promise<ManagedServer> {
  if (options.natsUrl !== undefined) return namedServer("nats", options.natsUrl, await namedNats(options.natsUrl));
  const found = (await findServers(["nats"], options.serversDir ?? serversDirectory(), options.onProgress)).get("nats");
  if (found === undefined) throw new LocalStackError("no nats-server");

  const directory = join(options.dataDir, "nats");
  mkdirSync(directory, { recursive: true, mode: 0o700 }); // Tenants' data: for this user only.
  const lock = lockStore(directory, options.dataDir);
  try {
    const pidFile = join(directory, "server.pid");
    await endLeftover(pidFile);
    const config = join(directory, "nats.conf");
    writeFileSync(config, localConfig(shippedConfig(), options.syncInterval ?? "always"));
    const preferred = options.ports === "free" ? undefined : CLIENT_PORT;
    const passwords = Object.entries(credentialEnv(loadCredentials(options.dataDir)));

    const startOn = async (port: number) => {
      const monitorPort = preferred !== undefined && (await isPortFree(MONITOR_PORT)) ? MONITOR_PORT : await freePort();
      const serverName = `beamline-${randomUUID()}`; // Tells ours from another one that was quicker on the same port.
      const args = [
        "-c",
        config,
        "-a",
        LOOPBACK,
        "-p",
        `${port}`,
        "-m",
        `${monitorPort}`,
        "-sd",
        directory,
        "-n",
        serverName,
      ];
      const command = {
        name: requirements.nats.binary,
        binary: found.binary,
        args,
        // In quotes, so that the server takes them for text whatever they look like.
        env: {
          ...libraryPath(found.libraries),
          ...Object.fromEntries(passwords.map(([name, word]) => [name, JSON.stringify(word)])),
        },
        logFile: join(options.dataDir, "logs", "nats.log"),
        pidFile,
      };
      const launch = () =>
        startServer(command, async () => {
          const greeting = await natsGreeting(LOOPBACK, port);
          if (greeting.serverName !== serverName) throw new Error(`another server answers on port ${port}`);
          if (!greeting.jetstream) throw new Error("JetStream is not enabled");
          return true;
        });
      return { process: await launch(), launch, monitorPort };
    };

    const [{ process, launch, monitorPort }, port] = await onSomePort(preferred, startOn);
    const facts = {
      name: "nats",
      url: `nats://${LOOPBACK}:${port}`,
      version: formatVersion(found.version),
      port,
      monitorUrl: `http://${LOOPBACK}:${monitorPort}`,
      ...portNote(preferred, port),
      launch,
    } as const;
    return ownServer(facts, process, lock, options.onExit);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** The `nats.conf` every deployment runs. */
export function shippedConfig(): string {
  return readFileSync(new URL("../../nats.conf", import.meta.url), "utf8");
}

/**
 * The shipped configuration as the local stack runs it: clients without credentials are `publisher` (existing ones send none, and this server
 * listens on loopback only), and tests may relax `sync_interval`.
 */
export function localConfig(shipped: string, syncInterval: string): string {
  const setting = /^(\s*sync_interval:\s*)always\b/m;
  if (!setting.test(shipped)) throw new LocalStackError("nats.conf does not set sync_interval: always");
  if (!/^(always|\d+(ms|s|m|h))$/.test(syncInterval)) throw new LocalStackError(`not a sync interval: ${syncInterval}`);
  return (
    `# Written at every start from the nats.conf at the top of the repository: change that one.\n` +
    `${shipped.replace(setting, `$1${syncInterval}`)}\n` +
    `# Local stack only: existing clients send no credentials.\n` +
    `no_auth_user: publisher\n`
  );
}
