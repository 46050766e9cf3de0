/** The REST gateway as HTTP clients use it: the same operations, their errors, limits and streams. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { publish } from "../../bus/publish.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { ADMIN_KEY, startWorld, type World } from "../kit/world.ts";
import { callRest, putPolicy, type Answer, type Json } from "./kit.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    workers: ["routing", "usage"],
    syncInterval: "10s",
    env: { GATEWAY_RATE_LIMIT_DECIDE: "0", GATEWAY_RATE_LIMIT_MESSAGES: "0", GATEWAY_RATE_LIMIT_GLOBAL: "0" },
  });
  await putPolicy(world, "acme", "split", {
    providers: [
      { name: "a", weight: 70 },
      { name: "b", weight: 30 },
    ],
  });
}, 90_000);
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
});

const call = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> =>
  callRest(world, method, path, body, headers);

const acme = { "X-Tenant-ID": "acme" };
const key = { "x-api-key": ADMIN_KEY };
const seed = { message: { message_id: "rest-1", message_type: "chat", payload: "hi" }, policy_id: "split" };
const gateway = {
  version: "1",
  tenant_id: "acme",
  request_id: "req-1",
  task: { type: "chat", payload: { text: "hello there" } },
};

describe("decide", () => {
  test.each([
    ["the seed form", seed, (body: Json) => expect(body).toMatchObject({ reason: "weighted" })],
    [
      "the form of the C gateway",
      gateway,
      (body: Json) => expect(body).toMatchObject({ ok: true, context: { request_id: "req-1" } }),
    ],
  ])("%s", async (_, body, check) => {
    for (const path of ["routes/decide", "messages"]) {
      const answer = await call("POST", path, body, acme);
      expect(answer.status).toBe(200);
      check(answer.body);
    }
  });

  test("the decision of a message", async () => {
    await call("POST", "routes/decide", seed, acme);
    expect((await call("GET", "routes/decide/rest-1", undefined, acme)).body).toMatchObject({ reason: "weighted" });
    expect(await call("GET", "routes/decide/unknown", undefined, acme)).toMatchObject({
      status: 404,
      body: {
        ok: false,
        error: { code: "policy_not_found", intake_error_code: null, details: { message_id: "unknown" } },
      },
    });
  });

  verifies("clear-failure", "every refusal has its status, its code and the whole body of the contract", async () => {
    const refused: [unknown, Record<string, string>, number, object][] = [
      [
        "{oops",
        acme,
        400,
        { code: "invalid_request", message: "Failed to parse JSON", intake_error_code: "SCHEMA_VALIDATION_FAILED" },
      ],
      [seed, {}, 400, { code: "invalid_request", details: { field: "tenant_id" } }],
      [seed, { "X-Tenant-ID": "no spaces" }, 400, { code: "invalid_request", details: { field: "X-Tenant-ID" } }],
      [{ ...gateway, version: "2" }, acme, 400, { intake_error_code: "VERSION_UNSUPPORTED" }],
      [{ ...gateway, policy_id: "nope" }, acme, 404, { code: "policy_not_found", intake_error_code: null }],
      [seed, { ...acme, authorization: "Bearer unknown" }, 401, { code: "unauthorized" }],
      ["x".repeat(1_100_000), acme, 400, { code: "invalid_request", message: "Payload size exceeds limit" }],
    ];
    for (const [body, headers, status, error] of refused) {
      const answer = await call("POST", "routes/decide", body, headers);
      expect([answer.status, answer.body]).toMatchObject([
        status,
        {
          ok: false,
          error: { ...error, message: expect.any(String) as unknown },
          context: { request_id: expect.any(String) as unknown },
        },
      ]);
      expect(Object.keys(answer.body["error"] as Json)).toEqual(["code", "message", "intake_error_code", "details"]);
      expect(Object.keys(answer.body["context"] as Json)).toEqual(["request_id", "trace_id", "tenant_id"]);
    }
  });

  test("a key with another body is 409, with the same body the same answer", async () => {
    const keyed = { ...seed, idempotency_key: "rest-key" };
    const first = await call("POST", "routes/decide", keyed, acme);
    expect(await call("POST", "routes/decide", keyed, acme)).toMatchObject({ status: 200, body: first.body });
    const other = { ...keyed, context: { more: "1" } };
    expect(await call("POST", "routes/decide", other, acme)).toMatchObject({
      status: 409,
      body: { error: { code: "invalid_request", intake_error_code: "IDEMPOTENCY_VIOLATION" } },
    });
  });

  test("messages: PUT gives back what was put, DELETE says so, a wrong id is 409", async () => {
    expect(await call("PUT", "messages/m9", { message_id: "m9", a: 1.5 }, acme)).toMatchObject({
      status: 200,
      body: { message_id: "m9", a: 1.5 },
    });
    expect(await call("PUT", "messages/m9", { message_id: "m8" }, acme)).toMatchObject({ status: 409 });
    expect(await call("DELETE", "messages/m9", undefined, acme)).toMatchObject({
      status: 200,
      body: { status: "deleted", message_id: "m9" },
    });
    expect(await call("GET", "nothing/here")).toMatchObject({ status: 404, body: { ok: false } });
  });
});

describe("policies and extensions", () => {
  const document = { version: "1.0", providers: [{ name: "x", weight: 100 }], pre: [{ id: "e1" }] };

  test("made, read, listed, rated, tried, removed", async () => {
    expect((await call("PUT", "policies/rest/p1", document, key)).body).toMatchObject({
      policy_id: "p1",
      tenant_id: "rest",
      ...document,
    });
    expect(await call("POST", "policies/rest", { ...document, policy_id: "p2" }, key)).toMatchObject({
      status: 201,
      body: { policy_id: "p2" },
    });
    expect((await call("GET", "policies/rest/p1", undefined, key)).body).toMatchObject(document);
    for (const [method, path] of [
      ["GET", ""],
      ["POST", "/sync"],
      ["POST", "/reconcile"],
    ] as const)
      expect((await call(method, `policies/rest${path}`, undefined, key)).body["policies"]).toMatchObject([
        { policy_id: "p1" },
        { policy_id: "p2" },
      ]);
    expect((await call("GET", "policies/rest/p1/complexity", undefined, key)).body).toMatchObject({
      complexity: { total_extensions: 1, complexity_score: 15 },
    });
    expect(
      (await call("POST", "policies/dry-run", { tenant_id: "rest", policy_id: "p1", payload: "x" }, key)).body,
    ).toMatchObject({
      ok: true,
      result: { decision: { provider_id: "x" }, executed_extensions: [{ id: "e1", status: "skipped" }] },
    });
    expect((await call("DELETE", "policies/rest/p2", undefined, key)).body).toMatchObject({ ok: true });
    expect((await call("GET", "policies/rest/p2", undefined, key)).status).toBe(404);
    expect((await call("GET", "extensions/health", undefined, key)).body).toEqual({ health: {} });
    expect((await call("GET", "extensions/circuit-breakers", undefined, key)).body).toEqual({ states: {} });
  });

  verifies("clear-failure", "without the admin key nothing is read or changed; a mistake names its field", async () => {
    for (const headers of [{}, { "x-api-key": "wrong-key-1" }, { authorization: "Bearer wrong-key-1" }])
      expect(await call("PUT", "policies/rest/p3", document, headers)).toMatchObject({
        status: 401,
        body: { error: { code: "unauthorized" } },
      });
    expect((await call("GET", "policies/rest/p3", undefined, key)).status).toBe(404);
    expect(
      await call("PUT", "policies/rest/p3", { version: "1.0", providers: [{ name: "x", weight: 200 }] }, key),
    ).toMatchObject({
      status: 400,
      body: { error: { code: "invalid_request", details: { field: "policy.providers[0].weight" } } },
    });
  });
});

describe("streams", () => {
  async function* eventsOf(path: string, headers: Record<string, string> = {}): AsyncGenerator<string> {
    const response = await fetch(`http://${world.http}/api/v1/${path}`, { headers });
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
    const decoder = new TextDecoder();
    let held = "";
    for await (const chunk of response.body ?? []) {
      held += decoder.decode(chunk as Uint8Array, { stream: true });
      for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
        yield held.slice(0, end);
        held = held.slice(end + 2);
      }
    }
  }
  const report = (assignment_id: string, tenant_id = "acme"): Promise<unknown> => {
    const body = {
      version: "1",
      assignment_id,
      status: "success",
      provider_id: "p",
      tenant_id,
      job: { type: "echo" },
      latency_ms: 1,
      cost: 0,
    };
    return publish(world.bus, "caf.exec.result.v1", JSON.stringify(body), { msgId: `result-${assignment_id}` });
  };
  const dataIn = (frame: string): Json => JSON.parse(/^data: (.*)$/m.exec(frame)?.[1] ?? "{}") as Json;

  test("a result that comes, heartbeats before it, and one that came before the client did", async () => {
    const frames = eventsOf("results/stream?assignment_id=live-1&heartbeat_ms=200", acme);
    expect((await frames.next()).value).toBe(": connected");
    expect(dataIn(String((await frames.next()).value))).toMatchObject({
      heartbeat: true,
      ts: expect.any(Number) as unknown,
    });
    await report("live-1");
    await report("someone-else");
    const found = await until(async () => {
      const { value } = await frames.next();
      const data = dataIn(String(value));
      return data["heartbeat"] === true ? undefined : data;
    });
    expect(found).toMatchObject({ assignment_id: "live-1", status: "success" });
    await frames.return(undefined);

    const seen: Json[] = [];
    for await (const frame of eventsOf("results/stream?assignment_id=live-1&close_after_ms=400", acme))
      if (frame.includes("data:")) seen.push(dataIn(frame));
    expect(seen).toMatchObject([{ assignment_id: "live-1" }]);
  });

  verifies("tenant-wall", "nobody sees another tenant's result", async () => {
    await report("theirs", "evil");
    const seen: string[] = [];
    for await (const frame of eventsOf("results/stream?assignment_id=theirs&close_after_ms=400", acme))
      seen.push(frame);
    expect(seen).toEqual([": connected"]);
    expect((await call("GET", "results/stream", undefined, acme)).status).toBe(400);
    expect((await call("GET", "results/stream?assignment_id=theirs&tenant_id=evil", undefined, acme)).status).toBe(403);
  });

  test("messages of a tenant", async () => {
    const frames = eventsOf("messages/stream?tenant_id=acme");
    await frames.next();
    await call("POST", "messages", seed, acme);
    await call("DELETE", "messages/rest-1", undefined, acme);
    expect(String((await frames.next()).value)).toMatch(/^event: message_created\ndata: .*"message_id":"rest-1"/);
    expect(String((await frames.next()).value)).toMatch(/^event: message_deleted/);
    await frames.return(undefined);
    expect((await call("GET", "messages/stream")).status).toBe(400);
  });
});

test("usage is what the usage worker counts", async () => {
  expect(await call("GET", "usage?tenant_id=acme&start_date=2026-01-01&end_date=2026-01-31")).toMatchObject({
    status: 200,
    body: { tenant_id: "acme", total_requests: 0, records: [] },
  });
  expect((await call("GET", "usage")).status).toBe(400);
});

test("the gateway's metrics are there, by route pattern", async () => {
  const text = await (await fetch(`http://${world.http}/metrics`)).text();
  expect(text).toContain('gateway_http_requests_total{method="POST",path="/api/v1/routes/decide",status="200"}');
  expect(text).toContain('gateway_nats_messages_sent_total{subject="beamline.router.v1.decide"}');
});
