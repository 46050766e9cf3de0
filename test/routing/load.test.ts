/** Too much at once: refused in time, told truthfully, and over when it is over. And the control subjects, as far as they are specified. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { admin, ask, exchange, putPolicy, request, serveExtension, type Json } from "./kit.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    workers: ["routing"],
    syncInterval: "10s",
    env: { BEAMLINE_ROUTER_CONTROL: "true", BEAMLINE_ROUTER_CONTROL_TOKEN: "control-token" },
  });
}, 60_000);
afterAll(() => world[Symbol.asyncDispose]());

verifies(
  "clear-failure",
  "two figures beyond their thresholds: what comes is refused with when to come back",
  async () => {
    // A slow extension holds every place of the worker; far more calls wait than the thresholds allow.
    serveExtension(await world.connect("publisher", "slow"), "beamline.ext.pre.slow.v1", () => undefined);
    await admin(world, "upsert_extension", {
      tenant_id: "*",
      extension: { id: "slow", type: "pre", timeout_ms: 250 },
    });
    await putPolicy(world, "acme", "slow", { providers: [{ name: "p", weight: 1 }], pre: [{ id: "slow" }] });
    const replies = await Promise.all(Array.from({ length: 2_500 }, () => ask(world, request("acme", "slow"))));
    const refused = replies.filter((reply) => reply["ok"] === false);
    expect(replies.filter((reply) => "provider_id" in reply).length).toBeGreaterThan(0);
    expect(refused.length).toBeGreaterThan(1_000);
    for (const reply of refused)
      expect(reply).toMatchObject({
        error: { code: "rate_limit_exceeded", details: { scope: "backpressure", retry_after_seconds: 30 } },
      });
    await until(
      async () => "provider_id" in (await ask(world, request("acme", "default"))),
      "the router to take requests again",
    );
    expect(
      await world.caller.request("beamline.router.v1.status.backpressure", {}, { timeoutMs: 5_000 }),
    ).toMatchObject({
      success: true,
      data: {
        subject: "beamline.router.v1.decide",
        status: "inactive",
        thresholds: { queue_overload: 1_000, latency_overload_ms: 5_000, inflight_overload: 500 },
        policy: { retry_after_seconds: 30, max_retry_attempts: 3 },
      },
    });
  },
  { timeout: 40_000 },
);

describe("the control subjects", () => {
  const whole = { version: "1", tenant_id: "acme", request_id: "r1", trace_id: "t1", idempotency_key: "k1" };
  const control = async (body: Json, headers: Record<string, string> = { token: "control-token" }): Promise<Json> =>
    (await exchange(world, body, headers, "beamline.router.control.v1.task.submit")).reply;

  test.each(["version", "tenant_id", "request_id", "trace_id", "idempotency_key"])("%s is required", async (field) => {
    expect(await control({ ...whole, [field]: undefined })).toMatchObject({
      ok: false,
      error: { code: "invalid_request", details: { field } },
    });
  });

  test("the token is: in a header, else in the body", async () => {
    expect(await control(whole, {})).toMatchObject({ error: { code: "unauthorized" } });
    expect(await control({ ...whole, token: "control-token" }, { token: "another-one" })).toMatchObject({
      error: { code: "unauthorized" },
    });
    for (const [body, headers] of [
      [{ ...whole, token: "control-token" }, {}],
      [whole, { authorization: "Bearer control-token" }],
    ] as const)
      expect(await control(body, headers)).toMatchObject({
        ok: false,
        error: { code: "internal", details: { operation: "task.submit", implemented: false } },
        context: { request_id: "r1", trace_id: "t1" },
      });
  });

  test("the older names answer the same", async () => {
    const { reply } = await exchange(
      world,
      { ...whole, token: "control-token" },
      {},
      "beamline.router.ide.v1.chat.send",
    );
    expect(reply).toMatchObject({ error: { details: { operation: "chat.send" } } });
  });
});
