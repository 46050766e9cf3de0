/** A whole system for a test: its own servers on free ports, the edge and the named workers, in this process or as processes of their own. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Caller } from "../../bus/call.ts";
import { Bus } from "../../bus/connect.ts";
import { freePort } from "../../deploy/local/ports.ts";
import { startServers, type LocalServers, type NatsUser } from "../../deploy/local/servers.ts";
import { openEdge } from "../../edge/edge.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { openWorkers } from "../../workers/main.ts";
import { startCluster, type Node } from "./cluster.ts";
import { until } from "./until.ts";

export const ADMIN_KEY = "test-admin-key";

export interface WorldOptions {
  readonly workers?: readonly string[];
  /** Each worker and the edge in a process of its own, so that they can be killed. Default: all in this one. */
  readonly processes?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  /** Three NATS servers of one cluster instead of one server. */
  readonly cluster?: boolean;
  /** As shipped (`always`) where durability is the subject; faster otherwise. */
  readonly syncInterval?: string;
}

export interface World extends AsyncDisposable {
  readonly servers: LocalServers;
  /** The servers of the cluster, if it is one. */
  readonly nodes: readonly Node[];
  /** `host:port` of the edge. */
  readonly grpc: string;
  readonly http: string;
  /** A connection of the operator, for looking at anything. */
  readonly bus: Bus;
  /** Calls as an outside NATS client makes them. */
  readonly caller: Caller;
  connect(user: NatsUser, name?: string): Promise<Bus>;
  /** Starts a worker, in a process of its own when the world is made of processes. */
  startWorker(name: string, env?: Readonly<Record<string, string>>): Promise<Running>;
  readonly edge: Running;
  /** Another edge on the same bus; its gRPC address. */
  startEdge(): Promise<string>;
}

export interface Running {
  readonly name: string;
  readonly pid: number | undefined;
  /** SIGKILL; only where it is a process. */
  kill(): Promise<void>;
  /** SIGTERM, or the scope's own close: drains. */
  stop(): Promise<void>;
}

/** Starts it and waits until the edge says that everything it was told to expect is there. */
export async function startWorld(options: WorldOptions = {}): Promise<World> {
  const { workers = [], processes = false } = options;
  const dataDir = await mkdtemp(join(tmpdir(), "beamline-world-"));
  const cluster = options.cluster === true ? await startCluster(dataDir) : undefined;
  const servers = await startServers({
    dataDir,
    ports: "free",
    ...(cluster !== undefined && { natsUrl: cluster.url }),
    ...(options.syncInterval !== undefined && { syncInterval: options.syncInterval }),
  });
  const running: Running[] = [];
  const connections: Bus[] = [];

  const environment = (
    user: "edge" | "worker",
    extra: Readonly<Record<string, string>> = {},
  ): Record<string, string> => ({
    BEAMLINE_LOG_LEVEL: "silent",
    BEAMLINE_DATA_DIR: dataDir,
    BEAMLINE_DRAIN_MS: "5000",
    BEAMLINE_ROUTER_ADMIN_API_KEY: ADMIN_KEY,

    ...servers.env,
    NATS_USER: user,
    NATS_PASSWORD: servers.credentials[user].password,
    NATS_INBOX_PREFIX: servers.credentials[user].inboxPrefix,
    ...options.env,
    ...extra,
  });
  const start = async (
    name: string,
    args: readonly string[],
    env: Record<string, string>,
    open: (scope: Scope) => Promise<unknown>,
  ): Promise<Running> => {
    const one = processes ? asProcess(name, args, env) : await asScope(name, open);
    running.push(one);
    return one;
  };
  const startWorker = (name: string, extra?: Readonly<Record<string, string>>): Promise<Running> => {
    const env = environment("worker", extra);
    return start(name, ["worker", name], env, (scope) => openWorkers(scope, [name], env));
  };
  const stop = async (): Promise<void> => {
    await Promise.all(connections.map((bus) => bus.close()));
    await Promise.all(running.map((one) => one.stop()));
    await servers.stop();
    await cluster?.[Symbol.asyncDispose]();
    await rm(dataDir, { recursive: true, force: true });
  };
  try {
    const grpc = `127.0.0.1:${await freePort()}`;
    const http = `127.0.0.1:${await freePort()}`;
    await Promise.all(workers.map((name) => startWorker(name)));
    const edgeAt = (grpcAddress: string, httpAddress: string): Promise<Running> => {
      const env = environment("edge", {
        BEAMLINE_GRPC_ADDR: grpcAddress,
        BEAMLINE_HTTP_ADDR: httpAddress,
        BEAMLINE_EXPECT_WORKERS: workers.join(","),
      });
      return start("edge", ["edge"], env, async (scope) => {
        await openEdge(scope, env);
      });
    };
    const isReady = (address: string): Promise<boolean> =>
      until(async () => (await fetch(`http://${address}/readyz`)).ok, "the edge to be ready", 30_000);
    const edge = await edgeAt(grpc, http);
    const startEdge = async (): Promise<string> => {
      const [address, probes] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
      await edgeAt(address, probes);
      await isReady(probes);
      return address;
    };
    const connect = async (user: NatsUser, name = "test"): Promise<Bus> => {
      const bus = await Bus.connect({ url: servers.nats.url, name, ...servers.credentials[user] });
      connections.push(bus);
      return bus;
    };
    const bus = await connect("operator");
    const caller = new Caller(await connect("publisher"));
    await isReady(http);
    const nodes = cluster?.nodes ?? [];
    return {
      servers,
      nodes,
      grpc,
      http,
      bus,
      caller,
      connect,
      startWorker,
      edge,
      startEdge,
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function asScope(name: string, open: (scope: Scope) => Promise<unknown>): Promise<Running> {
  const scope = new Scope();
  await open(scope);
  scope.ready();
  return {
    name,
    pid: undefined,
    kill: () => Promise.reject(new Error(`${name} is not a process of its own`)),
    stop: async () => void (await scope.close()),
  };
}

function asProcess(name: string, args: readonly string[], env: Record<string, string>): Running {
  const cli = fileURLToPath(new URL("../../cli/beamline.ts", import.meta.url));
  const output = env["BEAMLINE_LOG_LEVEL"] === "silent" ? "ignore" : "inherit";
  const child: ChildProcess = spawn(process.execPath, [cli, ...args], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", output, output, "ipc"],
  });
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await gone;
  };
  return {
    name,
    pid: child.pid,
    kill: () => end("SIGKILL"),
    stop: () => (child.exitCode === null && child.signalCode === null ? end("SIGTERM") : gone),
  };
}
