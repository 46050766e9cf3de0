/** Two routing workers and one Redis: sessions, keys and limits are the same on both, and survive what Redis forgets. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { flushRedis } from "../execution/flush.redis.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type Running, type World } from "../kit/world.ts";
import { countKeys } from "./hot.redis.ts";
import { ask, exchange, putPolicy, request, type Json } from "./kit.ts";

const seventyThirty = {
  providers: [
    { name: "openai", weight: 70 },
    { name: "anthropic", weight: 30 },
  ],
};
const sticky = { ...seventyThirty, sticky: { enabled: true, session_key: "user_id", ttl: "10m" } };

let world: World;
let second: Running;
beforeAll(async () => {
  world = await startWorld({
    workers: ["routing"],
    syncInterval: "10s",
    env: { BEAMLINE_ROUTER_TENANT_LIMITS: "narrow=3" },
  });
  second = await world.startWorker("routing");
  await putPolicy(world, "acme", "plain", seventyThirty);
  await putPolicy(world, "other", "plain", seventyThirty);
  await putPolicy(world, "narrow", "plain", seventyThirty);
  await putPolicy(world, "acme", "sticky", sticky);
  await putPolicy(world, "acme", "brief", { ...sticky, sticky: { ...sticky.sticky, ttl_seconds: 1 } });
  await putPolicy(world, "acme", "slow", {
    ...seventyThirty,
    rate_limit: { enabled: true, requests_per_second: 1, burst: 3 },
  });
  await until(async () => {
    const found = await many(20, () => request("acme", "plain"));
    return found.every((reply) => "provider_id" in reply);
  }, "the policies on both workers");
}, 60_000);
afterAll(() => world[Symbol.asyncDispose]());

const many = (count: number, make: (i: number) => Json): Promise<Json[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => ask(world, make(i))));

describe("sessions", () => {
  test("calls of one session that overlap on two workers get one provider, and one of them made it", async () => {
    const found = await many(60, () => request("acme", "sticky", { context: { user_id: "u1" } }));
    expect(new Set(found.map(({ provider_id }) => provider_id)).size).toBe(1);
    expect(found.filter(({ reason }) => reason === "weighted")).toHaveLength(1);
    expect(found.filter(({ reason, priority }) => reason === "sticky" && priority === 100)).toHaveLength(59);
  });

  test("the TTL of the policy ends a session", async () => {
    const one = (): Json => request("acme", "brief", { context: { user_id: "u2" } });
    expect(await ask(world, one())).toMatchObject({ reason: "weighted" });
    expect(await ask(world, one())).toMatchObject({ reason: "sticky" });
    const left = (): Promise<number> => countKeys(world.servers.redis.url, "beamline:routing:session:acme:u2");
    expect(await left()).toBe(1);
    await until(async () => (await left()) === 0, "the end of the session");
    expect(await ask(world, one())).toMatchObject({ reason: "weighted" });
  });
});

describe("idempotency", () => {
  verifies("effect-once", "the same key on two workers at once is one decision", async () => {
    const found = await many(60, () => request("acme", "plain", { idempotency_key: "once" }));
    expect(new Set(found.map((reply) => JSON.stringify(reply))).size).toBe(1);
  });

  test("the same key with another payload is a violation, and two tenants share no key", async () => {
    const first = await ask(world, request("acme", "plain", { idempotency_key: "mine" }));
    expect(first).toHaveProperty("provider_id");
    expect(
      await ask(world, request("acme", "plain", { idempotency_key: "mine", message: { payload: "other" } })),
    ).toMatchObject({
      ok: false,
      error: {
        code: "invalid_request",
        intake_error_code: "IDEMPOTENCY_VIOLATION",
        details: { field: "idempotency_key" },
      },
    });
    expect(
      await ask(world, request("other", "plain", { idempotency_key: "mine", message: { payload: "other" } })),
    ).toHaveProperty("provider_id");
  });

  test("a request that was refused has not used its key", async () => {
    expect(await ask(world, request("acme", "nowhere", { idempotency_key: "again" }))).toMatchObject({
      error: { code: "policy_not_found" },
    });
    expect(await ask(world, request("acme", "plain", { idempotency_key: "again" }))).toHaveProperty("provider_id");
  });

  verifies("log-is-truth", "keys survive a flush of Redis: replayed, conflicting ones refused", async () => {
    const keys = Array.from({ length: 20 }, (_, i) => `flushed-${i}`);
    const before = await many(20, (i) => request("acme", "plain", { idempotency_key: keys[i] }));
    await flushRedis(world.servers.redis.url);
    const after = await many(20, (i) => request("acme", "plain", { idempotency_key: keys[i] }));
    expect(after).toEqual(before);
    expect(
      await ask(world, request("acme", "plain", { idempotency_key: keys[0], message: { payload: "other" } })),
    ).toMatchObject({ error: { intake_error_code: "IDEMPOTENCY_VIOLATION" } });
    await flushRedis(world.servers.redis.url);
    expect(
      await ask(world, request("acme", "plain", { idempotency_key: keys[1], message: { payload: "other" } })),
    ).toMatchObject({ error: { intake_error_code: "IDEMPOTENCY_VIOLATION" } });
    // What is new is new, and known from then on.
    const fresh = await many(20, () => request("acme", "plain", { idempotency_key: "after the flush" }));
    expect(new Set(fresh.map((reply) => JSON.stringify(reply))).size).toBe(1);
  });
});

describe("limits", () => {
  test("the burst of a policy is one, on both workers together", async () => {
    await until(async () => {
      const found = await many(12, () => request("acme", "slow"));
      const passed = found.filter((reply) => "provider_id" in reply).length;
      // Seconds pass while the test runs: at most a token each.
      expect(passed).toBeLessThanOrEqual(5);
      return passed > 0 && passed < 12;
    });
    const { reply, headers } = await until(async () => {
      const one = await exchange(world, request("acme", "slow"));
      return one.error ? one : undefined;
    });
    expect(reply).toMatchObject({
      ok: false,
      error: {
        code: "rate_limit_exceeded",
        details: { scope: "policy", identifier: "slow", limit: 1, burst: 3, retry_after_seconds: 1 },
      },
    });
    expect(headers["Nats-Service-Error-Code"]).toBe("429");
  });

  test("a tenant's limit counts over its policies and both workers", async () => {
    const found = await many(20, () => request("narrow", "plain"));
    const passed = found.filter((reply) => "provider_id" in reply).length;
    expect([3, 6]).toContain(passed); // six when the minute turned meanwhile
    expect(found.find((reply) => "error" in reply)).toMatchObject({
      error: { code: "rate_limit_exceeded", details: { scope: "tenant", limit: 3, window_seconds: 60 } },
    });
  });
});

describe("get_decision", () => {
  const find = (message_id: string, headers = {}): Promise<Json> =>
    exchange(world, { message_id }, headers, "beamline.router.v1.get_decision").then(({ reply }) => reply);

  test("whichever worker decided, whichever is asked", async () => {
    const sent = Array.from({ length: 20 }, () => request("acme", "plain"));
    const made = await Promise.all(sent.map((one) => ask(world, one)));
    const found = await Promise.all(sent.map(({ message }) => find(String(message["message_id"]))));
    expect(found).toEqual(made);
  });

  verifies("tenant-wall", "an id that two tenants used is nobody's without a tenant", async () => {
    await ask(world, request("acme", "plain", { message: { message_id: "twice" } }));
    await ask(world, request("other", "plain", { message: { message_id: "twice" } }));
    await until(async () => "error" in (await find("twice")), "both to be written");
    expect(await find("twice", { tenant_id: "acme" })).toHaveProperty("provider_id");
    expect(await find("twice", { tenant_id: "third" })).toMatchObject({ error: { code: "policy_not_found" } });
  });
});

test("weights of 30 and 40 over 10,000 decisions land on 42.9 and 57.1 percent, on two workers", async () => {
  await putPolicy(world, "acme", "3040", {
    providers: [
      { name: "a", weight: 30 },
      { name: "b", weight: 40 },
    ],
  });
  await until(async () => {
    const found = await many(30, () => request("acme", "3040"));
    return found.every((reply) => "provider_id" in reply);
  }, "the policy on both workers");
  let a = 0;
  for (let round = 0; round < 100; round++) {
    const found = await many(100, () => request("acme", "3040"));
    a += found.filter(({ provider_id }) => provider_id === "a").length;
  }
  expect(Math.abs(a / 10_000 - 3 / 7)).toBeLessThan(0.02);
}, 60_000);

test("without Redis: plain policies as ever, a worker's own keys known still, sessions and limits let be", async () => {
  await second.stop();
  const before = await ask(world, request("acme", "plain", { idempotency_key: "outage" }));
  await world.servers.redis.stop();
  expect(await ask(world, request("acme", "plain"))).toHaveProperty("provider_id");
  expect(await ask(world, request("acme", "plain", { idempotency_key: "outage" }))).toEqual(before);
  expect(
    await ask(world, request("acme", "plain", { idempotency_key: "outage", message: { payload: "other" } })),
  ).toMatchObject({ error: { intake_error_code: "IDEMPOTENCY_VIOLATION" } });
  for (let i = 0; i < 6; i++) expect(await ask(world, request("acme", "slow"))).toHaveProperty("provider_id");
  expect(await ask(world, request("acme", "sticky", { context: { user_id: "u9" } }))).toHaveProperty("provider_id");

  const own = request("acme", "plain");
  const decided = await ask(world, own);
  const find = async (message_id: unknown): Promise<Json> =>
    (await exchange(world, { message_id, tenant_id: "acme" }, {}, "beamline.router.v1.get_decision")).reply;
  expect(await find(own.message["message_id"])).toEqual(decided);
  // It may be one that another worker made: nobody can say that there is none.
  expect(await find("of-another-worker")).toMatchObject({
    error: { code: "unavailable", message: expect.stringContaining("Redis") as string },
  });
});
