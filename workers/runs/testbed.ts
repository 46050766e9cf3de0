/** For tests: runs workers and an edge on real servers of their own, called as clients call them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Caller } from "../../bus/call.ts";
import type { Bus } from "../../bus/connect.ts";
import { Server } from "../../bus/serve.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { startRedis } from "../../deploy/local/servers.ts";
import { loadConfig } from "../../runtime/config.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { createLogger, silentLogger } from "../../runtime/log.ts";
import { createRegistry, type Registry } from "../../runtime/metrics.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { runsWorker } from "./worker.ts";

export interface RunsBed extends AsyncDisposable {
  readonly nats: TestNats;
  readonly bus: Bus;
  readonly redisUrl: string;
  readonly caller: Caller;
  readonly registry: Registry;
  /** Another worker beside the first. */
  startWorker(env?: Readonly<Record<string, string>>): Promise<Scope>;
  /** Stops all workers and starts one anew, without fixtures: nothing is in anybody's memory. `env` is for the new one. */
  restart(env?: Readonly<Record<string, string>>): Promise<Scope>;
}

/** Starts servers and workers, fixtures loaded. */
export async function startRunsBed(
  env: Readonly<Record<string, string>> = {},
  workers = 1,
  syncInterval = "10s",
  write?: (line: string) => void,
): Promise<RunsBed> {
  const data = await mkdtemp(join(tmpdir(), "beamline-runs-"));
  const nats = await startTestNats({ syncInterval });
  const redis = await startRedis({ dataDir: data, ports: "free" });
  const scopes: Scope[] = [];
  const registry = createRegistry();
  const startWorker = async (more: Readonly<Record<string, string>> = {}): Promise<Scope> => {
    const config = loadConfig(runsWorker.settings, {
      REDIS_URL: redis.url,
      BEAMLINE_DATA_DIR: data,
      OPENWOP_FIXTURES: "true",
      ...env,
      ...more,
    });
    const told = write !== undefined || process.env["TEST_LOG"] !== undefined;
    const log = told
      ? createLogger({ component: "runs", level: "debug", ...(write !== undefined && { write }) })
      : silentLogger;
    const scope = new Scope({ log });
    scopes.push(scope);
    const bus = scope.use("bus", await nats.connect("worker-runs"), (b) => b.drain());
    await ensureStreams(bus, runsWorker.streams ?? []);
    await ensureBuckets(bus, runsWorker.buckets ?? []);
    await ensureObjects(bus, runsWorker.objects ?? []);
    const caller = scope.use("caller", new Caller(bus), (c) => c.stop());
    const endpoints = await runsWorker.open(scope, {
      config,
      bus,
      caller,
      log,
      metrics: registry,
      calls: () => ({ active: 0, waiting: 0 }),
      env: process.env,
    });
    const server = new Server(bus, endpoints, {
      name: "runs",
      version: "0.0.0",
      onError: (error, subject) => log.error(`a call failed: ${subject}`, { error: error.cause }),
    });
    scope.use("intake", server, (s, deadline) => s.stop(Date.now() + deadline.remainingMs()));
    await server.ready();
    scope.ready();
    return scope;
  };
  for (let count = 0; count < workers; count++) await startWorker();
  const bus = await nats.connect("test", "operator");
  return {
    nats,
    bus,
    redisUrl: redis.url,
    caller: new Caller(bus),
    registry,
    startWorker,
    async restart(more = {}) {
      for (const scope of scopes.splice(0)) await scope.close();
      return startWorker({ OPENWOP_FIXTURES: "false", ...more });
    },
    async [Symbol.asyncDispose]() {
      for (const scope of scopes) await scope.close();
      await redis.stop();
      await nats.stop();
      await rm(data, { recursive: true, force: true });
    },
  };
}
