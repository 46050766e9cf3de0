/** For tests of memory: real servers, memory workers that open and close, calls as a NATS client makes them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Caller } from "../../bus/call.ts";
import type { Bus } from "../../bus/connect.ts";
import { Server } from "../../bus/serve.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import * as memory from "../../contracts/gen/aios/memory.ts";
import { codecOf, opaque } from "../../contracts/codec.ts";
import { header } from "../../contracts/headers.ts";
import { routesOf } from "../../contracts/routes.ts";
import { startRedis, type ManagedServer } from "../../deploy/local/servers.ts";
import { loadConfig, type Environment } from "../../runtime/config.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { startTestNats, type TestNats } from "../kit/servers.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";

type Methods = (typeof memory.MemoryServiceDefinition)["methods"];
export type Method = keyof Methods;
type Ask<M extends Method> = Parameters<Methods[M]["requestType"]["fromPartial"]>[0];
type Told<M extends Method> = ReturnType<Methods[M]["responseType"]["decode"]>;

export interface Call {
  readonly tenant?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

export interface World extends AsyncDisposable {
  readonly nats: TestNats;
  readonly redis: ManagedServer;
  readonly bus: Bus;
  readonly caller: Caller;
  readonly dataDir: string;
  /** One RPC, over the bus as JSON. Throws the error of its reply. */
  call<M extends Method>(method: M, request: Ask<M>, options?: Call): Promise<Told<M>>;
  /** Opens a memory worker and serves it; `close` stops it in order. */
  worker(env?: Environment): Promise<Scope>;
  /** Settings of a worker of this world, as the environment of a process. */
  env(): Record<string, string>;
}

/** Servers for one test file. */
export async function startWorld(options: { readonly syncInterval?: string } = {}): Promise<World> {
  const nats = await startTestNats(options);
  const dataDir = await mkdtemp(join(tmpdir(), "beamline-memory-"));
  const redis = await startRedis({ dataDir, ports: "free" });
  const bus = await nats.connect("memory test");
  const caller = new Caller(bus);
  const routes = routesOf(memory.MemoryServiceDefinition);
  const scopes: Scope[] = [];
  const env = (): Record<string, string> => ({ REDIS_URL: redis.url, BEAMLINE_DATA_DIR: dataDir });
  return {
    nats,
    redis,
    bus,
    caller,
    dataDir,
    env,
    async call(method, request, { tenant = "default", headers = {}, timeoutMs = 20_000 } = {}) {
      const { requestType, responseType } = memory.MemoryServiceDefinition.methods[method];
      const asked = codecOf(opaque(requestType)).toJson(opaque(requestType).fromPartial(request));
      const told = await caller.request(routes[method].subject, asked, {
        timeoutMs,
        worker: "memory",
        headers: { [header.tenantId]: tenant, [header.deadline]: String(Date.now() + timeoutMs), ...headers },
      });
      return codecOf(opaque(responseType)).fromJson(told) as Told<typeof method>;
    },
    async worker(more = {}) {
      const own = await nats.connect("worker-memory");
      const config = loadConfig({ ...workerSettings, ...memoryWorker.settings }, { ...env(), ...more });
      const scope = new Scope({ drainMs: 10_000 });
      await ensureStreams(own, memoryWorker.streams ?? []);
      await ensureBuckets(own, memoryWorker.buckets ?? []);
      await ensureObjects(own, memoryWorker.objects ?? []);
      scope.use("bus", own, (b) => b.drain());
      const ownCaller = scope.use("caller", new Caller(own), (c) => c.stop());
      const endpoints = await memoryWorker.open(scope, {
        config,
        bus: own,
        caller: ownCaller,
        log: silentLogger,
        metrics: createRegistry(),
        calls: () => ({ active: 0, waiting: 0 }),
        env: {},
      });
      const server = new Server(own, endpoints, { name: "memory", version: "0.0.0" });
      scope.use("intake", server, (s, deadline) => s.stop(Date.now() + deadline.remainingMs()));
      await server.ready();
      scopes.push(scope);
      return scope;
    },
    async [Symbol.asyncDispose]() {
      for (const scope of scopes) await scope.close();
      caller.stop();
      await nats.stop();
      await redis.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
