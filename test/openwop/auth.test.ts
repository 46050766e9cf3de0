/** Who may do what: every operation by its scope, over both surfaces, and nothing of what is there for those who may not (OpenWOP, authentication). */
import type { Metadata } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sha256, type StoredKey } from "../../edge/auth.ts";
import { verifies } from "../kit/verifies.ts";
import { KEYS, startHost, type Host, type Surfaces } from "./host.ts";
import { bare, waiting } from "./provoke.ts";
import { envelopeOf } from "./surface.ts";

interface Operation {
  readonly method: string;
  readonly path: string;
  readonly scopes: readonly string[];
  readonly body?: object;
  /** Its RPC and what that is asked; undefined for what REST alone has. */
  readonly rpc?: readonly [name: Parameters<Surfaces["grpc"]["call"]>[0] | "streamRunEvents", request: object];
}

const operations: readonly Operation[] = [
  { method: "GET", path: "/v1/workflows/w", scopes: ["manifest:read"], rpc: ["getWorkflow", { workflow_id: "w" }] },
  { method: "GET", path: "/v1/workflows", scopes: ["manifest:read"] },
  { method: "PUT", path: "/v1/workflows/w", scopes: ["workflows:manage"], body: {} },
  { method: "POST", path: "/v1/runs", scopes: ["runs:create"], body: {}, rpc: ["createRun", {}] },
  { method: "GET", path: "/v1/runs", scopes: ["runs:read"] },
  { method: "GET", path: "/v1/runs/r", scopes: ["runs:read"], rpc: ["getRun", { run_id: "r" }] },
  { method: "GET", path: "/v1/runs/r/events", scopes: ["runs:read"], rpc: ["streamRunEvents", { run_id: "r" }] },
  { method: "GET", path: "/v1/runs/r/events/poll", scopes: ["runs:read"] },
  { method: "GET", path: "/v1/runs/r:diff?against=s", scopes: ["runs:read"] },
  { method: "GET", path: "/v1/runs/r/ancestry", scopes: ["runs:read"] },
  { method: "GET", path: "/v1/runs/r/debug-bundle", scopes: ["runs:read"] },
  {
    method: "POST",
    path: "/v1/runs/r:fork",
    scopes: ["runs:create", "runs:read"],
    body: { mode: "replay" },
    rpc: ["forkRun", { run_id: "r", mode: "replay" }],
  },
  { method: "POST", path: "/v1/runs/r/cancel", scopes: ["runs:cancel"], body: {}, rpc: ["cancelRun", { run_id: "r" }] },
  { method: "POST", path: "/v1/runs:bulk-cancel", scopes: ["runs:cancel"], body: {}, rpc: ["bulkCancelRuns", {}] },
  { method: "POST", path: "/v1/runs/r:pause", scopes: ["runs:cancel"], body: {}, rpc: ["pauseRun", { run_id: "r" }] },
  { method: "POST", path: "/v1/runs/r:resume", scopes: ["runs:cancel"], body: {}, rpc: ["resumeRun", { run_id: "r" }] },
  {
    method: "POST",
    path: "/v1/runs/r/interrupts/n",
    scopes: ["approvals:respond"],
    body: { resumeValue: {} },
    rpc: ["resolveInterruptByRun", { run_id: "r", node_id: "n", resume_value: {} }],
  },
  {
    method: "GET",
    path: "/v1/runs/r/artifacts/a",
    scopes: ["artifacts:read"],
    rpc: ["getArtifact", { run_id: "r", artifact_id: "a" }],
  },
  { method: "POST", path: "/v1/webhooks", scopes: ["webhooks:manage"], body: {}, rpc: ["registerWebhook", {}] },
  { method: "GET", path: "/v1/webhooks", scopes: ["webhooks:manage"] },
  {
    method: "DELETE",
    path: "/v1/webhooks/h",
    scopes: ["webhooks:manage"],
    rpc: ["unregisterWebhook", { webhook_id: "h" }],
  },
  { method: "POST", path: "/v1/webhooks/h/redrive", scopes: ["webhooks:manage"], body: {} },
  {
    method: "GET",
    path: "/v1/audit/verify?fromSeq=0&toSeq=1",
    scopes: ["audit:read"],
    rpc: ["verifyAuditLog", { from_seq: 0n, to_seq: 1n }],
  },
];
const SCOPES = [...new Set(operations.flatMap(({ scopes }) => scopes))];
const without = (scope: string): string => `hk_test_without_${scope.replace(":", "_")}`;
const only = (scopes: readonly string[]): string => `hk_test_only_${scopes.join("_").replaceAll(":", "_")}`;
const ROTATED = ["hk_test_before_rotation", "hk_test_after_rotation"] as const;

const base = { id: "keeper", tenant: "acme" };
const keys: readonly StoredKey[] = [
  ...SCOPES.map((scope) => ({
    ...base,
    sha256: sha256(without(scope)),
    scopes: SCOPES.filter((one) => one !== scope),
  })),
  ...[...new Set(operations.map(({ scopes }) => only(scopes)))].map((key) => ({
    ...base,
    sha256: sha256(key),
    scopes: operations.find(({ scopes }) => only(scopes) === key)?.scopes ?? [],
  })),
  ...ROTATED.map((key) => ({ ...base, id: "turning", sha256: sha256(key), scopes: ["*"] })),
  { ...base, sha256: sha256(KEYS.old), scopes: ["*"], expires_at_ms: 1 },
  { ...base, sha256: sha256(KEYS.gone), scopes: ["*"], revoked_at_ms: 1 },
];

let host: Host;
let edge: Surfaces;
beforeAll(async () => {
  host = await startHost();
  edge = await host.listen({ keys });
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

interface Told {
  readonly status: number;
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any;
}

/** How an operation is answered over each surface it has; success is 0 over gRPC. */
async function ask(
  { method, path, body, rpc }: Operation,
  authorization: string,
  at: Surfaces = edge,
): Promise<{ rest: Told; grpc: Told | undefined }> {
  const headers: Record<string, string> = authorization === "" ? {} : { authorization };
  const { status, body: told } = await at.rest(method, path, body, headers, "");
  const rest = { status, body: told };
  if (rpc === undefined) return { rest, grpc: undefined };
  const [name, request] = rpc;
  try {
    if (name === "streamRunEvents")
      for await (const _ of at.grpc.stream(name, request, { metadata: headers })) continue;
    else await at.grpc.call(name, request, { metadata: headers });
    return { rest, grpc: { status: 0, body: undefined } };
  } catch (thrown) {
    const { code, metadata } = thrown as { code: number; metadata: Metadata };
    return { rest, grpc: { status: code, body: envelopeOf(metadata) } };
  }
}

describe.each(operations.map((one) => [`${one.method} ${one.path}`, one] as const))("%s", (_name, operation) => {
  test("401 for whoever shows nothing, the wrong thing, or what is no longer good: alike, and before anything else", async () => {
    const cases = [
      ["", "unauthenticated"],
      ["Bearer hk_test_nobody", "unauthenticated"],
      ["Bearer", "unauthenticated"],
      [`Basic ${ROTATED[0]}`, "unauthenticated"],
      [`Bearer ${KEYS.old}`, "key_expired"],
      [`Bearer ${KEYS.gone}`, "key_revoked"],
    ] as const;
    for (const [authorization, code] of cases) {
      const { rest, grpc } = await ask(operation, authorization);
      expect([authorization, rest.status, rest.body.error]).toEqual([authorization, 401, code]);
      if (grpc !== undefined) expect([grpc.status, bare(grpc.body)]).toEqual([16, bare(rest.body)]);
      expect(JSON.stringify([rest.body, grpc?.body])).not.toMatch(/hk_test/);
    }
  });

  test("403 naming the scope that lacks, whatever other scopes there are; with it alone, let in", async () => {
    for (const scope of operation.scopes) {
      const { rest, grpc } = await ask(operation, `Bearer ${without(scope)}`);
      expect([rest.status, rest.body.error, rest.body.details]).toEqual([403, "forbidden", { scopeRequired: scope }]);
      if (grpc !== undefined) expect([grpc.status, grpc.body]).toEqual([7, rest.body]);
    }
    const { rest, grpc } = await ask(operation, `Bearer ${only(operation.scopes)}`);
    expect([401, 403]).not.toContain(rest.status);
    expect([7, 16]).not.toContain(grpc?.status);
  });
});

test("no credential is needed for discovery, nor beside a token", async () => {
  expect((await edge.rest("GET", "/.well-known/openwop", undefined, {}, "")).status).toBe(200);
  expect((await edge.rest("GET", "/v1/openapi.json", undefined, {}, "")).status).toBe(200);
  await edge.grpc.call("getCapabilities", {}, {});
  const runId = await waiting(host, "conformance-interrupt-external-event", "waiting-external");
  const { interruptToken } = (await host.rest("GET", `/v1/runs/${runId}`)).body.interrupt;
  expect((await edge.rest("GET", `/v1/interrupts/${interruptToken}`, undefined, {}, "")).status).toBe(200);
  await edge.grpc.call("inspectInterruptByToken", { token: interruptToken }, {});
});

test("a key is replaced without a gap: both are one principal, and share its idempotency keys", async () => {
  const made = await Promise.all(
    ROTATED.map((key) =>
      edge.rest("POST", "/v1/runs", { workflowId: "conformance-noop" }, { "idempotency-key": "turn" }, key),
    ),
  );
  expect(made.map(({ status }) => status)).toEqual([201, 201]);
  expect(made[1]?.body.runId).toBe(made[0]?.body.runId);
  for (const key of ROTATED) {
    const { body } = await edge.rest("GET", `/v1/runs/${made[0]?.body.runId}`, undefined, {}, key);
    expect(body.owner).toEqual({ tenant: "acme", principal: "turning" });
  }
});

verifies(
  "tenant-wall",
  "another tenant's run is to every operation what an unknown one is, over both surfaces",
  async () => {
    const runId = await waiting(host, "conformance-approval", "waiting-approval");
    const about = (operation: Operation, id: string): Operation => ({
      ...operation,
      path: operation.path.replace(/^\/v1\/runs\/r\b/, `/v1/runs/${id}`),
      ...(operation.rpc !== undefined && { rpc: [operation.rpc[0], { ...operation.rpc[1], run_id: id }] }),
    });
    const hidden = (told: Told | undefined, id: string): string => JSON.stringify(told ?? null).replaceAll(id, "<run>");
    const ofRuns = operations.filter(({ path }) => /^\/v1\/runs\/r\b/.test(path));
    expect(ofRuns.length).toBeGreaterThan(10);
    for (const operation of ofRuns) {
      const [mine, unknown] = await Promise.all(
        [runId, "no-such-run"].map((id) => ask(about(operation, id), `Bearer ${KEYS.other}`, host)),
      );
      expect([operation.path, mine?.rest.status]).toEqual([operation.path, 404]);
      expect(hidden(mine?.rest, runId)).toBe(hidden(unknown?.rest, "no-such-run"));
      expect(hidden(mine?.grpc, runId)).toBe(hidden(unknown?.grpc, "no-such-run"));
    }
    expect((await host.rest("GET", `/v1/runs/${runId}`)).body.status).toBe("waiting-approval");
  },
);
