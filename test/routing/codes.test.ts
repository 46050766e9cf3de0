/** The rarer rows of the contract's table of error codes and reasons: in every form, over both ways in, with what is left behind. */
import { status as grpc, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { keyOf } from "../../bus/keys.ts";
import { Bucket, jsonCodec } from "../../bus/keyvalue.ts";
import { observe, type ProviderHealth } from "../../contracts/execution/health.ts";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { buckets } from "../../contracts/streams.ts";
import { bareForms, changed, everyForm, forms } from "../../workers/routing/testkit.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { ADMIN_KEY, startWorld, type World } from "../kit/world.ts";
import { ask, exchange, putPolicy, type Json } from "./kit.ts";

let world: World;
let router: GrpcClient<typeof RouterDefinition>;
beforeAll(async () => {
  world = await startWorld({ workers: ["routing", "usage"], syncInterval: "10s" });
  router = grpcClient(RouterDefinition, world.grpc);
}, 60_000);
afterAll(async () => {
  router?.[Symbol.dispose]();
  await world?.[Symbol.asyncDispose]();
});

/** What must not change when a request is refused. */
async function written(): Promise<number[]> {
  const names = ["EXEC", "ROUTING_KEYS", "ROUTING_PROMISES", "DLQ"];
  return Promise.all(names.map(async (name) => (await world.bus.jsm.streams.info(name)).state.last_seq));
}

describe("a provider the context selected whose circuit is open", () => {
  const context = { selected_provider: "frail" };
  beforeAll(async () => {
    await putPolicy(world, "acme", "guarded", {
      providers: [
        { name: "frail", weight: 50 },
        { name: "sound", weight: 50 },
      ],
      fallbacks: [{ when: {}, to: "spare", retry: 0 }],
      circuit_breaker: { enabled: true, failure_threshold: 2, timeout_ms: 60_000 },
    });
    const failure = { outcome: "failure", latency_ms: 5, cost: 0, error_code: "TIMEOUT", at_ms: Date.now() } as const;
    const bucket = new Bucket(world.bus, buckets.providerHealth, jsonCodec<ProviderHealth>());
    let health: ProviderHealth | undefined;
    for (let n = 0; n < 3; n++) health = observe(health, "acme", "frail", failure);
    if (health !== undefined) await bucket.put(keyOf("acme", "frail"), health);
    const asked = changed(forms.seed, { policy_id: "guarded", context });
    await until(
      async () => (await ask(world, asked))["reason"] === "circuit_breaker_fallback",
      "the circuit to be open",
    );
  });
  const decision = { provider_id: "spare", reason: "circuit_breaker_fallback", priority: 20 };

  test.each(everyForm)("is replaced in the %s form", async (form) => {
    const reply = await ask(world, changed(forms[form], { policy_id: "guarded", context }));
    expect(bareForms.has(form) ? reply : reply["decision"]).toMatchObject(decision);
  });

  test("is replaced over gRPC", async () => {
    const message = { message_id: "g", tenant_id: "acme", message_type: "chat", payload: Buffer.from('{"text":"hi"}') };
    expect(await router.call("decide", { message, policy_id: "guarded", context })).toMatchObject(decision);
  });
});

verifies(
  "clear-failure",
  "what validation cannot cope with is INTERNAL_VALIDATION_ERROR, and nothing is written",
  async () => {
    // JSON that can be read and not be written: far deeper than any stack.
    const depth = 200_000;
    const text = JSON.stringify(
      changed(forms.extended, { "task.payload": { deep: 0 }, push_assignment: true, idempotency_key: "deep" }),
    ).replace('{"deep":0}', `{"deep":${"[".repeat(depth)}${"]".repeat(depth)}}`);
    const before = await written();
    const { reply, error, headers } = await exchange(world, text);
    expect(error).toBe(true);
    expect(headers["Nats-Service-Error-Code"]).toBe("500");
    expect(reply).toMatchObject({
      ok: false,
      error: {
        code: "internal",
        intake_error_code: "INTERNAL_VALIDATION_ERROR",
        message: "the request could not be validated",
      },
      context: { request_id: "r1" },
    });
    expect(await written()).toEqual(before);
    // The key was not used, and the worker goes on.
    expect(await ask(world, changed(forms.extended, { idempotency_key: "deep" }))).toMatchObject({ ok: true });
  },
);

describe("while assignments cannot be stored", () => {
  const pushing = (form: "extended" | "hybrid", more: Json = {}): Json =>
    changed(forms[form], { push_assignment: true, ...more });
  let before: number[];
  beforeAll(async () => {
    before = await written();
    await world.bus.jsm.streams.delete("ROUTING_PROMISES");
  });

  test.each(["extended", "hybrid"] as const)("a request for one is unavailable, in the %s form", async (form) => {
    const { reply, headers } = await exchange(world, pushing(form, { idempotency_key: `lost-${form}` }));
    expect(headers["Nats-Service-Error-Code"]).toBe("503");
    expect(reply).toMatchObject({
      ok: false,
      error: { code: "unavailable", message: expect.stringContaining("assignment") as unknown },
    });
    const [exec, keys] = await Promise.all(
      ["EXEC", "ROUTING_KEYS"].map(async (name) => (await world.bus.jsm.streams.info(name)).state.last_seq),
    );
    expect([exec, keys]).toEqual(before.slice(0, 2));
  });

  test("all others are decided", async () => {
    for (const form of everyForm) expect(await ask(world, forms[form])).not.toHaveProperty("error");
  });
});

test("over gRPC a router that is not there is UNAVAILABLE at once", async () => {
  const empty = await startWorld({ workers: [], syncInterval: "10s" });
  try {
    using client = grpcClient(RouterDefinition, empty.grpc);
    const message = { message_id: "m", tenant_id: "acme", message_type: "chat", payload: Buffer.from("x") };
    const error = await client.call("decide", { message }).then(
      () => undefined,
      (thrown: unknown) => thrown as ServiceError,
    );
    expect(error?.code).toBe(grpc.UNAVAILABLE);
  } finally {
    await empty[Symbol.asyncDispose]();
  }
});

describe("a field of a wrong type is refused by its name, and never taken as one that is not there", () => {
  const document = { policy_id: "p", version: "1.0", providers: [{ name: "a", weight: 1 }] };
  const extension = { id: "e", type: "pre" };
  test.each<[string, Json, string]>([
    ["get_decision", { message_id: "m", tenant_id: 7 }, "tenant_id"],
    ["admin.upsert_policy", { tenant_id: 7, policy: document }, "tenant_id"],
    ["admin.upsert_policy", { tenant_id: 7, policy: { policy_id: "p", providers: [] } }, "tenant_id"],
    ["admin.upsert_policy", { tenant_id: "t", policy: { ...document, policy_id: 7 } }, "policy.policy_id"],
    ["admin.upsert_policy", { tenant_id: "t", policy: { ...document, version: 1 } }, "policy.version"],
    ["admin.get_policy", { tenant_id: 7, policy_id: "p" }, "tenant_id"],
    ["admin.get_policy", { tenant_id: "t", policy_id: 7 }, "policy_id"],
    ["admin.list_policies", { tenant_id: {} }, "tenant_id"],
    ["admin.delete_policy", { tenant_id: true, policy_id: "p" }, "tenant_id"],
    ["admin.get_pipeline_complexity", { tenant_id: 7, policy_id: "p" }, "tenant_id"],
    ["admin.dry_run_pipeline", { tenant_id: 7, policy_id: "p", payload: "x" }, "tenant_id"],
    ["admin.upsert_extension", { tenant_id: 7, extension }, "tenant_id"],
    ["admin.upsert_extension", { tenant_id: "t", extension: { ...extension, subject: 7 } }, "extension.subject"],
    ["admin.delete_extension", { tenant_id: 7, extension_id: "e" }, "tenant_id"],
    ["admin.list_extensions", { tenant_id: [] }, "tenant_id"],
    ["registry.create", { tenant_id: 7, type: "t", version: "1", block: {} }, "tenant_id"],
    ["registry.list", { tenant_id: 7 }, "tenant_id"],
    ["registry.list", { tenant_id: "t", type: 7 }, "type"],
    ["usage", { tenant_id: 7 }, "tenant_id"],
    ["usage", { tenant_id: "t", start_date: 7 }, "start_date"],
    ["usage", { tenant_id: "t", end_date: "2026-02-31" }, "end_date"],
    ["usage", { tenant_id: "t", provider_id: 7 }, "provider_id"],
    ["cancel", { tenant_id: 7, assignment_id: "a" }, "tenant_id"],
    ["cancel", { tenant_id: "t", assignment_id: 7 }, "assignment_id"],
  ])("%s %j", async (name, body, field) => {
    const subject = `beamline.router.v1.${name}`;
    // A tenant in the headers goes before the body's; it does not make a wrong one right.
    for (const headers of [{}, { tenant_id: "t" }]) {
      const { reply, error } = await exchange(world, body, { "x-api-key": ADMIN_KEY, ...headers }, subject);
      expect(error).toBe(true);
      const { code, message, details } = reply["error"] as Json;
      expect(code).toBe(name.startsWith("admin.") ? "INVALID_ARGUMENT" : "invalid_request");
      expect(message).toContain(`${field} must be`);
      expect(details).toMatchObject({ field });
    }
    const found = await exchange(
      world,
      { tenant_id: "t" },
      { "x-api-key": ADMIN_KEY },
      "beamline.router.v1.admin.list_policies",
    );
    expect(found.reply).toEqual({ policies: [], documents: [] });
  });
});

test("a status request that cannot be read fails as the contract's status requests do", async () => {
  const subject = "beamline.router.v1.status.backpressure";
  for (const [body, error] of [
    ["{oops", "Failed to parse JSON"],
    ["[1]", "the request must be a JSON object"],
    ['{"subject":7}', "subject must be a string"],
  ])
    expect((await exchange(world, body, {}, subject)).reply).toEqual({ success: false, error });
});
