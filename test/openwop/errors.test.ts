/**
 * Every error code of OpenWOP's table that a caller can provoke, over REST and over gRPC: the same envelope, and the status of the mapping.
 *
 * Codes that nobody can provoke here, and why:
 * - `run_forbidden`: credentials name a tenant, never a workspace; another tenant's run is `run_not_found`.
 * - `budget_exhausted`, `token_budget_exceeded`: no spend policies are advertised, and nothing counts against one.
 * - `credential_required`, `credential_unavailable`, `provider_policy_denied`: neither `secrets` nor provider policies are advertised; a caller's
 *   own credential is `credential_forbidden`, which is tested.
 * - `channel_cross_engine_write_forbidden`: one engine writes to a channel, there is no second one.
 * - `channel_schema_breaking_change`: a run keeps the definition it began with, so that a write and its channel have one schema version.
 * - `replay_diverged_at_refusal`: model answers are recorded whole, not as envelopes that are valid or refusals.
 * - `residency_unavailable`, `workspace_conflict`, `workspace_too_large`: families that are not advertised; `residency` in a request is
 *   `capability_not_provided`.
 *
 * Elsewhere: what REST alone can provoke (errors.rest.test.ts), runs that fail (errors.runs.test.ts), tokens, bodies and cursors
 * (refusals.test.ts), an edge under load: `rate_limited`, `service_unavailable` (limits.test.ts).
 */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tokenOf } from "../../bus/keys.ts";
import { publish } from "../../bus/publish.ts";
import { canonicalJson } from "../../contracts/openwop/json.ts";
import { logTree, wakeSubject, type LogEntry } from "../../contracts/openwop/log.ts";
import { buckets, streams } from "../../contracts/streams.ts";
import { systemIds } from "../../runtime/ids.ts";
import { Definitions, SHARED_TENANT } from "../../workers/runs/definitions.ts";
import { Records } from "../../workers/runs/records.ts";
import { KEYS, startHost, type Host } from "./host.ts";
import { bare, event, node, retired, soon, stranger, tokenFor, TOKEN_SECRETS, waiting, workflow } from "./provoke.ts";
import { grpcSurface, restSurface, type Reply, type Surface } from "./surface.ts";

let host: Host;
let surfaces: readonly Surface[];
beforeAll(async () => {
  host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "false", OPENWOP_TOKEN_SECRETS: TOKEN_SECRETS });
  surfaces = [restSurface(host), grpcSurface(host)];
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

/** The first message of a run's log, put under a new id with what `change` makes of it: as another engine would have written it. */
async function written(change: (entry: LogEntry) => unknown): Promise<string> {
  const source = await host.rest("POST", "/v1/runs", { workflowId: "conformance-noop" }, {}, KEYS.live);
  const subject = logTree("acme", tokenOf(source.body.runId)).replace(/\*$/, "wake");
  const first = await host.bed.bus.jsm.direct.getMessage(streams.runs.name, { seq: 1, next_by_subj: subject });
  const runId = systemIds.v7();
  const entry = JSON.parse(first?.string().replaceAll(source.body.runId, runId) ?? "{}") as LogEntry;
  const body = change(entry);
  await publish(
    host.bed.bus,
    wakeSubject("acme", tokenOf(runId)),
    typeof body === "string" ? body : JSON.stringify(body),
  );
  return runId;
}

const newer = (): Promise<string> => written((entry) => ({ ...entry, run: { ...entry.run, engineVersion: 9 } }));

interface Row {
  readonly code: string;
  readonly http: number;
  readonly grpc: number;
  readonly what?: string;
  /** What the details must say. */
  readonly details?: object;
  provoke(this: void, on: Surface): Promise<Reply>;
}

const rows: readonly Row[] = [
  {
    code: "unauthenticated",
    http: 401,
    grpc: 16,
    provoke: (on) => on.create({ workflowId: "conformance-noop" }, { key: "nobody" }),
  },
  { code: "key_expired", http: 401, grpc: 16, provoke: (on) => on.get("some-run", KEYS.old) },
  { code: "key_revoked", http: 401, grpc: 16, provoke: (on) => on.get("some-run", KEYS.gone) },
  {
    code: "forbidden",
    http: 403,
    grpc: 7,
    details: { scopeRequired: "runs:create" },
    provoke: (on) => on.create({ workflowId: "conformance-noop" }, { key: KEYS.low }),
  },
  {
    code: "forbidden",
    what: "a token that may only look",
    http: 403,
    grpc: 7,
    provoke: async (on) => on.resolveToken(await tokenFor(host, retired, soon(), "inspect"), event),
  },
  { code: "validation_error", http: 400, grpc: 3, details: { field: "workflowId" }, provoke: (on) => on.create({}) },
  {
    code: "validation_error",
    what: "a key that is too long",
    http: 400,
    grpc: 3,
    provoke: (on) => on.create({ workflowId: "conformance-noop" }, { idempotencyKey: "k".repeat(256) }),
  },
  {
    code: "validation_error",
    what: "more runs than may be cancelled at once",
    http: 400,
    grpc: 3,
    details: { maxRunIds: 100 },
    provoke: (on) => on.bulkCancel(Array.from({ length: 101 }, (_, at) => `run-${at}`)),
  },
  { code: "run_not_found", http: 404, grpc: 5, provoke: (on) => on.get("no-such-run") },
  { code: "workflow_not_found", http: 404, grpc: 5, provoke: (on) => on.create({ workflowId: "no-such-workflow" }) },
  {
    code: "artifact_not_found",
    http: 404,
    grpc: 5,
    provoke: async (on) => on.artifact(await host.start("conformance-noop"), "nothing"),
  },
  {
    code: "interrupt_not_found",
    http: 404,
    grpc: 5,
    provoke: async (on) => on.resolve(await waiting(host, "conformance-approval", "waiting-approval"), "nowhere", {}),
  },
  {
    code: "interrupt_not_found",
    what: "a token signed by somebody else",
    http: 404,
    grpc: 5,
    provoke: async (on) => on.inspectToken(await tokenFor(host, stranger, soon())),
  },
  {
    code: "interrupt_already_resolved",
    http: 409,
    grpc: 9,
    async provoke(on) {
      const runId = await waiting(host, "conformance-approval", "waiting-approval");
      await on.resolve(runId, "gate", { action: "accept" });
      return on.resolve(runId, "gate", { action: "accept" });
    },
  },
  {
    code: "interrupt_expired",
    http: 410,
    grpc: 9,
    provoke: async (on) => on.resolveToken(await tokenFor(host, retired, Date.now() - 1), event),
  },
  {
    code: "interrupt_expired",
    what: "looking",
    http: 410,
    grpc: 9,
    provoke: async (on) => on.inspectToken(await tokenFor(host, retired, Date.now() - 1)),
  },
  {
    code: "interrupt_gone",
    http: 410,
    grpc: 9,
    async provoke(on) {
      const runId = await waiting(host, "conformance-interrupt-parent-child-cancel", "waiting-approval");
      const [child] = (await host.rest("GET", `/v1/runs/${runId}`)).body.childRuns;
      await host.reaches(child.runId, "waiting-approval");
      await on.cancel(runId);
      await host.reaches(child.runId, "cancelled");
      return on.resolve(child.runId, "child-gate", { action: "accept" });
    },
  },
  {
    code: "interrupt_cancelled",
    http: 422,
    grpc: 9,
    async provoke(on) {
      const runId = await waiting(host, "conformance-approval", "waiting-approval");
      await on.cancel(runId);
      return on.resolve(runId, "gate", { action: "accept" });
    },
  },
  { code: "subscription_not_found", http: 404, grpc: 5, provoke: (on) => on.unregisterWebhook("no-such-webhook") },
  {
    code: "webhook_url_rejected",
    http: 400,
    grpc: 3,
    provoke: (on) => on.registerWebhook({ url: "https://169.254.169.254/latest", events: ["run.completed"] }),
  },
  {
    code: "run_terminal",
    http: 409,
    grpc: 9,
    details: { runStatus: "completed" },
    async provoke(on) {
      return on.pause(await waiting(host, "conformance-noop", "completed"));
    },
  },
  {
    code: "run_state_conflict",
    what: "resuming what waits",
    http: 409,
    grpc: 9,
    details: { runStatus: "waiting-approval" },
    provoke: async (on) => on.resume(await waiting(host, "conformance-approval", "waiting-approval")),
  },
  {
    code: "run_state_conflict",
    what: "pausing what waits",
    http: 409,
    grpc: 9,
    details: { runStatus: "waiting-approval" },
    provoke: async (on) => on.pause(await waiting(host, "conformance-approval", "waiting-approval")),
  },
  {
    code: "run_state_conflict",
    what: "pausing what is paused",
    http: 409,
    grpc: 9,
    details: { runStatus: "paused", pausedAt: expect.any(String) },
    async provoke(on) {
      const runId = await host.start("conformance-cancellable");
      await on.pause(runId, "immediate");
      return on.pause(runId, "immediate");
    },
  },
  {
    code: "idempotency_key_mismatch",
    http: 409,
    grpc: 10,
    async provoke(on) {
      const idempotencyKey = `mismatch-${on.name}`;
      await on.create({ workflowId: "conformance-noop" }, { idempotencyKey });
      return on.create({ workflowId: "conformance-multi-node" }, { idempotencyKey });
    },
  },
  {
    code: "idempotency_in_flight",
    http: 409,
    grpc: 10,
    details: { retryAfter: 1 },
    async provoke(on) {
      const idempotencyKey = `in-flight-${on.name}`;
      const body = { workflowId: "conformance-noop" };
      const digest = (text: string): string => createHash("sha256").update(text).digest("base64url");
      const elsewhere = {
        requestDigest: digest(canonicalJson(body)),
        executionId: "elsewhere",
        state: "pending",
        leaseOwner: "elsewhere",
        leaseUntil: Date.now() + 600_000,
      };
      await new Records<unknown>(host.bed.bus, buckets.runIdempotency).put(
        ["acme", "runs.create", digest(idempotencyKey)],
        elsewhere,
      );
      return on.create(body, { idempotencyKey });
    },
  },
  {
    code: "unsupported_stream_mode",
    http: 400,
    grpc: 3,
    details: { supported: ["updates", "values", "messages", "debug"] },
    provoke: async (on) => on.stream(await host.start("conformance-noop"), ["sideways"]),
  },
  {
    code: "mock_provider_forbidden",
    http: 403,
    grpc: 7,
    details: { requestedProvider: "stream-text", supportedProviders: expect.arrayContaining(["stream-text"]) },
    provoke: (on) =>
      on.create(
        { workflowId: "conformance-stream-text", configurable: { mockProvider: { id: "stream-text" } } },
        { key: KEYS.live },
      ),
  },
  {
    code: "unsupported_mock_provider",
    http: 400,
    grpc: 3,
    provoke: (on) =>
      on.create({ workflowId: "conformance-stream-text", configurable: { mockProvider: { id: "no-such" } } }),
  },
  {
    code: "unsupported_stream_mode",
    what: "values together with another",
    http: 400,
    grpc: 3,
    provoke: async (on) => on.stream(await host.start("conformance-noop"), ["values", "updates"]),
  },
  {
    code: "run_not_found",
    what: "its events",
    http: 404,
    grpc: 5,
    provoke: (on) => on.stream("no-such-run", ["debug"]),
  },
  { code: "run_not_found", what: "cancelling", http: 404, grpc: 5, provoke: (on) => on.cancel("no-such-run") },
  { code: "run_not_found", what: "forking", http: 404, grpc: 5, provoke: (on) => on.fork("no-such-run", "replay", 0) },
  { code: "run_not_found", what: "pausing", http: 404, grpc: 5, provoke: (on) => on.pause("no-such-run") },
  { code: "run_not_found", what: "answering", http: 404, grpc: 5, provoke: (on) => on.resolve("no-such-run", "n", {}) },
  { code: "workflow_not_found", what: "reading", http: 404, grpc: 5, provoke: (on) => on.workflow("no-such-workflow") },
  {
    code: "validation_error",
    what: "an overlay for a replay",
    http: 400,
    grpc: 3,
    provoke: async (on) => on.fork(await waiting(host, "conformance-noop", "completed"), "replay", 0, { tags: ["x"] }),
  },
  {
    code: "validation_error",
    what: "a range that ends before it begins",
    http: 400,
    grpc: 3,
    provoke: (on) => on.verifyAudit(5, 1),
  },
  {
    code: "validation_error",
    what: "a webhook without events",
    http: 400,
    grpc: 3,
    provoke: (on) => on.registerWebhook({ url: "https://example.com/", events: [] }),
  },
  {
    code: "capability_required",
    http: 422,
    grpc: 9,
    details: {
      requiredCapability: "conformance.mockAgent",
      offendingTypeId: "core.conformance.mock-agent",
      nodeId: "n",
    },
    async provoke(on) {
      // Registration refuses it; it was registered when the host still had the capability.
      const { bus } = host.bed;
      const definitions = new Definitions(
        new Records(bus, buckets.workflowVersions),
        new Records(bus, buckets.workflows),
      );
      const gated = workflow("gated", [node("n", "core.conformance.mock-agent")]);
      await definitions.register(
        SHARED_TENANT,
        gated as Parameters<Definitions["register"]>[1],
        new Date().toISOString(),
      );
      return on.create({ workflowId: "gated" });
    },
  },
  {
    code: "credential_forbidden",
    http: 403,
    grpc: 9,
    details: { provider: "acme" },
    provoke: (on) =>
      on.create({
        workflowId: "conformance-noop",
        configurable: { "ai.provider": "acme", "ai.credentialRef": "vault://mine" },
      }),
  },
  {
    code: "engine_version_mismatch",
    http: 409,
    grpc: 9,
    details: { runId: expect.any(String), persistedVersion: 9, currentVersion: 1 },
    provoke: async (on) => on.get(await newer()),
  },
  {
    code: "engine_version_mismatch",
    what: "its events",
    http: 409,
    grpc: 9,
    provoke: async (on) => on.stream(await newer(), ["debug"]),
  },
  {
    code: "internal_error",
    http: 500,
    grpc: 13,
    provoke: async (on) => on.get(await written(() => "this is no entry of a log")),
  },
  {
    code: "replay_source_missing",
    http: 422,
    grpc: 9,
    provoke: async (on) => on.fork(await waiting(host, "conformance-noop", "completed"), "replay", 9_999),
  },
];

describe("codes of answers", () => {
  test.concurrent.each(
    rows.map((row) => [row.what === undefined ? row.code : `${row.code}: ${row.what}`, row] as const),
  )("%s", { timeout: 40_000 }, async (_name, { code, http, grpc, details, provoke }) => {
    const [rest, rpc] = await Promise.all(surfaces.map((on) => provoke(on)));
    expect([rest?.status, rpc?.status], JSON.stringify([rest?.body, rpc?.body])).toEqual([http, grpc]);
    expect(rest?.body.error).toBe(code);
    expect(bare(withoutCorrelation(rpc?.body))).toEqual(bare(withoutCorrelation(rest?.body)));
    if (details !== undefined) expect(rest?.body.details).toMatchObject(details);
    expect(rest?.body.message).toEqual(expect.stringMatching(/./));
    expect(JSON.stringify([rest?.body, rpc?.body])).not.toMatch(/JSON|Error:|\.ts\b|nats|redis/i);
    expect(Object.keys(rest?.body).filter((key) => !["error", "message", "details"].includes(key))).toEqual([]);
  });
});

/** A server's failure over REST carries the id of its trace; over gRPC the trace is the call's own. */
function withoutCorrelation(body: Reply["body"]): unknown {
  const { correlationId: _, ...details } = body?.details ?? {};
  return { ...body, details };
}
