/** Servers, edge and workers for a benchmark, each a process of its own, started as `npm start` starts them. */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bus } from "../../bus/connect.ts";
import { Child } from "../../cli/child.ts";
import { startServers, type LocalServers, type NatsUser } from "../../deploy/local/servers.ts";
import { sha256 } from "../../edge/auth.ts";
import { until } from "../../test/kit/until.ts";
import type { Stack, StackOptions } from "../case.ts";
import { checkFlags } from "./flags.ts";
import { plainEnv } from "./processes.ts";

const STOP_WITHIN_MS = 5_000;
const READY_WITHIN_MS = 60_000;

type Defer = (close: () => unknown) => void;

/** Servers on free ports, with their data in a temporary folder that goes with them. */
export async function openServers(defer: Defer, syncInterval = "always"): Promise<LocalServers & { dataDir: string }> {
  const dataDir = await mkdtemp(join(tmpdir(), "beamline-bench-"));
  defer(() => rm(dataDir, { recursive: true, force: true }));
  const servers = await startServers({ dataDir, ports: "free", syncInterval });
  defer(() => servers.stop());
  return { ...servers, dataDir };
}

/** Environment with which a process finds servers of ours and logs in. */
export function loginOf(servers: LocalServers, user: NatsUser): Record<string, string> {
  const { password, inboxPrefix } = servers.credentials[user];
  return { ...servers.env, NATS_USER: user, NATS_PASSWORD: password, NATS_INBOX_PREFIX: inboxPrefix };
}

/** A connection of this process. */
export async function connectTo(servers: LocalServers, user: NatsUser, defer: Defer): Promise<Bus> {
  const bus = await Bus.connect({ url: servers.nats.url, name: "bench", ...servers.credentials[user] });
  defer(() => bus.close());
  return bus;
}

/** Starts all of it; resolves when the edge is ready. Throws the end of a process's log when it gives up. */
export async function openStack(defer: Defer, options: StackOptions): Promise<Stack> {
  const servers = await openServers(defer, options.syncInterval);
  const { dataDir } = servers;
  const logs = join(dataDir, "logs");
  mkdirSync(logs, { recursive: true });
  const key = `bench-${randomBytes(18).toString("base64url")}`;
  const keys = join(dataDir, "keys.json");
  writeFileSync(keys, JSON.stringify([{ id: "bench", sha256: sha256(key), tenant: "default", scopes: ["*"] }]));
  const common = {
    ...plainEnv(),
    BEAMLINE_DATA_DIR: dataDir,
    BEAMLINE_ROUTER_ADMIN_API_KEY: key,
    BEAMLINE_ROUTER_SEED_DEFAULT: "true",
    ...options.env,
  };
  let failed: string | undefined;
  const start = (
    name: string,
    args: string[],
    env: Record<string, string>,
    onMessage?: (m: unknown) => void,
  ): Child => {
    const logFile = join(logs, `${name}.log`);
    const child = new Child({
      args,
      env: { ...common, ...env },
      logFile,
      onExit: (how) => (failed = `${name} ended (${how}): ${tail(logFile)}`),
      ...(onMessage !== undefined && { onMessage }),
    });
    defer(() => child.stop(STOP_WITHIN_MS));
    return child;
  };
  const workerEnv = { ...loginOf(servers, "worker"), ...options.workerEnv };
  const groups = options.each === true ? options.workers.map((name) => [name]) : [options.workers];
  const workers = groups.map((names) => start(`worker-${names.join("-")}`, ["worker", ...names], workerEnv));
  let ports: { grpc: number; http: number } | undefined;
  const edgeEnv = {
    ...loginOf(servers, "edge"),
    BEAMLINE_GRPC_ADDR: "127.0.0.1:0",
    BEAMLINE_HTTP_ADDR: "127.0.0.1:0",
    BEAMLINE_API_KEYS_FILE: keys,
    BEAMLINE_EXPECT_WORKERS: options.workers.join(","),
    ...options.edgeEnv,
  };
  const edge = start("edge", ["edge"], edgeEnv, (message) => (ports = message as typeof ports));
  let last = "";
  const ready = async (): Promise<boolean> => {
    if (failed !== undefined) return true;
    if (ports === undefined) return false;
    const response = await fetch(`http://127.0.0.1:${ports.http}/readyz`);
    last = await response.text();
    return response.ok;
  };
  await until(ready, "the stack", READY_WITHIN_MS).catch((thrown: unknown) => {
    throw new Error(`${String(thrown)}: ${last} ${tail(join(logs, `worker-${options.workers.join("-")}.log`))}`);
  });
  if (failed !== undefined || ports === undefined) throw new Error(failed ?? "no ports");
  if (edge.pid !== undefined) checkFlags(edge.pid);
  const running = (child: Child | undefined): number => {
    if (child?.pid === undefined) throw new Error(failed ?? "a process of the stack is gone");
    return child.pid;
  };
  return {
    servers,
    grpc: `127.0.0.1:${ports.grpc}`,
    http: `http://127.0.0.1:${ports.http}`,
    key,
    get processes() {
      if (failed !== undefined) throw new Error(failed);
      const { nats, redis } = servers;
      return { edge: running(edge), workers: running(workers[0]), nats: nats.pid ?? 0, redis: redis.pid ?? 0 };
    },
    login: (user) => loginOf(servers, user),
    connect: (user = "operator") => connectTo(servers, user, defer),
  };
}

function tail(file: string): string {
  return readFileSync(file, "utf8").split("\n").slice(-12).join("\n");
}
