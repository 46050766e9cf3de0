/** Three NATS servers of one cluster, as `nats.conf` ships them, on free ports of loopback. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { credentialEnv, loadCredentials } from "../../deploy/local/credentials.ts";
import { findServers, serversDirectory } from "../../deploy/local/find.ts";
import { natsGreeting } from "../../deploy/local/greeting.nats.ts";
import { libraryPath } from "../../deploy/local/installed.ts";
import { localConfig, shippedConfig } from "../../deploy/local/nats.ts";
import { freePort, LOOPBACK } from "../../deploy/local/ports.ts";
import { startServer, type ServerProcess } from "../../deploy/local/serverprocess.ts";
import { until } from "./until.ts";

const SIZE = 3;

export interface Node {
  /** Its name in the cluster, as streams name their leader. */
  readonly name: string;
  kill(): Promise<void>;
  /** Starts it again on its port and store. */
  start(): Promise<void>;
}

export interface Cluster extends AsyncDisposable {
  /** All servers, with commas. */
  readonly url: string;
  readonly nodes: readonly Node[];
}

/** Starts them with the credentials of a data directory, and waits until one of them leads. */
export async function startCluster(dataDir: string): Promise<Cluster> {
  const found = (await findServers(["nats"], serversDirectory())).get("nats");
  if (found === undefined) throw new Error("no nats-server");
  const passwords = Object.entries(credentialEnv(loadCredentials(dataDir)));
  const ports: { readonly client: number; readonly route: number; readonly monitor: number }[] = [];
  for (let i = 0; i < SIZE; i++)
    ports.push({ client: await freePort(), route: await freePort(), monitor: await freePort() });
  const routes = ports.map(({ route }) => `nats://${LOOPBACK}:${route}`);

  const nodes = ports.map(({ client, route, monitor }, i) => {
    const name = `n${i + 1}`;
    const directory = join(dataDir, name);
    mkdirSync(directory, { recursive: true });
    const config = join(directory, "nats.conf");
    writeFileSync(config, localConfig(shippedConfig(), "always"));
    const own = ["-c", config, "-sd", directory, "-n", name, "-a", LOOPBACK, "-p", `${client}`, "-m", `${monitor}`];
    const cluster = ["--cluster_name", "beamline", "--cluster", routes[i] ?? "", "--routes", routes.join(",")];
    let running: ServerProcess | undefined;
    return {
      name,
      monitor: `http://${LOOPBACK}:${monitor}`,
      route,
      async start() {
        const command = {
          name,
          binary: found.binary,
          args: [...own, ...cluster],
          env: {
            ...libraryPath(found.libraries),
            ...Object.fromEntries(passwords.map(([variable, word]) => [variable, JSON.stringify(word)])),
          },
          logFile: join(dataDir, "logs", `${name}.log`),
          pidFile: join(directory, "server.pid"),
        };
        running = await startServer(command, async () => (await natsGreeting(LOOPBACK, client)).serverName === name);
      },
      async kill() {
        await running?.kill();
        running = undefined;
      },
    };
  });
  const stop = async (): Promise<void> => void (await Promise.all(nodes.map((node) => node.kill())));
  try {
    await Promise.all(nodes.map((node) => node.start()));
    const [first] = nodes;
    await until(
      async () => {
        const state = (await (await fetch(`${first?.monitor}/jsz`)).json()) as {
          meta_cluster?: { leader?: string; cluster_size?: number };
        };
        return state.meta_cluster?.leader !== undefined && state.meta_cluster.cluster_size === SIZE;
      },
      "a leader of the cluster",
      60_000,
    );
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return {
    url: ports.map(({ client }) => `nats://${LOOPBACK}:${client}`).join(","),
    nodes,
    [Symbol.asyncDispose]: stop,
  };
}
