/** Error codes that REST alone can provoke: what does it has no field in the messages of gRPC (OpenWOP, errors). */
import { afterAll, beforeAll, expect, test } from "vitest";
import { KEYS, startHost, type Got, type Host } from "./host.ts";
import { node, waiting, workflow } from "./provoke.ts";
import { grpcSurface, restSurface } from "./surface.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

const noop = { workflowId: "conformance-noop" };
function post(body: object, headers: Record<string, string> = {}, key: string = KEYS.full): Promise<Got> {
  return host.rest("POST", "/v1/runs", body, headers, key);
}

test("not_found: a path that is no route; bulk items name it over both", async () => {
  const { status, body } = await host.rest("GET", "/v1/nothing-here");
  expect([status, Object.keys(body)]).toEqual([404, ["error", "message"]]);
  expect(body.error).toBe("not_found");
  for (const on of [restSurface(host), grpcSurface(host)]) {
    const ended = await waiting(host, "conformance-noop", "completed");
    const { results } = (await on.bulkCancel(["no-such-run", ended])).body;
    expect(results.map((one: { error: { code: string } }) => one.error.code)).toEqual(["not_found", "run_terminal"]);
  }
});

test("validation_error: a root without its version", async () => {
  for (const path of [
    "/runs",
    "/runs/r",
    "/workflows/w",
    "/runs:bulk-cancel",
    "/interrupts/t",
    "/webhooks",
    "/audit/verify",
    "/openapi.json",
  ]) {
    const { status, body } = await host.rest(path.includes("bulk") ? "POST" : "GET", path, undefined, {}, "");
    expect([path, status, body.error]).toEqual([path, 400, "validation_error"]);
    expect(body.message).toContain(`/v1${path}`);
  }
});

test("run_already_active: one active run of a scope, with X-Dedup", async () => {
  const scoped = { workflowId: "conformance-approval", scopeId: "one-at-a-time" };
  const first = await post(scoped, { "x-dedup": "enforce" });
  const second = await post(scoped, { "x-dedup": "enforce" });
  expect([first.status, second.status, second.body.error]).toEqual([201, 409, "run_already_active"]);
  const { activeRunId, activeHost, retryAfter } = second.body.details;
  expect([activeRunId, activeHost]).toEqual([first.body.runId, "cloud"]);
  expect(second.headers.get("retry-after")).toBe(String(retryAfter));
  expect((await post(scoped)).status).toBe(201);
  await host.rest("POST", `/v1/runs/${activeRunId}/cancel`);
  expect((await post(scoped, { "x-dedup": "enforce" })).status).toBe(201);
});

test("capability_not_provided: evaluation runs, residency", async () => {
  for (const asked of [
    { mode: "eval", evalSuiteRef: "s", agentId: "a" },
    { ...noop, residency: { region: "eu" } },
  ]) {
    const { status, body } = await post(asked);
    expect([status, body.error, typeof body.details.capability]).toEqual([501, "capability_not_provided", "string"]);
  }
});

test("forced engine versions: for test keys, within the range of discovery", async () => {
  const live = await post(noop, { "x-force-engine-version": "1" }, KEYS.live);
  expect([live.status, live.body.error]).toEqual([403, "force_engine_version_forbidden"]);
  for (const version of ["99", "x", "-1"]) {
    const { status, body } = await post(noop, { "x-force-engine-version": version });
    expect([status, body.error]).toEqual([400, "unsupported_force_engine_version"]);
  }
  const { min, max } = (await host.rest("GET", "/.well-known/openwop")).body.testing.forceEngineVersionRange;
  for (const version of [min, max]) {
    const { body } = await post(
      { workflowId: "conformance-version-fold" },
      { "x-force-engine-version": String(version) },
    );
    expect((await host.reaches(body.runId, "completed")).engineVersion).toBe(String(version));
  }
});

test("capability_required at registration; a tenant that is not the credential's", async () => {
  const agent = workflow("agent", [node("n", "core.conformance.mock-agent")]);
  const refused = await host.rest("PUT", "/v1/workflows/agent", agent);
  expect([refused.status, refused.body.error, refused.body.details.nodeId]).toEqual([422, "capability_required", "n"]);
  const foreign = await post({ ...noop, tenantId: "other" });
  expect([foreign.status, foreign.body.error]).toEqual([403, "forbidden"]);
});

test("bodies that are none, unknown keys, wrong types", async () => {
  for (const body of ["", "null", "[]", "{", '{"workflowId":1}', '{"workflowId":"conformance-noop","more":1}']) {
    const refused = await host.rest("POST", "/v1/runs", body);
    expect([body, refused.status, refused.body.error]).toEqual([body, 400, "validation_error"]);
  }
});
