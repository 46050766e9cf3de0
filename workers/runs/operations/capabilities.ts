/** What this host says of itself (OpenWOP, discovery): every line is true, and what is not done is not there. */
import type { Answer } from "../caller.ts";
import type { RunsPorts } from "../ports.ts";
import { MOCK_PROVIDERS } from "../nodes/mock.ts";

/** `GET /.well-known/openwop`. */
export async function capabilities({ host, limits }: Pick<RunsPorts, "host" | "limits">): Promise<Answer> {
  const body = {
    protocolVersion: "1.0",
    protocolVersions: ["1.0"],
    supportedEnvelopes: ["clarification.request"],
    schemaVersions: { "clarification.request": 1 },
    limits: {
      clarificationRounds: 3,
      schemaRounds: 2,
      envelopesPerTurn: 5,
      maxNodeExecutions: limits.maxNodeExecutions,
      ...(limits.maxRunDurationMs > 0 && { maxRunDurationMs: limits.maxRunDurationMs }),
      maxLoopIterations: limits.maxLoopIterations,
    },
    implementation: { name: "beamline", version: host.version, vendor: "beamline" },
    engineVersion: host.engineVersion,
    eventLogSchemaVersion: 2,
    supportedTransports: host.grpcEndpoint === undefined ? ["rest"] : ["rest", "grpc"],
    ...(host.grpcEndpoint !== undefined && {
      grpc: { supported: true, endpoint: host.grpcEndpoint, service: "openwop.v1.Engine", tls: host.grpcTls },
    }),
    ...(host.fixtures.length > 0 && { fixtures: host.fixtures }),
    runs: { pauseResume: { supported: true, drainPolicies: ["immediate", "drain-current-node"] } },
    idempotency: {
      supported: true,
      layer1RetentionSeconds: 172_800,
      layer2RetentionSeconds: 7_776_000,
      crossRegion: "single-region",
    },
    testing: {
      mockProviders: MOCK_PROVIDERS,
      testKeyPrefix: host.testKeyPrefix,
      forceEngineVersionRange: { min: 0, max: host.engineVersion + 1 },
    },
    debugBundle: { supported: true },
  };
  return { status: 200, body, headers: { "cache-control": "public, max-age=300" } };
}

/** `GET /v1/openapi.json`. */
export async function openapi(): Promise<Answer> {
  return { status: 200, body: { openapi: "3.1.0", info: { title: "Beamline runs", version: "1.0.0" }, paths: {} } };
}
