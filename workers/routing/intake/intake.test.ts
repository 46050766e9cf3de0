import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../../contracts/codec.ts";
import type { Decision } from "../choice/decision.ts";
import { changed, forms, policy, sampleDecision, seventyThirty, singleProvider, TestRouter } from "../testkit.ts";

const router = (): TestRouter =>
  new TestRouter([policy(singleProvider), policy({ providers: [{ name: "x", weight: 0 }] }, { id: "empty" })]);

describe("a dry run", () => {
  test.each<[string, JsonObject]>([
    ["by the request", { dry_run: true }],
    ["by its context", { context: { dry_run: "true" } }],
  ])("%s leaves no trace: no turn, no session, no key, no decision to find, no assignment", async (_, more) => {
    const found: Decision[] = [];
    const sticky = {
      providers: [
        { name: "a", weight: 51 },
        { name: "b", weight: 49 },
      ],
      sticky: { enabled: true, session_key: "user_id" },
    };
    const one = new TestRouter([policy(sticky)], {
      assignments: { promise: async ({ decision }) => ({ keep: () => void found.push(decision) }) },
    });
    const dry = {
      ...changed(forms.hybrid, { policy_id: undefined }),
      idempotency_key: "k",
      push_assignment: true,
      ...more,
    };
    for (let i = 0; i < 4; i++)
      expect(await one.ask(dry)).toMatchObject({ ok: true, decision: { provider_id: "a", reason: "weighted" } });
    await new Promise((resolve) => setImmediate(resolve));
    expect(found).toEqual([]);
    expect(await one.ask({ message_id: "m1" }, { tenant_id: "acme" }, one.answers.getDecision)).toMatchObject({
      ok: false,
    });
    expect(await one.ask({ ...forms.hybrid, idempotency_key: "k" })).toMatchObject({
      decision: { provider_id: "a", reason: "weighted" },
    });
  });
});

describe("what cannot be read", () => {
  test.each([
    ["not JSON", "{oops", "Failed to parse JSON"],
    ["nothing", "", "Failed to parse JSON"],
    ["a list", "[1]", "Schema validation failed: the request must be a JSON object"],
    ["a text", '"x"', "Schema validation failed: the request must be a JSON object"],
    ["null", "null", "Schema validation failed: the request must be a JSON object"],
    ["an empty object", "{}", "Missing required field: message"],
  ])("%s", async (_, text, message) => {
    const one = router();
    expect(await one.ask(text)).toMatchObject({
      ok: false,
      error: { code: "invalid_request", message, intake_error_code: "SCHEMA_VALIDATION_FAILED" },
      context: { request_id: "generated-1" },
    });
    expect(one.refused).toMatchObject([{ code: "SCHEMA_VALIDATION_FAILED", stage: "schema", text }]);
  });

  test("1 MiB is taken, a byte more is not, counted in bytes", async () => {
    const one = router();
    const frame = Buffer.byteLength(JSON.stringify(changed(forms.seed, { "message.payload": "" })));
    const room = 1_048_576 - frame;
    const fits = changed(forms.seed, { "message.payload": "é".repeat(Math.floor(room / 2)) + "x".repeat(room % 2) });
    expect(Buffer.byteLength(JSON.stringify(fits))).toBe(1_048_576);
    expect(await one.ask(fits)).toMatchObject(sampleDecision);
    const over = changed(forms.seed, { "message.payload": "x".repeat(room + 1) });
    expect(await one.ask(over)).toMatchObject({
      ok: false,
      error: { code: "invalid_request", message: "Payload size exceeds limit" },
    });
  });

  test("a refused request is not remembered and counts", async () => {
    const one = router();
    await one.ask(changed(forms.seed, { policy_id: 7 }));
    expect(await one.ask({ message_id: "m1" }, { tenant_id: "acme" }, one.answers.getDecision)).toMatchObject({
      ok: false,
    });
    const errors = one.registry.collect().find(({ name }) => name === "router_intake_validation_errors_total");
    expect(errors?.series).toMatchObject([
      { labels: { error_code: "SCHEMA_VALIDATION_FAILED" }, recorded: { value: 1 } },
    ]);
  });
});

describe("get_decision", () => {
  const shared = (): TestRouter => new TestRouter([policy(seventyThirty, { tenant: "*" })]);
  const of = (tenant: string, id = "m1"): JsonObject =>
    changed(forms.seed, { "message.tenant_id": tenant, "message.message_id": id });

  test("unknown and somebody else's look alike", async () => {
    const one = shared();
    await one.ask(of("acme"));
    const unknown = await one.ask({ message_id: "m2" }, { tenant_id: "other" }, one.answers.getDecision);
    const foreign = await one.ask({ message_id: "m1" }, { tenant_id: "other" }, one.answers.getDecision);
    expect(unknown).toMatchObject({
      ok: false,
      error: { code: "policy_not_found", message: "no decision is known for this message" },
    });
    expect({ ...foreign, context: 0, error: { ...(foreign["error"] as JsonObject), details: 0 } }).toEqual({
      ...unknown,
      context: 0,
      error: { ...(unknown["error"] as JsonObject), details: 0 },
    });
  });

  test("the body may name the tenant, a header goes before it", async () => {
    const one = shared();
    await one.ask(of("acme"));
    expect(await one.ask({ message_id: "m1", tenant_id: "acme" }, {}, one.answers.getDecision)).toMatchObject({
      provider_id: "openai",
    });
    expect(
      await one.ask({ message_id: "m1", tenant_id: "acme" }, { tenant_id: "other" }, one.answers.getDecision),
    ).toMatchObject({ ok: false });
  });

  test("a gateway without a tenant gets it while one tenant alone used the id", async () => {
    const one = shared();
    await one.ask(of("acme"));
    expect(await one.ask({ message_id: "m1" }, {}, one.answers.getDecision)).toMatchObject({ provider_id: "openai" });
    await one.ask(of("other"));
    expect(await one.ask({ message_id: "m1" }, {}, one.answers.getDecision)).toMatchObject({ ok: false });
  });

  test("an empty tenant is none, in the body as in a header", async () => {
    const one = shared();
    await one.ask(of("acme"));
    const asked = { message_id: "m1", tenant_id: "" };
    expect(await one.ask(asked, {}, one.answers.getDecision)).toMatchObject({ provider_id: "openai" });
    expect(await one.ask({ ...asked, tenant_id: "acme" }, { tenant_id: "" }, one.answers.getDecision)).toMatchObject({
      provider_id: "openai",
    });
  });

  test("a caller of the edge without a tenant sees the tenant default only", async () => {
    const one = shared();
    await one.ask(of("acme"));
    expect(
      await one.ask({ message_id: "m1" }, { "Beamline-Principal": "local" }, one.answers.getDecision),
    ).toMatchObject({ ok: false });
    await one.ask(of("default", "m3"));
    expect(
      await one.ask({ message_id: "m3" }, { "Beamline-Principal": "local" }, one.answers.getDecision),
    ).toMatchObject({ reason: "weighted" });
  });

  test.each([
    [{}, "Missing required field: message_id"],
    [{ message_id: "" }, "Missing required field: message_id"],
    [{ message_id: 7 }, "Schema validation failed: message_id must be a string"],
    [{ message_id: "m1", tenant_id: 7 }, "Schema validation failed: tenant_id must be a string"],
    [{ message_id: "m1", tenant_id: {} }, "Schema validation failed: tenant_id must be a string"],
  ])("%j", async (request, message) => {
    const one = shared();
    expect(await one.ask(request, {}, one.answers.getDecision)).toMatchObject({
      ok: false,
      error: { code: "invalid_request", message },
    });
  });
});

describe("backpressure status", () => {
  const figures = { pendingMessages: 0, latencyP95Ms: 0, inflightMessages: 0 };
  const ask = (measured: typeof figures | undefined, request: object = {}): Promise<JsonObject> => {
    const one = new TestRouter([], { load: { refusing: false, took: () => undefined, measure: () => measured } });
    return one.ask(request, {}, one.answers.getBackpressureStatus);
  };

  test.each([
    [undefined, "unknown"],
    [figures, "inactive"],
    [{ ...figures, pendingMessages: 1_000 }, "inactive"],
    [{ ...figures, pendingMessages: 1_001 }, "warning"],
    [{ ...figures, pendingMessages: 1_001, latencyP95Ms: 5_001 }, "active"],
    [{ pendingMessages: 1_001, latencyP95Ms: 5_001, inflightMessages: 501 }, "active"],
  ])("%j is %s", async (measured, status) => {
    expect(await ask(measured)).toMatchObject({
      success: true,
      data: { subject: "beamline.router.v1.decide", status },
    });
  });

  test("says everything, zeros included", async () => {
    expect(await ask(figures, { subject: "caf.exec.result.v1" })).toEqual({
      success: true,
      data: {
        subject: "caf.exec.result.v1",
        status: "inactive",
        metrics: { pending_messages: 0, latency_p95_ms: 0, inflight_messages: 0 },
        thresholds: { queue_overload: 1000, latency_overload_ms: 5000, inflight_overload: 500 },
        policy: { retry_after_seconds: 30, max_retry_attempts: 3 },
        timestamp: 1_700_000_000_000,
      },
    });
  });

  test("a subject that is none", async () => {
    expect(await ask(figures, { subject: 7 })).toEqual({ success: false, error: "subject must be a string" });
  });
});
