/** `beamline up`, which is `npm start`: servers, edge and all workers on this machine, stopped together. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { freePort, isPortFree } from "../deploy/local/ports.ts";
import { startServers, type LocalServers } from "../deploy/local/servers.ts";
import { sha256, type StoredKey } from "../edge/auth.ts";
import { checkEdge } from "../edge/edge.ts";
import { TEST_KEY_PREFIX, TEST_SCOPE } from "../contracts/openwop/testkeys.ts";
import { loadConfig } from "../runtime/config.ts";
import type { Scope } from "../runtime/lifecycle.ts";
import { createLogger } from "../runtime/log.ts";
import { run } from "../runtime/run.ts";
import { formatAddress, type Address } from "../runtime/setting.ts";
import { edgeSettings, processSettings, stackSettings } from "../runtime/settings.ts";
import { workerNames } from "../workers/modules.ts";
import { Child } from "./child.ts";
import { everySetting } from "./config.ts";
import { stackPath, type StackFile } from "./stack.ts";

const settings = {
  ...processSettings,
  ...stackSettings,
  BEAMLINE_GRPC_ADDR: edgeSettings.BEAMLINE_GRPC_ADDR,
  BEAMLINE_HTTP_ADDR: edgeSettings.BEAMLINE_HTTP_ADDR,
};

const say = (text: string): void => void process.stdout.write(`${text}\n`);

export function upCommand(program: Command): void {
  program
    .command("up")
    .description("Run everything on this machine: NATS, Redis, the edge and all workers.")
    .option("--each", "one process per worker instead of one for all")
    .action((options: { each?: boolean }) => run("up", (scope) => up(scope, options.each === true)));
}

async function up(scope: Scope, each: boolean): Promise<void> {
  // What only a child would read is looked at here, too: all mistakes are told at once, and nothing is opened.
  loadConfig({ ...(await everySetting()), ...settings }, process.env);
  const config = loadConfig(settings, process.env);
  const dataDir = resolve(config.BEAMLINE_DATA_DIR);
  const logs = join(dataDir, "logs");
  mkdirSync(logs, { recursive: true, mode: 0o700 });
  const key = devKey(dataDir);
  const keys = process.env["BEAMLINE_API_KEYS_FILE"] || keyFile(dataDir, key);
  checkEdge({ ...process.env, BEAMLINE_API_KEYS_FILE: keys });
  // The servers are the last to go, and need a moment of their own after everybody has drained.
  scope.configure({ drainMs: config.BEAMLINE_DRAIN_MS + 5_000, log: createLogger({ component: "up", level: "warn" }) });

  const servers = await scope.open(
    "servers",
    () => startLocal(config, dataDir),
    (s) => s.stop(),
  );
  const grpc = await usable(config.BEAMLINE_GRPC_ADDR, "gRPC");
  const http = await usable(config.BEAMLINE_HTTP_ADDR, "HTTP");
  const adminKey = process.env["BEAMLINE_ROUTER_ADMIN_API_KEY"] ?? key;

  const common = {
    // The default policy names openai: without a key for it the labelled stand-in answers, so that everything can be tried.
    ...(process.env["OPENAI_API_KEY"] === undefined && { BEAMLINE_DEMO_PROVIDERS: "openai" }),
    ...process.env,
    ...servers.env,
    BEAMLINE_DATA_DIR: dataDir,
    // For the edge to listen on, and for workers to know where it does.
    BEAMLINE_GRPC_ADDR: grpc,
    BEAMLINE_HTTP_ADDR: http,
    BEAMLINE_ROUTER_ADMIN_API_KEY: adminKey,
    OPENWOP_GRPC_ENDPOINT: process.env["OPENWOP_GRPC_ENDPOINT"] ?? `${grpcScheme()}://${grpc}`,
  };
  const drainMs = config.BEAMLINE_DRAIN_MS;
  const children = new Map<string, Child>();
  const start = (name: string, args: readonly string[], env: NodeJS.ProcessEnv): void => {
    const child = scope.use(
      name,
      new Child({
        args,
        env: { ...common, ...env },
        logFile: join(logs, `${name}.log`),
        onExit: (how) => say(`${name} ended: ${how}`),
      }),
      (one) => one.stop(drainMs + 1_000),
    );
    children.set(name, child);
  };
  for (const group of each ? workerNames.map((name) => [name]) : [workerNames]) {
    start(each ? `worker-${group.join("-")}` : "workers", ["worker", ...group], login(servers, "worker"));
  }
  start("edge", ["edge"], {
    ...login(servers, "edge"),
    BEAMLINE_API_KEYS_FILE: keys,
    BEAMLINE_EXPECT_WORKERS: workerNames.join(","),
  });

  const stack: StackFile = {
    pid: process.pid,
    grpc,
    http,
    env: { ...servers.env, ...login(servers, "operator"), BEAMLINE_ROUTER_ADMIN_API_KEY: adminKey },
  };
  writeFileSync(stackPath(dataDir), `${JSON.stringify(stack, undefined, 2)}\n`, { mode: 0o600 });
  scope.use("stack file", stackPath(dataDir), (path) => rmSync(path, { force: true }));
  await untilReady(http, scope.draining, logs, children);
  greet(servers, grpc, http, key, adminKey === key, logs);
}

/** What discovery says of the edge: it speaks TLS when it has a certificate. */
function grpcScheme(): string {
  return process.env["BEAMLINE_GRPC_TLS_CERT"] === undefined ? "grpc" : "grpcs";
}

function startLocal(
  config: { NATS_URL: readonly string[] | undefined; REDIS_URL: string | undefined },
  dataDir: string,
): Promise<LocalServers> {
  return startServers({
    dataDir,
    ...(config.NATS_URL !== undefined && { natsUrl: config.NATS_URL.join(",") }),
    ...(config.REDIS_URL !== undefined && { redisUrl: config.REDIS_URL }),
    onProgress: say,
    onExit: (name, how) => say(`${name} ended: ${how}; stop this and start it again`),
  });
}

/** How a process logs in to a NATS of ours; one that was named by a URL brings its own variables. */
function login(servers: LocalServers, user: "edge" | "worker" | "operator"): Record<string, string> {
  if (!servers.nats.started) return {};
  const { password, inboxPrefix } = servers.credentials[user];
  return { NATS_USER: user, NATS_PASSWORD: password, NATS_INBOX_PREFIX: inboxPrefix };
}

async function usable(address: Address, what: string): Promise<string> {
  const wanted = formatAddress(address);
  if (address.port !== 0 && (await isPortFree(address.port))) return wanted;
  const port = await freePort();
  if (address.port !== 0) say(`${wanted} is taken: ${what} is served on port ${port} instead`);
  return formatAddress({ host: address.host, port });
}

/** The API key for trying things out, made once per data directory. A test key: it may use mock providers (OpenWOP, test keys). */
function devKey(dataDir: string): string {
  const path = join(dataDir, "dev.key");
  const kept = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
  if (kept.startsWith(TEST_KEY_PREFIX)) return kept;
  const key = `${TEST_KEY_PREFIX}${randomBytes(18).toString("base64url")}`;
  writeFileSync(path, `${key}\n`, { mode: 0o600 });
  return key;
}

function keyFile(dataDir: string, key: string): string {
  const path = join(dataDir, "keys.json");
  const keys: StoredKey[] = [{ id: "dev", sha256: sha256(key), tenant: "default", scopes: ["*", TEST_SCOPE] }];
  writeFileSync(path, `${JSON.stringify(keys, undefined, 2)}\n`, { mode: 0o600 });
  return path;
}

const READY_WITHIN_MS = 60_000;

/** Every part serves. Throws what is missing when that takes too long, and at once when a process was given up. */
async function untilReady(
  http: string,
  signal: AbortSignal,
  logs: string,
  children: ReadonlyMap<string, Child>,
): Promise<void> {
  const give = Date.now() + READY_WITHIN_MS;
  let last = "no answer yet";
  while (!signal.aborted) {
    try {
      const response = await fetch(`http://${http}/readyz`, {
        signal: AbortSignal.any([signal, AbortSignal.timeout(2_000)]),
      });
      if (response.ok) return;
      last = await response.text();
    } catch (error) {
      last = String(error);
    }
    for (const [name, { givenUp }] of children)
      if (givenUp !== undefined) throw new Error(`${name} cannot be started: ${givenUp}; see ${logs}`);
    if (Date.now() > give) throw new Error(`not ready after ${READY_WITHIN_MS / 1000} s: ${last}; see ${logs}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

function greet(
  servers: LocalServers,
  grpc: string,
  http: string,
  key: string,
  isAdminKey: boolean,
  logs: string,
): void {
  for (const server of [servers.nats, servers.redis]) {
    say(
      `${server.name.padEnd(5)} ${server.url}  (${server.version}${server.started ? "" : ", as named, left running"}${server.note === undefined ? "" : `; ${server.note}`})`,
    );
  }
  say(`gRPC  ${grpc}`);
  say(`HTTP  http://${http}`);
  say(`key   ${key}  (dev API key${isAdminKey ? " and admin key" : ""})`);
  say(`logs  ${logs}`);
  say(`
Try:
  npm run -s beamline -- decide --tenant acme '{"text":"hi"}'
  npm run -s beamline -- status
  curl -s http://${http}/readyz

Ctrl-C stops all of it.`);
}
