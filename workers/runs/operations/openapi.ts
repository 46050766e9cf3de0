/** The REST surface described for tools: paths, methods, statuses. Bodies have schemas of their own in the OpenWOP specification. */
import { VERSION } from "../../../runtime/version.ts";

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

const problem = {
  description: "Error envelope",
  content: { "application/json": { schema: { $ref: "#/components/schemas/ErrorEnvelope" } } },
};

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
      parameters,
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
