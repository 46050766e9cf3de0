/**
 * The settings that more than one process shares, in groups: a process loads the union of the groups it needs,
 *
 *     const config = loadConfig({ ...processSettings, ...busSettings, ...edgeSettings }, process.env);
 *
 * and a domain adds its own table beside its worker. Names are fixed by the design, section 2 (what a user touches).
 */
import {
  address,
  bool,
  choice,
  durationMs,
  file,
  float,
  int,
  list,
  optional,
  secret,
  text,
  url,
  urls,
} from "./setting.ts";

const MIB = 1024 * 1024;

const dataDir = text(".beamline", "Directory for what the local stack and the embedded index keep on disk.");

const adminKey = secret(optional, "Key that RouterAdmin calls must carry; without one they are all refused.", {
  pattern: /^[a-zA-Z0-9_.-]{8,}$/,
  expected: "8 or more letters, digits, _, . or -",
});

const maxMessageBytes = int(4 * MIB, "Largest gRPC message accepted or sent, in bytes.", { min: 1024, max: 512 * MIB });

/** Every process: logging, draining, telemetry (the standard OpenTelemetry names). */
export const processSettings = {
  BEAMLINE_LOG_LEVEL: choice(["debug", "info", "warn", "error", "silent"], "info", "Least severe log line written."),
  BEAMLINE_DRAIN_MS: durationMs(10_000, "How long closing may take in all, once asked to stop.", {
    min: 100,
    max: 600_000,
  }),
  OTEL_SDK_DISABLED: bool(false, "Turns tracing off whatever else is set."),
  OTEL_SERVICE_NAME: text(optional, "Service name on traces and metrics; the process's own name when not given."),
  OTEL_EXPORTER_OTLP_ENDPOINT: url(
    optional,
    "Collector that spans are sent to over HTTP; no spans are made without one.",
    {
      schemes: ["http", "https"],
    },
  ),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: url(optional, "The same for traces alone, as the full URL.", {
    schemes: ["http", "https"],
  }),
  OTEL_EXPORTER_OTLP_HEADERS: secret(optional, "Headers sent to the collector, as name=value separated by commas.", {
    pattern: /^[^=,]+=[^,]*(,[^=,]+=[^,]*)*$/,
    expected: "name=value pairs separated by commas",
  }),
  OTEL_EXPORTER_OTLP_PROTOCOL: choice(
    ["http/protobuf", "http/json"],
    "http/protobuf",
    "How spans are encoded for the collector.",
  ),
  OTEL_TRACES_SAMPLER: choice(
    [
      "parentbased_traceidratio",
      "parentbased_always_on",
      "parentbased_always_off",
      "traceidratio",
      "always_on",
      "always_off",
    ],
    "parentbased_traceidratio",
    "Which traces are recorded, once there is a collector; parentbased ones follow the caller's decision.",
  ),
  OTEL_TRACES_SAMPLER_ARG: float(0.01, "Fraction of traces recorded by the traceidratio samplers.", { min: 0, max: 1 }),
};

/** Every process on the bus. */
export const busSettings = {
  NATS_URL: urls(["nats://127.0.0.1:4222"], "Where the bus is; several seeds of one cluster are separated by commas.", {
    schemes: ["nats", "tls", "ws", "wss"],
    assume: "nats",
  }),
  NATS_CREDS: file(optional, "Credentials file (JWT and seed) of this process on the bus."),
  NATS_NKEY: file(optional, "File with the nkey seed of this process on the bus."),
  NATS_USER: text(optional, "User name of this process on the bus.", { needs: ["NATS_PASSWORD"] }),
  NATS_PASSWORD: secret(optional, "Password of that user.", { needs: ["NATS_USER"] }),
  NATS_INBOX_PREFIX: text(
    "_INBOX",
    "Where replies to this process arrive; the user's rights in nats.conf decide which it may use.",
  ),
  BEAMLINE_STREAM_REPLICAS: int(
    optional,
    "Copies of every stream; three where the bus is a cluster and one where it is not, unless this says otherwise.",
    { min: 1, max: 5 },
  ),
  NATS_TLS_CA: file(optional, "Certificate authority the bus is verified against, when it is not a public one."),
  NATS_TLS_CERT: file(optional, "Client certificate shown to the bus.", { needs: ["NATS_TLS_KEY"] }),
  NATS_TLS_KEY: file(optional, "Key of the client certificate.", { needs: ["NATS_TLS_CERT"] }),
};

/** Limits of OpenWOP's surfaces: the edges hold them, discovery tells them, so edges and runs workers are given the same. */
export const openwopSettings = {
  OPENWOP_INFLIGHT_CAP: int(
    512,
    "Authenticated OpenWOP calls and streams, over REST and gRPC together, one edge serves at once; beyond it answers 503.",
    { min: 1 },
  ),
  OPENWOP_RATE_LIMIT: int(
    0,
    "OpenWOP calls of one credential an edge takes per second; beyond it answers 429; 0 for no limit.",
    { min: 0 },
  ),
};

/** The edge: listeners, limits, connection life, TLS. */
export const edgeSettings = {
  BEAMLINE_GRPC_ADDR: address("127.0.0.1:50051", "Where gRPC is served."),
  BEAMLINE_HTTP_ADDR: address("127.0.0.1:8080", "Where HTTP is served: REST, SSE, /healthz, /readyz and /metrics."),
  BEAMLINE_MAX_MESSAGE_BYTES: maxMessageBytes,
  BEAMLINE_API_KEYS_FILE: file(
    optional,
    "JSON array of the API keys callers may use: {id, sha256, scopes, tenant?, expires_at_ms?, revoked_at_ms?}; read again when it changes.",
  ),
  BEAMLINE_JWKS_URL: url(
    optional,
    "Where an identity provider publishes the keys of its tokens (JWT); without it only API keys are bearers.",
    { schemes: ["https", "http"], needs: ["BEAMLINE_JWT_ISSUER", "BEAMLINE_JWT_AUDIENCE"] },
  ),
  BEAMLINE_JWT_ISSUER: text(optional, "What iss of a token must be.", { needs: ["BEAMLINE_JWKS_URL"] }),
  BEAMLINE_JWT_AUDIENCE: text(optional, "What aud of a token must be or have.", { needs: ["BEAMLINE_JWKS_URL"] }),
  BEAMLINE_JWT_TENANT_CLAIM: text("tenant_id", "Claim of a token that names its tenant."),
  BEAMLINE_JWT_SCOPE_CLAIM: text("scope", "Claim of a token with its scopes, separated by spaces or as a list."),
  BEAMLINE_ALLOW_ANONYMOUS: bool(
    optional,
    "Whether callers without credentials are served; on loopback they are unless this says otherwise.",
  ),
  BEAMLINE_EXPECT_WORKERS: list([], "Workers that must be there for this edge to be ready, separated by commas."),
  BEAMLINE_GRPC_KEEPALIVE_MS: durationMs(60_000, "Idle time after which a client's connection is pinged.", {
    min: 1_000,
  }),
  BEAMLINE_GRPC_KEEPALIVE_TIMEOUT_MS: durationMs(
    20_000,
    "Time a client has to answer that ping before it is cut off.",
    { min: 100 },
  ),
  BEAMLINE_GRPC_MAX_CONNECTION_AGE_MS: durationMs(
    3_600_000,
    "Age at which a client is asked to reconnect, so that load spreads over new edges; 0 for never.",
    { min: 0 },
  ),
  BEAMLINE_GRPC_MAX_CONNECTION_AGE_GRACE_MS: durationMs(600_000, "Time calls on such a connection have to finish.", {
    min: 0,
  }),
  BEAMLINE_GRPC_TLS_CERT: file(optional, "Certificate chain gRPC is served with; plain text without one.", {
    needs: ["BEAMLINE_GRPC_TLS_KEY"],
  }),
  BEAMLINE_GRPC_TLS_KEY: file(optional, "Key of that certificate.", { needs: ["BEAMLINE_GRPC_TLS_CERT"] }),
  BEAMLINE_GRPC_TLS_CLIENT_CA: file(
    optional,
    "Authority that client certificates must come from; turns mutual TLS on.",
    {
      needs: ["BEAMLINE_GRPC_TLS_CERT", "BEAMLINE_GRPC_TLS_KEY"],
    },
  ),
  BEAMLINE_ROUTER_ADMIN_API_KEY: adminKey,
};

/** Every worker: hot state, search, limits. */
export const workerSettings = {
  REDIS_URL: url("redis://127.0.0.1:6379", "Where hot state is kept.", { schemes: ["redis", "rediss", "unix"] }),
  QDRANT_URL: url(optional, "Where memories are searched; an embedded index in the data directory without one.", {
    schemes: ["http", "https"],
  }),
  QDRANT_API_KEY: secret(optional, "Key of that search server.", { needs: ["QDRANT_URL"] }),
  BEAMLINE_DATA_DIR: dataDir,
  BEAMLINE_WORKER_CONCURRENCY: int(256, "Calls one worker handles at a time, per service; more wait on the bus.", {
    min: 1,
    max: 65_536,
  }),
  BEAMLINE_WORKER_HTTP_ADDR: address(
    optional,
    "Where a worker serves /healthz, /readyz and /metrics; not served without one.",
  ),
  BEAMLINE_MAX_MESSAGE_BYTES: maxMessageBytes,
  BEAMLINE_ROUTER_ADMIN_API_KEY: adminKey,
};

/**
 * The local stack. To be spread after the other groups: servers it starts itself have no default address, and one
 * that is named by a URL is used as it is and never stopped.
 */
export const stackSettings = {
  BEAMLINE_DATA_DIR: dataDir,
  NATS_URL: urls(optional, "A bus to use as it is; one is started locally without it.", {
    schemes: ["nats", "tls", "ws", "wss"],
    assume: "nats",
  }),
  REDIS_URL: url(optional, "A Redis to use as it is; one is started locally without it.", {
    schemes: ["redis", "rediss", "unix"],
  }),
};

/** Every group, for `beamline config` and for finding misspelt names; domains add their own tables to it. */
export const sharedSettings = { ...processSettings, ...busSettings, ...edgeSettings, ...workerSettings };
