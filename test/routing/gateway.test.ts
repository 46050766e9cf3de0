/** What the REST gateway does itself: limits, order of refusals, abuse, ids that make a request one request, the registry of blocks. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { callRest, type Answer } from "./kit.ts";

const unlimited = {
  GATEWAY_RATE_LIMIT_MESSAGES: "0",
  GATEWAY_RATE_LIMIT_REGISTRY: "0",
  GATEWAY_RATE_LIMIT_GLOBAL: "0",
};

let world: World;
let narrow: World;
let watched: World;
let brief: World;
beforeAll(async () => {
  const worker = { workers: ["routing"], syncInterval: "10s" };
  world = await startWorld({ ...worker, env: unlimited });
  narrow = await startWorld({ ...worker, env: { GATEWAY_RATE_LIMIT_DECIDE: "3", BEAMLINE_ALLOW_ANONYMOUS: "true" } });
  watched = await startWorld({ ...worker, env: { GATEWAY_ABUSE_DETECTION: "true" } });
  brief = await startWorld({ ...worker, env: { ...unlimited, IDEMPOTENCY_TTL_MS: "3000" } });
}, 120_000);
afterAll(async () => {
  for (const one of [world, narrow, watched, brief]) await one?.[Symbol.asyncDispose]();
}, 60_000);

const call = (
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
  to = world,
): Promise<Answer> => callRest(to, method, path, body, headers);

const acme = { "X-Tenant-ID": "acme" };
const seed = { message: { message_id: "rest-1", message_type: "chat", payload: "hi" } };
const gateway = { version: "1", request_id: "req-1", task: { type: "chat", payload: { text: "hello there" } } };

describe("limits", () => {
  /** Four calls inside one window: with another tenant when the minute turned meanwhile. */
  async function four(): Promise<[Answer, Answer, Answer, Answer]> {
    for (let n = 0; ; n++) {
      const tenant = { "X-Tenant-ID": `narrow-${n}` };
      const call3 = (): Promise<Answer> => call("POST", "routes/decide", gateway, tenant, narrow);
      const [one, two, three] = [await call3(), await call3(), await call3()];
      const last = await call(
        "POST",
        "routes/decide",
        "{oops",
        { ...tenant, authorization: "Bearer nobody's" },
        narrow,
      );
      const fourth = await call("POST", "routes/decide", "{oops", tenant, narrow);
      const resets = [one, two, three, fourth].map(({ headers }) => headers.get("X-RateLimit-Reset"));
      if (new Set(resets).size === 1) return last.status === 401 ? [one, two, three, fourth] : [one, two, three, last];
    }
  }

  test("the headers count down, then 429 with when to come back; the limit goes before everything else", async () => {
    const [one, two, three, refused] = await four();
    for (const { status, headers } of [one, two, three]) {
      expect(status).toBe(200);
      expect(headers.get("X-RateLimit-Limit")).toBe("3");
    }
    expect([one, two, three].map(({ headers }) => headers.get("X-RateLimit-Remaining"))).toEqual(["2", "1", "0"]);
    expect(refused.status).toBe(429);
    const seconds = Number(refused.headers.get("Retry-After"));
    expect(seconds).toBeGreaterThan(0);
    expect(refused.body).toMatchObject({
      ok: false,
      error: {
        code: "rate_limit_exceeded",
        intake_error_code: null,
        details: { endpoint: "decide", limit: 3, retry_after_seconds: seconds },
      },
    });
    expect(refused.headers.get("X-RateLimit-Remaining")).toBe("0");
    expect(Number(refused.headers.get("X-RateLimit-Reset")) * 1_000).toBeGreaterThan(Date.now() - 60_000);
  });

  test("of what is wrong at once the first of the contract's order is told", async () => {
    // Credential (2) before the request (3) before the router (4).
    expect(
      await call("POST", "routes/decide", "{oops", { "X-Tenant-ID": "a b", authorization: "Bearer nobody's" }),
    ).toMatchObject({ status: 401, body: { error: { code: "unauthorized" } } });
    expect(await call("POST", "routes/decide", "{oops", { "X-Tenant-ID": "a b" })).toMatchObject({
      status: 400,
      body: { error: { details: { field: "X-Tenant-ID" }, intake_error_code: null } },
    });
    expect(await call("POST", "routes/decide", "{oops", acme)).toMatchObject({
      status: 400,
      body: { error: { intake_error_code: "SCHEMA_VALIDATION_FAILED" } },
    });
  });

  test("the registry has its own", async () => {
    const { headers } = await call("GET", "registry/blocks", undefined, { "X-Tenant-ID": "counted" }, narrow);
    expect(headers.get("X-RateLimit-Limit")).toBe("200");
  });

  test("abuse is refused for a while, when that is switched on", async () => {
    const abused = { "X-Tenant-ID": "hopping" };
    for (let n = 0; n < 20; n++)
      await call("GET", "registry/blocks", undefined, { "X-Tenant-ID": `hop-${n}` }, watched);
    expect(await call("GET", "registry/blocks", undefined, abused, watched)).toMatchObject({
      status: 429,
      body: { error: { code: "rate_limit_exceeded", details: { endpoint: "abuse", reason: "tenant_hopping" } } },
    });
    const again = await call("GET", "registry/blocks", undefined, abused, watched);
    expect(again).toMatchObject({ status: 429, body: { error: { details: { reason: "blocked" } } } });
    expect(Number(again.headers.get("Retry-After"))).toBeGreaterThan(200);
    const metrics = await (await fetch(`http://${watched.http}/metrics`)).text();
    expect(metrics).toMatch(/gateway_abuse_detected_total\{kind="tenant_hopping"\} 1/);
  });
});

describe("ids that make a request one request", () => {
  test.each(["assignment_id", "ack_id", "usage_id"])(
    "%s: the same answer again, 409 for another payload",
    async (name) => {
      const keyed = { ...seed, [name]: `once-${name}`, message: { ...seed.message, message_id: `by-${name}` } };
      const first = await call("POST", "messages", keyed, acme);
      expect(first.status).toBe(200);
      for (let n = 0; n < 5; n++)
        expect(await call("POST", "messages", keyed, acme)).toMatchObject({ status: 200, body: first.body });
      expect(await call("POST", "messages", { ...keyed, context: { more: "1" } }, acme)).toMatchObject({
        status: 409,
        body: { error: { intake_error_code: "IDEMPOTENCY_VIOLATION" } },
      });
      // Another tenant's id is another id.
      expect(
        (await call("POST", "messages", { ...keyed, context: { other: "1" } }, { "X-Tenant-ID": "other" })).status,
      ).toBe(200);
    },
  );

  test("after its time an id is new", async () => {
    const keyed = { ...seed, assignment_id: "brief" };
    const other = { ...keyed, message: { ...seed.message, payload: "another" } };
    expect((await call("POST", "messages", keyed, acme, brief)).status).toBe(200);
    expect((await call("POST", "messages", other, acme, brief)).status).toBe(409);
    await until(async () => (await call("POST", "messages", other, acme, brief)).status === 200, "the id to be new");
  });
});

describe("the registry of blocks", () => {
  const path = "registry/blocks/http.request/1.0.0";
  const block = { inputs: { url: "string" } };

  test("registered, read, replaced, listed, removed", async () => {
    expect(await call("PUT", path, block, acme)).toMatchObject({ status: 404 });
    const made = { type: "http.request", version: "1.0.0", ...block };
    expect(await call("POST", path, block, acme)).toMatchObject({ status: 201, body: made });
    expect(await call("POST", path, block, acme)).toMatchObject({ status: 200, body: made });
    expect(await call("POST", path, { other: 1 }, acme)).toMatchObject({ status: 409 });
    expect(await call("PUT", path, { ...made, outputs: {} }, acme)).toMatchObject({
      status: 200,
      body: { outputs: {} },
    });
    expect(await call("GET", path, undefined, acme)).toMatchObject({ status: 200, body: { ...made, outputs: {} } });
    await call("POST", "registry/blocks/http.request/2.0.0", {}, acme);
    expect((await call("GET", "registry/blocks", undefined, acme)).body["blocks"]).toHaveLength(2);
    expect(await call("DELETE", path, undefined, acme)).toMatchObject({
      status: 200,
      body: { status: "deleted", type: "http.request", version: "1.0.0" },
    });
    expect(await call("DELETE", path, undefined, acme)).toMatchObject({ status: 404 });
    expect(await call("GET", path, undefined, acme)).toMatchObject({ status: 404 });
  });

  verifies(
    "clear-failure",
    "what contradicts the path is 409, a mistake is 400 by its field, and neither is stored",
    async () => {
      const refused: [string, unknown, number, string][] = [
        [path, { ...block, version: "2.0.0" }, 409, "version"],
        [path, { ...block, type: "sql" }, 409, "type"],
        [path, "{oops", 400, "body"],
        [path, [1], 400, "body"],
        ["registry/blocks/a%20b/1", block, 400, "type"],
        ["registry/blocks/a/%E2%82%AC", block, 400, "version"],
        [path, { text: "x".repeat(262_144) }, 400, "block"],
      ];
      for (const [at, body, status, field] of refused)
        for (const method of ["POST", "PUT"])
          expect(await call(method, at, body, { "X-Tenant-ID": "careful" }), `${method} ${at}`).toMatchObject({
            status,
            body: { error: { details: { field } } },
          });
      expect(await call("POST", path, block)).toMatchObject({
        status: 400,
        body: { error: { details: { field: "X-Tenant-ID" } } },
      });
      expect((await call("GET", "registry/blocks", undefined, { "X-Tenant-ID": "careful" })).body).toEqual({
        blocks: [],
      });
    },
  );

  verifies("tenant-wall", "nobody sees or changes another tenant's blocks", async () => {
    await call("POST", "registry/blocks/mine/1", block, { "X-Tenant-ID": "owner" });
    for (const [method, body] of [
      ["GET", undefined],
      ["PUT", block],
      ["DELETE", undefined],
    ] as const)
      expect((await call(method, "registry/blocks/mine/1", body, { "X-Tenant-ID": "stranger" })).status).toBe(404);
    expect((await call("GET", "registry/blocks/mine/1", undefined, { "X-Tenant-ID": "owner" })).status).toBe(200);
  });
});
