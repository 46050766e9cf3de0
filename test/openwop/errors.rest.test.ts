/** Error codes that REST alone can provoke: what does it has no field in the messages of gRPC (OpenWOP, errors). */
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { afterAll, beforeAll, expect, test } from "vitest";
import { KEYS, startHost, type Got, type Host } from "./host.ts";
import { node, waiting, workflow } from "./provoke.ts";
import { grpcSurface, restSurface } from "./surface.ts";

interface Loaded {
  readonly openwop: {
    readonly v1: {
      readonly Engine: new (
        address: string,
        credentials: grpc.ChannelCredentials,
      ) => grpc.Client & {
        GetRun(request: object, metadata: grpc.Metadata, done: grpc.requestCallback<unknown>): void;
        StreamRunEvents(request: object, metadata: grpc.Metadata): AsyncIterable<unknown>;
      };
    };
  };
}

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

test("capability_not_provided: annotations, for whoever may ask", async () => {
  for (const method of ["GET", "POST"]) {
    const { status, body } = await host.rest(method, "/v1/runs/any/annotations");
    expect([status, body.error, body.details.capability]).toEqual([501, "capability_not_provided", "feedback"]);
    expect((await host.rest(method, "/v1/runs/any/annotations", undefined, {}, "")).status).toBe(401);
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

test("validation_error: what no route is found for is an envelope all the same", async () => {
  const bad = ["/v1/runs/%zz", "/v1/%E0%A4%A", "/v1/interrupts/%", `/v1/runs?q=${"x".repeat(20_000)}`];
  for (const [at, path] of bad.entries()) {
    const { status, body } = await host.rest("GET", path);
    expect([at, status, Object.keys(body)]).toEqual([at, at === 3 ? 431 : 400, ["error", "message"]]);
    expect(body.error).toBe("validation_error");
  }
});

test("validation_error: a body nested deeper than anything can walk through, over both", async () => {
  const nested = (levels: number): string => `{"a":${"[".repeat(levels)}${"]".repeat(levels)}}`;
  const create = async (levels: number, headers: Record<string, string> = {}): Promise<Got> => {
    const body = `{"workflowId":"conformance-noop","inputs":${nested(levels)}}`;
    const answer = await fetch(`${host.base}/v1/runs`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEYS.full}`, ...headers },
      body,
    });
    return { status: answer.status, body: await answer.json(), headers: answer.headers };
  };
  expect((await create(27)).status).toBe(201);
  for (const levels of [29, 3_000, 100_000]) {
    const { status, body } = await create(levels, { "idempotency-key": `nested-${levels}` });
    expect([status, body.error, body.details]).toEqual([400, "validation_error", { field: "body" }]);
  }
  const inputs: unknown = JSON.parse(nested(29));
  const { status, body } = await grpcSurface(host).create({ workflowId: "conformance-noop", inputs });
  expect([status, body.error]).toEqual([3, "validation_error"]);
});

test("a number JSON has no word for is refused by its place", async () => {
  const inputs = { payload: [1, Number.NaN] };
  const { status, body } = await grpcSurface(host).create({ workflowId: "conformance-identity", inputs });
  expect([status, body.error]).toEqual([3, "validation_error"]);
  expect(body.message).toBe("inputs.payload[1] must be a finite number");
});

test("what is as deep as a body may be is read over gRPC by a client that stops at a hundred nested messages", async () => {
  let deep: unknown = 1;
  for (let level = 0; level < 28; level++) deep = { a: deep };
  const { body } = await post({ workflowId: "conformance-identity", inputs: { payload: deep } });
  const snapshot = await host.reaches(body.runId, "completed");
  expect(snapshot.variables.payload).toEqual(deep);
  const options = { includeDirs: ["proto"], keepCase: true, longs: Number };
  const loaded = grpc.loadPackageDefinition(loader.loadSync("openwop/v1/openwop.proto", options)) as unknown as Loaded;
  const engine = new loaded.openwop.v1.Engine(host.grpcAddress, grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${KEYS.full}`);
  const read = new Promise((resolve, reject) =>
    engine.GetRun({ run_id: body.runId }, metadata, (error, reply) => (error ? reject(error) : resolve(reply))),
  );
  const told = engine.StreamRunEvents({ run_id: body.runId, last_sequence: -1, stream_modes: ["debug"] }, metadata);
  const events: unknown[] = [];
  for await (const event of told) events.push(event);
  expect([await read, events.length]).toEqual([expect.anything(), (await host.events(body.runId)).length]);
  engine.close();
});

test("ids as long as the contract allows are read, and longer ones are not found", async () => {
  const [id, gate] = [`w${"a".repeat(127)}`, "g".repeat(128)];
  expect((await host.rest("PUT", `/v1/workflows/${id}`, workflow(id, [node(gate, "core.approvalGate")]))).status).toBe(
    201,
  );
  expect((await host.rest("GET", `/v1/workflows/${id}`)).body.id).toBe(id);
  const runId = await waiting(host, id, "waiting-approval");
  const answer = await host.rest("POST", `/v1/runs/${runId}/interrupts/${gate}`, { resumeValue: { action: "accept" } });
  expect(answer.status).toBe(200);
  for (const [path, code] of [
    [`/v1/workflows/${id}${id}`, "workflow_not_found"],
    [`/v1/runs/${id}${id}`, "run_not_found"],
  ] as const) {
    const { status, body } = await host.rest("GET", path);
    expect([path, status, body.error]).toEqual([path, 404, code]);
  }
});

test("HEAD of a stream says what GET would, and does not wait for the run", async () => {
  const runId = await waiting(host, "conformance-approval", "waiting-approval");
  const answer = await fetch(`${host.base}/v1/runs/${runId}/events`, {
    method: "HEAD",
    headers: { authorization: `Bearer ${KEYS.full}` },
  });
  expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"]);
  expect(await answer.text()).toBe("");
  expect((await host.rest("HEAD", "/v1/runs/no-such-run/events")).status).toBe(404);
});
