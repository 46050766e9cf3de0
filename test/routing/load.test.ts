/** Too much at once: refused in time, told truthfully, and over when it is over. */
import { afterAll, beforeAll, expect } from "vitest";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { admin, ask, putPolicy, request } from "./kit.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    workers: ["routing"],
    syncInterval: "10s",
  });
}, 60_000);
afterAll(() => world[Symbol.asyncDispose]());

verifies(
  "clear-failure",
  "two figures beyond their thresholds: what comes is refused with when to come back",
  async () => {
    // An extension that answers when it is told to holds every place of the worker; far more calls wait than the thresholds allow.
    const held: (() => void)[] = [];
    (await world.connect("publisher", "slow")).nc.subscribe("beamline.ext.pre.slow.v1", {
      callback: (_error, message) => void held.push(() => message.respond("{}")),
    });
    await admin(world, "upsert_extension", {
      tenant_id: "*",
      extension: { id: "slow", type: "pre", timeout_ms: 5_000 },
    });
    await putPolicy(world, "acme", "slow", { providers: [{ name: "p", weight: 1 }], pre: [{ id: "slow" }] });
    let answered = 0;
    const asking = Array.from({ length: 2_500 }, async () => {
      const reply = await ask(world, request("acme", "slow"));
      answered++;
      return reply;
    });
    // Whoever takes the place of the one let go is held too, until the worker knows that it has too much.
    await until(() => {
      held.shift()?.();
      return answered > 1_000;
    }, "refusals");
    await until(() => {
      while (held.length > 0) held.shift()?.();
      return answered === asking.length;
    }, "all replies");
    const replies = await Promise.all(asking);
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
