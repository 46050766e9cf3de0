/** The REST surface described for tools: paths, parameters, methods, statuses. Bodies have schemas of their own in the OpenWOP specification. */
import { MAX_BUFFER_MS, STREAM_MODES } from "../../../contracts/openwop/modes.ts";
import { RUN_STATUSES } from "../../../contracts/openwop/state.ts";
import { VERSION } from "../../../runtime/version.ts";
import { MAX_KEY } from "../idempotency.ts";

type Row = readonly [method: string, path: string, operationId: string, success: string, open?: true];

const rows: readonly Row[] = [
  ["get", "/.well-known/openwop", "getCapabilities", "200", true],
  ["get", "/v1/openapi.json", "getOpenApiSpec", "200", true],
  ["get", "/v1/workflows", "listWorkflows", "200"],
  ["get", "/v1/workflows/{workflowId}", "getWorkflow", "200"],
  ["put", "/v1/workflows/{workflowId}", "applyWorkflow", "201"],
  ["get", "/v1/runs", "listRuns", "200"],
  ["post", "/v1/runs", "createRun", "201"],
  ["post", "/v1/runs:bulk-cancel", "bulkCancelRuns", "200"],
  ["get", "/v1/runs/{runId}", "getRun", "200"],
  ["get", "/v1/runs/{runId}/events", "streamRunEvents", "200"],
  ["get", "/v1/runs/{runId}/events/poll", "pollRunEvents", "200"],
  ["post", "/v1/runs/{runId}/cancel", "cancelRun", "200"],
  ["post", "/v1/runs/{runId}:fork", "forkRun", "201"],
  ["post", "/v1/runs/{runId}:pause", "pauseRun", "202"],
  ["post", "/v1/runs/{runId}:resume", "resumeRun", "202"],
  ["get", "/v1/runs/{runId}:diff", "diffRun", "200"],
  ["get", "/v1/runs/{runId}/ancestry", "getRunAncestry", "200"],
  ["get", "/v1/runs/{runId}/debug-bundle", "getDebugBundle", "200"],
  ["post", "/v1/runs/{runId}/interrupts/{nodeId}", "resolveInterruptByRun", "200"],
  ["get", "/v1/interrupts/{token}", "inspectInterruptByToken", "200", true],
  ["post", "/v1/interrupts/{token}", "resolveInterruptByToken", "200", true],
  ["get", "/v1/runs/{runId}/artifacts/{artifactId}", "getArtifact", "200"],
  ["get", "/v1/webhooks", "listWebhooks", "200"],
  ["post", "/v1/webhooks", "registerWebhook", "201"],
  ["delete", "/v1/webhooks/{webhookId}", "unregisterWebhook", "204"],
  ["post", "/v1/webhooks/{webhookId}/redrive", "redriveWebhook", "200"],
  ["get", "/v1/audit/verify", "verifyAuditLog", "200"],
];

type Parameter = Readonly<Record<string, unknown>>;

const integer = (minimum: number, maximum?: number, more: object = {}): object => ({
  type: "integer",
  minimum,
  ...(maximum !== undefined && { maximum }),
  ...more,
});
const query = (name: string, schema: object, required = false): Parameter => ({
  in: "query",
  name,
  ...(required && { required }),
  schema,
});
const heading = (name: string, schema: object): Parameter => ({ in: "header", name, schema });

const modes = `(${STREAM_MODES.join("|")})`;

/** What an operation reads beside its path and its body. */
const beside: Readonly<Record<string, readonly Parameter[]>> = {
  listRuns: [
    query("limit", integer(1, 500, { default: 50 })),
    query("status", { type: "string", enum: RUN_STATUSES }),
    query("cursor", { type: "string", pattern: "^[A-Za-z0-9_-]+$" }),
  ],
  createRun: [heading("X-Dedup", { type: "string", enum: ["enforce"] }), heading("X-Force-Engine-Version", integer(0))],
  getRun: [heading("If-None-Match", { type: "string" })],
  streamRunEvents: [
    query("streamMode", { type: "string", default: "updates", pattern: `^${modes}(,${modes})*$` }),
    query("bufferMs", integer(0, MAX_BUFFER_MS, { default: 0 })),
    heading("Last-Event-ID", integer(-1)),
  ],
  pollRunEvents: [query("lastSequence", integer(-1)), query("timeout", integer(1, 60, { default: 30 }))],
  diffRun: [query("against", { type: "string", minLength: 1 }, true)],
  verifyAuditLog: [query("fromSeq", integer(0), true), query("toSeq", integer(0), true)],
};

const idempotencyKey = heading("Idempotency-Key", { type: "string", maxLength: MAX_KEY });

const problem = {
  description: "Error envelope",
  content: { "application/json": { schema: { $ref: "#/components/schemas/ErrorEnvelope" } } },
};

const jsonBody = { content: { "application/json": { schema: { type: "object" } } } };

function paths(): Record<string, Record<string, unknown>> {
  const all: Record<string, Record<string, unknown>> = {};
  for (const [method, path, operationId, success, open] of rows) {
    const parameters = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      in: "path",
      name,
      required: true,
      schema: { type: "string", minLength: 1 },
    }));
    const operation = {
      operationId,
      parameters: [...parameters, ...(beside[operationId] ?? []), ...(method === "get" ? [] : [idempotencyKey])],
      ...(method !== "get" && method !== "delete" && { requestBody: jsonBody }),
      ...(open === true && { security: [] }),
      responses: { [success]: { description: "Success" }, default: problem },
    };
    all[path] = { ...all[path], [method]: operation };
  }
  return all;
}

export const openapiDocument = {
  openapi: "3.1.0",
  info: {
    title: "Beamline: durable workflow runs (OpenWOP v1)",
    version: VERSION,
    license: { name: "Apache-2.0", identifier: "Apache-2.0" },
  },
  security: [{ bearer: [] }],
  paths: paths(),
  components: {
    securitySchemes: { bearer: { type: "http", scheme: "bearer" } },
    schemas: {
      ErrorEnvelope: {
        type: "object",
        required: ["error", "message"],
        additionalProperties: false,
        properties: {
          error: { type: "string", minLength: 1 },
          message: { type: "string", minLength: 1 },
          details: { type: "object" },
        },
      },
    },
  },
};
