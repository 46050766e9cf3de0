/** Starts the named workers in one process. */
import { Caller } from "../bus/call.ts";
import { Bus } from "../bus/connect.ts";
import type { IncomingCall } from "../bus/context.ts";
import type { Endpoint } from "../bus/endpoint.ts";
import { observeServer } from "../bus/observe.ts";
import { busOptions } from "../bus/options.ts";
import { Server } from "../bus/serve.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../bus/streams.ts";
import type { BeamlineError } from "../contracts/errors.ts";
import { loadConfig, type Environment } from "../runtime/config.ts";
import type { Scope } from "../runtime/lifecycle.ts";
import { createLogger, type Logger } from "../runtime/log.ts";
import type { Registry } from "../runtime/metrics.ts";
import { openHttp } from "../runtime/http.ts";
import { busSettings, processSettings, workerSettings } from "../runtime/settings.ts";
import { startTelemetry } from "../runtime/telemetry.ts";
import { acceptTraceparent, SpanKind, traceIdOf, withSpan } from "../runtime/trace.ts";
import { VERSION } from "../runtime/version.ts";
import type { WorkerModule } from "./module.ts";
import { loadModules } from "./modules.ts";

const baseSettings = { ...processSettings, ...busSettings, ...workerSettings };

/** Every setting of the given workers. */
export function settingsOf(chosen: readonly WorkerModule[]): WorkerModule["settings"] {
  return Object.assign({ ...baseSettings }, ...chosen.map((module) => module.settings)) as WorkerModule["settings"];
}

/** Opens the named workers in a scope, and serves what they offer. */
export async function openWorkers(scope: Scope, names: readonly string[], env: Environment): Promise<void> {
  const chosen = await loadModules(names);
  const config = loadConfig(settingsOf(chosen), env) as ReturnType<typeof loadConfig<typeof baseSettings>>;
  const process = names.length === 1 ? `worker-${names[0]}` : "workers";
  const log = createLogger({ component: process, level: config.BEAMLINE_LOG_LEVEL });
  scope.configure({ drainMs: config.BEAMLINE_DRAIN_MS, log });
  const telemetry = scope.use(
    "telemetry",
    startTelemetry({
      service: `beamline-${process}`,
      version: VERSION,
      config,
      onProblem: (problem) => log.warn(problem),
    }),
    (t) => t.shutdown(),
  );
  const address = config.BEAMLINE_WORKER_HTTP_ADDR;
  if (address !== undefined)
    await scope.open(
      "http",
      () => openHttp("BEAMLINE_WORKER_HTTP_ADDR", address, scope.health, telemetry),
      (http) => http.close(),
    );
  const bus = await scope.open(
    "bus",
    () => Bus.connect(busOptions(config, process)),
    (b) => b.drain(),
  );
  scope.health.add("bus", () => bus.connected);
  bus.onFault((error, subject) => log.error("a message could not be handled", { subject, error }));
  const caller = scope.use("caller", new Caller(bus), (c) => c.stop());
  const replicas = config.BEAMLINE_STREAM_REPLICAS ?? (bus.clustered ? 3 : 1);
  for (const module of chosen) {
    await ensureStreams(bus, module.streams ?? [], { replicas });
    await ensureBuckets(bus, module.buckets ?? [], { replicas });
    await ensureObjects(bus, module.objects ?? [], { replicas });
    let server: Server | undefined;
    const context = {
      config,
      calls: () => server?.load ?? { active: 0, waiting: 0 },
      bus,
      caller,
      log: log.child({ component: module.name }),
      metrics: telemetry.registry,
      env,
    };
    const endpoints = await module.open(scope, context);
    server = await serve(scope, bus, module, endpoints, config.BEAMLINE_WORKER_CONCURRENCY, telemetry.registry, log);
  }
}

async function serve(
  scope: Scope,
  bus: Bus,
  module: WorkerModule,
  endpoints: readonly Endpoint[],
  concurrency: number,
  registry: Registry,
  log: Logger,
): Promise<Server> {
  const server = new Server(bus, endpoints, {
    name: module.name,
    version: VERSION,
    concurrency,
    around: traced,
    onError: logged(log),
  });
  scope.use(`${module.name} intake`, server, (s, deadline) => s.stop(Date.now() + deadline.remainingMs()));
  observeServer(registry, module.name, server);
  await server.ready();
  scope.health.add(module.name, () => bus.connected);
  return server;
}

/** One trace through the bus: a span when the call is sampled, a trace id in any case. */
function traced<T>(endpoint: Endpoint, call: IncomingCall, run: () => T): T {
  const incoming = acceptTraceparent(call.traceparent);
  const attributes = (): Record<string, string> => ({
    "messaging.system": "nats",
    "messaging.destination.name": endpoint.subject,
    tenant_id: call.tenant,
  });
  return withSpan(
    endpoint.subject,
    incoming,
    attributes,
    (onward) => {
      call.traceparent = onward;
      return run();
    },
    SpanKind.SERVER,
  );
}

function logged(log: Logger): (error: BeamlineError, subject: string, traceparent: string) => void {
  return (error, subject, traceparent) => {
    log
      .child({ trace_id: traceparent === "" ? undefined : traceIdOf(traceparent) })
      .error(`call to ${subject} failed`, { error: error.cause ?? error });
  };
}
