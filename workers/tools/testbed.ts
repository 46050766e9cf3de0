/** For tests: tools workers on real servers of their own, called as any client on the bus calls them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Caller } from "../../bus/call.ts";
import type { Bus } from "../../bus/connect.ts";
import { Server } from "../../bus/serve.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { header } from "../../contracts/headers.ts";
import { startRedis } from "../../deploy/local/servers.ts";
import { loadConfig, type Environment } from "../../runtime/config.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { createLogger, silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { Executions } from "./executions.ts";
import { Ledger } from "./audit/ledger.ts";
import type { Json } from "./tool.ts";
import { toolsWorker } from "./worker.ts";

/** An answer of Execute, its output parsed. */
export interface Answer {
  readonly success: boolean;
  readonly output: Json;
  readonly error: string;
  readonly execution_id: string;
  readonly backup_id: string;
  readonly duration_ms: number;
}

export interface RunOptions {
  readonly agent?: string;
  readonly task?: string;
  readonly reason?: string;
  readonly tenant?: string;
  readonly key?: string;
  readonly timeoutMs?: number;
}

export interface Testbed extends AsyncDisposable {
  readonly nats: TestNats;
  readonly bus: Bus;
  readonly caller: Caller;
  /** Root of file tools; removed at the end. */
  readonly root: string;
  readonly ledger: Ledger;
  readonly executions: Executions;
  /** Another worker beside the first. */
  startWorker(env?: Environment): Promise<Scope>;
  /** What a worker's environment is, for one in a process of its own. */
  environment(env?: Environment): Environment;
  run(tool: string, input?: Json, options?: RunOptions): Promise<Answer>;
  /** Any RPC of the registry by its snake_case name. */
  rpc<T = Json>(method: string, request: Json, options?: RunOptions): Promise<T>;
}

/** Opens and serves one tools worker in a scope. */
export async function openTools(scope: Scope, connected: Bus, env: Environment): Promise<void> {
  const config = loadConfig({ ...workerSettings, ...toolsWorker.settings }, env);
  const verbose = process.env["TEST_LOG"] !== undefined;
  const log = verbose ? createLogger({ component: "tools", level: "debug" }) : silentLogger;
  const bus = scope.use("bus", connected, (b) => b.drain());
  await ensureStreams(bus, toolsWorker.streams ?? []);
  await ensureBuckets(bus, toolsWorker.buckets ?? []);
  await ensureObjects(bus, toolsWorker.objects ?? []);
  const caller = scope.use("caller", new Caller(bus), (c) => c.stop());
  const endpoints = await toolsWorker.open(scope, {
    config,
    bus,
    caller,
    log,
    metrics: createRegistry(),
    calls: () => ({ active: 0, waiting: 0 }),
    env: process.env,
  });
  const onError = (error: Error): void => log.error("a call failed", { error: error.cause });
  const server = new Server(bus, endpoints, { name: "tools", version: "0.0.0", onError });
  scope.use("intake", server, (s, deadline) => s.stop(Date.now() + deadline.remainingMs()));
  await server.ready();
  scope.ready();
}

/** Starts servers and one worker. Rates are unlimited unless the environment says otherwise. */
export async function startTestbed(env: Readonly<Record<string, string>> = {}, workers = 1): Promise<Testbed> {
  const root = await mkdtemp(join(tmpdir(), "beamline-tools-"));
  const data = await mkdtemp(join(tmpdir(), "beamline-tools-data-"));
  const nats = await startTestNats({ syncInterval: "10s" });
  const redis = await startRedis({ dataDir: data, ports: "free" });
  const scopes: Scope[] = [];
  const environment = (more: Environment = {}): Environment => ({
    REDIS_URL: redis.url,
    BEAMLINE_DATA_DIR: data,
    BEAMLINE_TOOLS_ROOTS: root,
    BEAMLINE_TOOLS_AGENT_RATE: "0",
    BEAMLINE_TOOLS_TOOL_RATE: "0",
    ...env,
    ...more,
  });
  const startWorker = async (more: Environment = {}): Promise<Scope> => {
    const scope = new Scope();
    scopes.push(scope);
    await openTools(scope, await nats.connect("worker-tools"), environment(more));
    return scope;
  };
  for (let count = 0; count < workers; count++) await startWorker();
  const bus = await nats.connect("test", "operator");
  const caller = new Caller(bus);
  const rpc = async <T>(method: string, request: Json, options: RunOptions = {}): Promise<T> => {
    const timeoutMs = options.timeoutMs ?? 30_000;
    const headers = {
      [header.deadline]: String(Date.now() + timeoutMs),
      ...(options.tenant !== undefined && { [header.tenantId]: options.tenant }),
      ...(options.key !== undefined && { [header.idempotencyKey]: options.key }),
    };
    return (await caller.request(`aios.tools.v1.${method}`, request, { timeoutMs: timeoutMs + 2_000, headers })) as T;
  };
  const run = async (tool: string, input: Json = {}, options: RunOptions = {}): Promise<Answer> => {
    const { agent = "task-agent", task = "", reason = "test" } = options;
    const reply = await rpc<Json>(
      "execute",
      { tool_name: tool, agent_id: agent, task_id: task, input_json: JSON.stringify(input), reason },
      options,
    );
    const output = reply["output_json"];
    return {
      success: reply["success"] === true,
      output: typeof output === "string" && output !== "" ? (JSON.parse(output) as Json) : {},
      error: textOf(reply["error"]),
      execution_id: textOf(reply["execution_id"]),
      backup_id: textOf(reply["backup_id"]),
      duration_ms: Number(reply["duration_ms"] ?? 0),
    };
  };
  return {
    nats,
    bus,
    caller,
    root,
    ledger: new Ledger(bus),
    executions: new Executions(bus),
    startWorker,
    environment,
    run,
    rpc,
    async [Symbol.asyncDispose]() {
      for (const scope of scopes) await scope.close();
      await redis.stop();
      await nats.stop();
      await rm(root, { recursive: true, force: true });
      await rm(data, { recursive: true, force: true });
    },
  };
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
