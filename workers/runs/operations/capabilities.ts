/** What this host says of itself (OpenWOP, discovery): every line is true, and what is not done is not there. */
import { createHash } from "node:crypto";
import { canonicalJson } from "../../../contracts/openwop/json.ts";
import { MAX_BODY_BYTES } from "../../../contracts/openwop/rest.ts";
import type { Answer } from "../caller.ts";
import { CHECKPOINT_ENTRIES, CHECKPOINT_SECONDS } from "../audit/audit.ts";
import { MOCK_PROVIDERS } from "../nodes/mock.ts";
import type { RunsPorts } from "../ports.ts";
import { openapiDocument } from "./openapi.ts";

const DAY_S = 24 * 60 * 60;

/** `GET /.well-known/openwop`. */
export async function capabilities({
  host,
  limits,
  audit,
}: Pick<RunsPorts, "host" | "limits" | "audit">): Promise<Answer> {
  const secured = host.grpcEndpoint?.startsWith("grpcs:") === true;
  const production = {
    supported: true,
    backpressure: { supported: true, inflightCap: host.inflightCap, retryAfterSeconds: 1 },
    retention: { supported: true, minWindowSeconds: host.retentionDays * DAY_S },
    debugBundle: { supported: true, truncationMetadata: true },
  };
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
      maxRequestBodyBytes: MAX_BODY_BYTES,
    },
    implementation: { name: "beamline", version: host.version, vendor: "beamline" },
    engineVersion: host.engineVersion,
    eventLogSchemaVersion: 2,
    supportedTransports: host.grpcEndpoint === undefined ? ["rest"] : ["rest", "grpc"],
    ...(host.grpcEndpoint !== undefined && {
      grpc: {
        supported: true,
        endpoint: host.grpcEndpoint,
        service: "openwop.v1.Engine",
        tls: secured ? "required" : "disabled",
      },
    }),
    ...(host.fixtures.length > 0 && { fixtures: host.fixtures }),
    runs: { pauseResume: { supported: true, drainPolicies: ["immediate", "drain-current-node"] } },
    replay: { supported: true, modes: ["replay", "branch"], sideEffectSuppression: "recorded-outcome" },
    webhooks: { supported: true, signatureAlgorithms: ["v1"], durable: true },
    auth: {
      profiles: ["openwop-audit-log-integrity"],
      auditLogIntegrity: {
        hashChain: true,
        checkpointSignatureAlgorithm: "ed25519",
        checkpointPublicKey: audit.publicKey,
        checkpointIntervalEntries: CHECKPOINT_ENTRIES,
        checkpointIntervalSeconds: CHECKPOINT_SECONDS,
      },
    },
    idempotency: {
      supported: true,
      layer1RetentionSeconds: Math.floor(host.idempotencyMs / 1_000),
      layer2RetentionSeconds: 90 * DAY_S,
      crossRegion: "single-region",
    },
    testing: {
      mockProviders: MOCK_PROVIDERS,
      testKeyPrefix: host.testKeyPrefix,
      forceEngineVersionRange: { min: 0, max: host.engineVersion + 1 },
    },
    debugBundle: { supported: true },
    compliance: { defaultMode: "mask" },
    observability: {
      namespace: "openwop",
      spanAttributes: [
        "openwop.run_id",
        "openwop.workflow_id",
        "openwop.node_id",
        "openwop.node_type",
        "openwop.node_attempt",
      ],
    },
    ...(host.production && secured && host.idempotencyMs >= DAY_S * 1_000 && { production }),
  };
  const etag = `"${createHash("sha256").update(canonicalJson(body)).digest("base64url").slice(0, 22)}"`;
  return { status: 200, body, headers: { "cache-control": "public, max-age=300", etag, "capabilities-etag": etag } };
}

/** `GET /v1/openapi.json`. */
export async function openapi(): Promise<Answer> {
  return { status: 200, body: openapiDocument };
}
