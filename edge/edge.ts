/** The edge: gRPC and HTTP in, bus out. Opened downwards, closed upwards: the order on the page is the shutdown plan. */
import { Caller } from "../bus/call.ts";
import { Bus } from "../bus/connect.ts";
import { busOptions } from "../bus/options.ts";
import { invalidArgument } from "../contracts/errors.ts";
import { routes, services, type Route } from "../contracts/routes.ts";
import { loadConfig, type Config, type Environment } from "../runtime/config.ts";
import { systemClock } from "../runtime/clock.ts";
import { openHttp } from "../runtime/http.ts";
import type { Scope } from "../runtime/lifecycle.ts";
import { createLogger } from "../runtime/log.ts";
import { formatAddress } from "../runtime/setting.ts";
import { busSettings, edgeSettings, openwopSettings, processSettings } from "../runtime/settings.ts";
import { startTelemetry } from "../runtime/telemetry.ts";
import { traceIdOf } from "../runtime/trace.ts";
import { VERSION } from "../runtime/version.ts";
import { abuseRules } from "./beamline/abuse.ts";
import { beamlineRest } from "./beamline/rest.ts";
import { restSettings } from "./beamline/settings.ts";
import { bearerOf, KeyRing, type AuthPolicy } from "./auth.ts";
import type { Forwarding } from "./forward.ts";
import { GrpcEdge } from "./grpc.ts";
import { followKeys, readKeys } from "./keyfile.ts";
import { mcpRoutes } from "./mcp.ts";
import { edgeMetrics } from "./metrics.ts";
import { openwopEdge } from "./openwop/index.ts";
import { Presence } from "./presence.ts";
import { credentialsOf } from "./tls.ts";
import { Tokens } from "./tokens.ts";
import { header } from "../contracts/headers.ts";

export const edgeTable = { ...processSettings, ...busSettings, ...edgeSettings, ...openwopSettings, ...restSettings };

export interface EdgePorts {
  readonly grpc: number;
  readonly http: number;
}

/** What an edge is made of before it opens anything. Throws ConfigError, and `invalid_argument` naming the setting whose file or address is wrong. */
export function checkEdge(env: Environment): {
  readonly config: Config<typeof edgeTable>;
  readonly auth: AuthPolicy;
  readonly credentials: ReturnType<typeof credentialsOf>;
} {
  const config = loadConfig(edgeTable, env);
  return { config, auth: authOf(config), credentials: credentialsOf(tlsOf(config)) };
}

/** Opens the edge in a scope. It serves once this resolves, and is ready once every expected worker is there. */
export async function openEdge(scope: Scope, env: Environment): Promise<EdgePorts> {
  const { config, auth, credentials } = checkEdge(env);
  const log = createLogger({ component: "edge", level: config.BEAMLINE_LOG_LEVEL });
  scope.configure({ drainMs: config.BEAMLINE_DRAIN_MS, log });
  scope.use(
    "keys",
    followKeys(config.BEAMLINE_API_KEYS_FILE, auth.keys, {
      onChange: (keys) => log.info("the API keys were read again", { keys }),
      onProblem: (error) => log.warn("the API keys stay as they were", { error }),
    }),
    (stop) => stop(),
  );
  const telemetry = scope.use(
    "telemetry",
    startTelemetry({ service: "beamline-edge", version: VERSION, config, onProblem: (problem) => log.warn(problem) }),
    (t) => t.shutdown(),
  );
  const bus = await scope.open(
    "bus",
    () => Bus.connect(busOptions(config, "edge")),
    (b) => b.drain(),
  );
  scope.health.add("bus", () => bus.connected);
  bus.onFault((error, subject) => log.error("a message could not be handled", { subject, error }));
  const caller = scope.use("caller", new Caller(bus), (c) => c.stop());
  const openwop = openwopEdge({
    caller,
    auth,
    maxBodyBytes: config.BEAMLINE_MAX_MESSAGE_BYTES,
    inflightCap: config.OPENWOP_INFLIGHT_CAP,
    ratePerSecond: config.OPENWOP_RATE_LIMIT,
    now: () => systemClock.now(),
    onError: (error, what, traceparent) =>
      log.child({ trace_id: traceIdOf(traceparent) }).error(`${what} failed`, { error: error.cause ?? error }),
  });
  const forwarding: Forwarding = {
    caller,
    auth,
    events: new Map(openwop.events),
    admit: openwop.admit,
    finished: edgeMetrics(telemetry.registry),
    onError(error, route, headers) {
      const traceparent = headers[header.traceparent];
      log
        .child({ trace_id: traceparent === undefined ? undefined : traceIdOf(traceparent) })
        .error(`${route.path} failed`, { error: error.cause ?? error });
    },
  };
  const http = await scope.open(
    "http",
    () =>
      openHttp("BEAMLINE_HTTP_ADDR", config.BEAMLINE_HTTP_ADDR, scope.health, telemetry, (app) => {
        const { tokens } = auth;
        if (tokens !== undefined)
          app.addHook("onRequest", async ({ headers }) => tokens.prepare(bearerOf(headers.authorization)));
        openwop.routes(app);
        mcpRoutes(app, { caller, auth, maxBodyBytes: config.BEAMLINE_MAX_MESSAGE_BYTES });
        beamlineRest(app, {
          caller,
          auth,
          registry: telemetry.registry,
          log,
          now: () => systemClock.now(),
          idempotencyTtlMs: config.IDEMPOTENCY_TTL_MS,
          abuse: config.GATEWAY_ABUSE_DETECTION ? abuseRules : undefined,
          limits: {
            windowSeconds: config.GATEWAY_RATE_LIMIT_TTL_SECONDS,
            decide: config.GATEWAY_RATE_LIMIT_DECIDE,
            messages: config.GATEWAY_RATE_LIMIT_MESSAGES,
            registry: config.GATEWAY_RATE_LIMIT_REGISTRY,
            global: config.GATEWAY_RATE_LIMIT_GLOBAL,
          },
        });
      }),
    (h) => h.close(),
  );
  const grpc = await scope.open(
    "grpc",
    () =>
      GrpcEdge.open(
        {
          address: formatAddress(config.BEAMLINE_GRPC_ADDR),
          maxMessageBytes: config.BEAMLINE_MAX_MESSAGE_BYTES,
          keepaliveMs: config.BEAMLINE_GRPC_KEEPALIVE_MS,
          keepaliveTimeoutMs: config.BEAMLINE_GRPC_KEEPALIVE_TIMEOUT_MS,
          maxConnectionAgeMs: config.BEAMLINE_GRPC_MAX_CONNECTION_AGE_MS,
          maxConnectionAgeGraceMs: config.BEAMLINE_GRPC_MAX_CONNECTION_AGE_GRACE_MS,
          credentials,
        },
        forwarding,
      ),
    (g, deadline) => g.stop(Date.now() + deadline.remainingMs()),
  );
  scope.use("presence", watchWorkers(scope, caller, grpc, config.BEAMLINE_EXPECT_WORKERS), (p) => p.stop());
  log.info("serving", {
    grpc: grpc.port,
    http: http.port,
    services: services.map((one) => one.fullName),
    rpcs: routes.length,
  });
  return { grpc: grpc.port, http: http.port };
}

/** Health per service follows the workers that answer discovery; so does readiness, for the workers this edge is told to expect. */
function watchWorkers(scope: Scope, caller: Caller, grpc: GrpcEdge, expected: readonly string[]): Presence {
  const workerOf = new Map<string, string>(routes.map((route: Route) => [route.service.fullName, route.worker]));
  const presence = new Presence(caller, (present) => {
    for (const [service, worker] of workerOf) grpc.setServing(service, present.has(worker));
  });
  grpc.setServing("", true);
  for (const worker of expected) {
    scope.health.add(
      `worker ${worker}`,
      () => presence.present.has(worker) || { ok: false, detail: `no ${worker} worker answers` },
    );
  }
  return presence;
}

function tlsOf(
  config: Config<typeof edgeTable>,
): { certFile: string; keyFile: string; clientCaFile: string | undefined } | undefined {
  const {
    BEAMLINE_GRPC_TLS_CERT: certFile,
    BEAMLINE_GRPC_TLS_KEY: keyFile,
    BEAMLINE_GRPC_TLS_CLIENT_CA: clientCaFile,
  } = config;
  return certFile === undefined || keyFile === undefined ? undefined : { certFile, keyFile, clientCaFile };
}

const loopback = /^(127(\.\d+){3}|localhost|::1)$/;

/**
 * Who may call. Without credentials: anyone on a loopback listener, nobody elsewhere unless BEAMLINE_ALLOW_ANONYMOUS says so.
 * Throws `invalid_argument` naming a listener beyond loopback that would refuse everyone because no key is known.
 */
function authOf(config: Config<typeof edgeTable>): AuthPolicy {
  const keys = new KeyRing(readKeys(config.BEAMLINE_API_KEYS_FILE));
  const { BEAMLINE_GRPC_ADDR, BEAMLINE_HTTP_ADDR, BEAMLINE_ALLOW_ANONYMOUS } = config;
  const beyond = Object.entries({ BEAMLINE_GRPC_ADDR, BEAMLINE_HTTP_ADDR }).filter(([, at]) => !loopback.test(at.host));
  const allowAnonymous = BEAMLINE_ALLOW_ANONYMOUS ?? beyond.length === 0;
  const tokens = tokensOf(config);
  if (!allowAnonymous && keys.size === 0 && tokens === undefined) {
    const [refused] = beyond;
    const ways = "set BEAMLINE_API_KEYS_FILE or BEAMLINE_JWKS_URL, or BEAMLINE_ALLOW_ANONYMOUS=true to serve anyone";
    if (refused === undefined) throw invalidArgument("BEAMLINE_ALLOW_ANONYMOUS", `leaves nobody who may call: ${ways}`);
    throw invalidArgument(refused[0], `${formatAddress(refused[1])} needs authentication: ${ways}`);
  }
  return { keys, allowAnonymous, tokens };
}

/** The settings are asked for together. */
function tokensOf(config: Config<typeof edgeTable>): Tokens | undefined {
  const {
    BEAMLINE_JWKS_URL: jwksUrl,
    BEAMLINE_JWT_ISSUER: issuer,
    BEAMLINE_JWT_AUDIENCE: audience,
    BEAMLINE_JWT_TENANT_CLAIM: tenantClaim,
    BEAMLINE_JWT_SCOPE_CLAIM: scopeClaim,
  } = config;
  if (jwksUrl === undefined || issuer === undefined || audience === undefined) return undefined;
  return new Tokens({ jwksUrl, issuer, audience, tenantClaim, scopeClaim });
}
