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
import { startWorld, type World } from "../kit/world.ts";
import { ask, exchange, putPolicy, type Json } from "./kit.ts";

let world: World;
let router: GrpcClient<typeof RouterDefinition>;
beforeAll(async () => {
  world = await startWorld({ workers: ["routing"], syncInterval: "10s" });
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
