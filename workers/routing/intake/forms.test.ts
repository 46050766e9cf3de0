import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../../contracts/codec.ts";
import { readRequest, type Form } from "./forms.ts";
import type { Decision } from "../choice/decision.ts";
import { defaultPolicy } from "../policies/seed.ts";
import {
  bareForms,
  changed,
  everyForm,
  forms,
  idOf,
  policy,
  sampleDecision,
  sampleRequest,
  singleProvider,
  TestRouter,
} from "../testkit.ts";

const router = (): TestRouter =>
  new TestRouter([policy(singleProvider), policy({ providers: [{ name: "x", weight: 0 }] }, { id: "empty" })]);

test("the sample request of the contract gets the sample's decision from the seeded policy", async () => {
  const seeded = new TestRouter([policy(defaultPolicy, { tenant: "*" })]);
  expect(await seeded.ask(sampleRequest)).toMatchObject(sampleDecision);
});

describe.each(everyForm)("form %s", (form) => {
  test("is told apart", () => {
    expect(readRequest("", forms[form], {}).form).toBe(form);
  });

  test("a decision comes back in its own reply form", async () => {
    const reply = await router().ask(forms[form]);
    if (bareForms.has(form)) {
      expect(reply).toMatchObject(sampleDecision);
      expect(reply["ok"]).toBeUndefined();
      expect(Object.keys(reply)).toEqual([
        "provider_id",
        "reason",
        "priority",
        "expected_latency_ms",
        "expected_cost",
        "metadata",
      ]);
    } else {
      expect(reply).toMatchObject({
        ok: true,
        decision: { ...sampleDecision, policy_id: "default", fallback_used: false },
        context: { request_id: idOf[form], trace_id: "t1" },
      });
    }
  });

  test.each<[string, Readonly<Record<string, unknown>>, string, string, string | undefined, JsonObject]>([
    [
      "an unknown policy",
      { policy_id: "nope" },
      "policy_not_found",
      "Policy not found in store",
      undefined,
      { tenant_id: "acme", policy_id: "nope" },
    ],
    [
      "nobody to choose",
      { policy_id: "empty" },
      "decision_failed",
      "no provider available",
      undefined,
      { policy_id: "empty" },
    ],
    [
      "a policy_id that is no text",
      { policy_id: 7 },
      "invalid_request",
      "Schema validation failed: policy_id must be a string",
      "SCHEMA_VALIDATION_FAILED",
      { field: "policy_id" },
    ],
    [
      "a context that is no object",
      { context: "x" },
      "invalid_request",
      "Schema validation failed: context must be an object",
      "SCHEMA_VALIDATION_FAILED",
      { field: "context" },
    ],
    [
      "a context that is a list",
      { context: [] },
      "invalid_request",
      "Schema validation failed: context must be an object",
      "SCHEMA_VALIDATION_FAILED",
      { field: "context" },
    ],
    [
      "an idempotency key that is too long",
      { idempotency_key: "k".repeat(257) },
      "invalid_request",
      "Schema validation failed: idempotency_key must have at most 256 characters",
      "SCHEMA_VALIDATION_FAILED",
      { field: "idempotency_key" },
    ],
    [
      "another version",
      { version: "2" },
      "invalid_request",
      "Unsupported version",
      "VERSION_UNSUPPORTED",
      { field: "version" },
    ],
  ])("%s", async (_, changes, code, message, intake, details) => {
    const one = router();
    // A version makes the seed form the hybrid one, which names itself by the message as well.
    const { reply, error } = await one.exchange(changed(forms[form], changes));
    expect(reply).toEqual({
      ok: false,
      error: {
        code,
        message,
        ...(intake !== undefined && { intake_error_code: intake }),
        details: expect.objectContaining(details) as unknown,
      },
      context: { request_id: idOf[form], trace_id: "t1" },
    });
    expect(error?.code).toBe(code);
    expect(one.refused).toHaveLength(intake === undefined ? 0 : 1);
  });

  test("the tenant is needed", async () => {
    const path = form === "seed" ? "message.tenant_id" : "tenant_id";
    for (const absent of [undefined, "", null]) {
      const reply = await router().ask(changed(forms[form], { [path]: absent }));
      expect(reply["error"]).toEqual({
        code: "invalid_request",
        message: "Missing required field: tenant_id",
        intake_error_code: "CORRELATION_FIELDS_INVALID",
        details: { field: path, type: "required_field_missing" },
      });
    }
  });

  test("the header's tenant goes before the payload's", async () => {
    const other = new TestRouter([policy(singleProvider, { tenant: "other" })]);
    expect((await other.ask(forms[form]))["ok"]).toBe(false);
    const reply = await other.ask(forms[form], { tenant_id: "other" });
    expect(reply["ok"] ?? true).toBe(true);
  });

  test("the header's trace goes before the payload's", async () => {
    const reply = await router().ask(changed(forms[form], { policy_id: "nope" }), { trace_id: "from-header" });
    expect(reply["context"]).toEqual({ request_id: idOf[form], trace_id: "from-header" });
  });

  test("a tenant no tenant can have", async () => {
    const path = form === "seed" ? "message.tenant_id" : "tenant_id";
    for (const wrong of ["*", "a b", "a/b", "x".repeat(257)]) {
      expect((await router().ask(changed(forms[form], { [path]: wrong })))["error"]).toMatchObject({
        code: "invalid_request",
        details: { field: path },
      });
    }
  });

  test("a tenant that may not route", async () => {
    const one = new TestRouter([policy(singleProvider)], { tenants: new Set(["someone-else"]) });
    expect((await one.ask(forms[form]))["error"]).toMatchObject({
      code: "unauthorized",
      intake_error_code: "TENANT_FORBIDDEN",
    });
    expect(one.refused).toMatchObject([{ code: "TENANT_FORBIDDEN", tenant: "acme" }]);
  });

  test("an empty policy_id is absence, except where the contract refuses it", async () => {
    const reply = await router().ask(changed(forms[form], { policy_id: "" }));
    if (form === "extended")
      expect(reply["error"]).toMatchObject({ code: "invalid_request", details: { field: "policy_id" } });
    else expect(reply["ok"] ?? true).toBe(true);
  });

  test("the context names the policy when the request does not", async () => {
    const reply = await router().ask(changed(forms[form], { policy_id: undefined, context: { policy_id: "nope" } }));
    expect(reply["error"]).toMatchObject({ code: "policy_not_found", details: { policy_id: "nope" } });
  });

  test("a number in the context is its text, also where it names the policy", async () => {
    const reply = await router().ask(changed(forms[form], { policy_id: undefined, context: { policy_id: 7 } }));
    expect(reply["error"]).toMatchObject({ code: "policy_not_found", details: { policy_id: "7" } });
  });

  test("unknown fields are ignored, prototype names included", async () => {
    const text = JSON.stringify({ ...forms[form], surprise: { deep: [1] } }).replace(
      "{",
      '{"__proto__":{"tenant_id":"evil"},"constructor":1,',
    );
    const reply = await router().ask(text);
    expect(reply["ok"] ?? true).toBe(true);
  });

  test("the decision can be asked for again by message id", async () => {
    const one = router();
    await one.ask(forms[form]);
    const id = form === "extended" ? "r1" : "m1";
    expect(await one.ask({ message_id: id }, { tenant_id: "acme" }, one.answers.getDecision)).toMatchObject(
      sampleDecision,
    );
  });
});

describe("what only some forms demand", () => {
  test.each<[Form, Readonly<Record<string, unknown>>, string, JsonObject]>([
    [
      "seed",
      { "message.message_type": undefined },
      "Missing required field: message_type",
      { field: "message.message_type" },
    ],
    ["seed", { "message.message_type": "" }, "Missing required field: message_type", { field: "message.message_type" }],
    ["seed", { "message.payload": undefined }, "Missing required field: payload", { field: "message.payload" }],
    ["seed", { "message.payload": "" }, "Missing required field: payload", { field: "message.payload" }],
    [
      "seed",
      { "message.payload": 7 },
      "Schema validation failed: message.payload must be a string or an object",
      { field: "message.payload" },
    ],
    [
      "seed",
      { "message.tenant_id": 7 },
      "Schema validation failed: message.tenant_id must be a string",
      { field: "message.tenant_id" },
    ],
    [
      "seed",
      { "message.metadata": "x" },
      "Schema validation failed: message.metadata must be an object",
      { field: "message.metadata" },
    ],
    [
      "seed",
      { "message.timestamp_ms": "now" },
      "Schema validation failed: message.timestamp_ms must be an integer",
      { field: "message.timestamp_ms" },
    ],
    [
      "seed",
      { "message.run_id": {} },
      "Schema validation failed: message.run_id must be a string",
      { field: "message.run_id" },
    ],
    ["seed", { message: "x" }, "Schema validation failed: message must be an object", { field: "message" }],
    ["seed", { message: undefined }, "Missing required field: message", { field: "message" }],
    ["flat", { message_type: undefined }, "Missing required field: message_type", { field: "message_type" }],
    ["flat", { payload: undefined }, "Missing required field: payload", { field: "payload" }],
    ["extended", { version: undefined }, "Missing version field", { field: "version" }],
    ["hybrid", { version: undefined }, "Missing version field", { field: "version" }],
    ["extended", { version: 1 }, "Unsupported version", { field: "version", supported_versions: ["1"] }],
    ["extended", { request_id: undefined }, "Missing required field: request_id", { field: "request_id" }],
    [
      "extended",
      { request_id: "r".repeat(129) },
      "Schema validation failed: request_id must have at most 128 characters",
      { field: "request_id" },
    ],
    ["extended", { "task.type": undefined }, "Missing required field: type", { field: "task.type" }],
    ["extended", { "task.payload": undefined }, "Missing required field: payload", { field: "task.payload" }],
    [
      "extended",
      { "task.payload": { a: 1 } },
      "Payload is too small or empty: 7 bytes, minimum: 10 bytes",
      { field: "task.payload" },
    ],
    ["extended", { task: "x" }, "Schema validation failed: task must be an object", { field: "task" }],
    [
      "extended",
      { push_assignment: "yes" },
      "Schema validation failed: push_assignment must be true or false",
      { field: "push_assignment" },
    ],
    [
      "extended",
      { assignment_subject: "caf.>" },
      "Schema validation failed: assignment_subject must be a subject",
      { field: "assignment_subject" },
    ],
    [
      "extended",
      { assignment_subject: "$JS.API.STREAM.DELETE.X" },
      "Schema validation failed: assignment_subject must be a subject",
      { field: "assignment_subject" },
    ],
    [
      "extended",
      { assignment_subject: "beamline.usage.v1.metered" },
      "Schema validation failed: assignment_subject is a subject where other messages go",
      { field: "assignment_subject" },
    ],
    [
      "extended",
      { constraints: { max_cost: "little" } },
      "Schema validation failed: constraints.max_cost must be a number",
      { field: "constraints.max_cost" },
    ],
    ["extended", { flow_id: 7 }, "Schema validation failed: flow_id must be a string", { field: "flow_id" }],
    ["extended", { step_id: {} }, "Schema validation failed: step_id must be a string", { field: "step_id" }],
    ["extended", { span_id: true }, "Schema validation failed: span_id must be a string", { field: "span_id" }],
    ["hybrid", { flow_id: 7 }, "Schema validation failed: flow_id must be a string", { field: "flow_id" }],
    ["hybrid", { metadata: "x" }, "Schema validation failed: metadata must be an object", { field: "metadata" }],
    ["extended", { metadata: [] }, "Schema validation failed: metadata must be an object", { field: "metadata" }],
  ])("%s %j", async (form, changes, message, details) => {
    const reply = await router().ask(changed(forms[form], changes));
    const error = reply["error"] as JsonObject;
    expect(error["code"]).toBe("invalid_request");
    expect(error["message"]).toContain(message);
    expect(error["details"]).toMatchObject(details);
  });

  test("the seed form is never told that its version is missing", async () => {
    expect((await router().ask(forms.seed))["ok"]).toBeUndefined();
  });

  test("a header's version stands in for the payload's", async () => {
    expect(await router().ask(changed(forms.extended, { version: undefined }), { version: "1" })).toMatchObject({
      ok: true,
    });
    expect(await router().ask(forms.extended, { version: "2" })).toMatchObject({
      error: { message: "Unsupported version" },
    });
  });

  test("the hybrid form with an empty message, as a gateway sends it for a task", async () => {
    const reply = await router().ask({ version: "1", tenant_id: "acme", request_id: "r", message: {} });
    expect(reply).toMatchObject({ ok: true, context: { request_id: "r" } });
  });

  test("message.type in place of message.message_type, in the hybrid form alone", () => {
    const message = { type: "chat", payload: "x", tenant_id: "acme" };
    expect(readRequest("", { version: "1", request_id: "r", message }, {}).messageType).toBe("chat");
    expect(() => readRequest("", { message }, {})).toThrow("Missing required field: message_type");
    expect(readRequest("", { version: "1", tenant_id: "a", message: {} }, {}).messageType).toBe("unknown");
  });

  test.each([
    [true, true],
    ["true", true],
    [1, true],
    [false, false],
    ["false", false],
    [0, false],
    [undefined, false],
    [null, false],
  ])("push_assignment %j is %j", async (given, pushed) => {
    const found: Decision[] = [];
    const one = new TestRouter([policy(singleProvider)], {
      assignments: { promise: async ({ decision }) => ({ keep: () => void found.push(decision) }) },
    });
    await one.ask(changed(forms.extended, { push_assignment: given }));
    expect(found).toEqual([]); // the reply goes first
    await new Promise((resolve) => setImmediate(resolve));
    expect(found).toHaveLength(pushed ? 1 : 0);
  });

  test("constraints, metadata and context are one context in the extended form", () => {
    const { context } = readRequest(
      "",
      changed(forms.extended, {
        metadata: { user_id: "m", team: "t" },
        constraints: { max_cost: 1 },
        context: { user_id: "c" },
      }),
      {},
    );
    expect(context).toEqual({ team: "t", user_id: "c", max_cost: 1 });
  });

  test("policy:default is the policy default, unless there is one of that whole name", async () => {
    const named = changed(forms.extended, { policy_id: "policy:default" });
    expect(await router().ask(named)).toMatchObject({
      ok: true,
      decision: { provider_id: "openai", policy_id: "default" },
    });
    const both = new TestRouter([
      policy(singleProvider),
      policy({ providers: [{ name: "whole", weight: 1 }] }, { id: "policy:default" }),
    ]);
    expect(await both.ask(named)).toMatchObject({ decision: { provider_id: "whole", policy_id: "policy:default" } });
  });

  test("payload_ref is enough", async () => {
    expect(
      await router().ask(changed(forms.extended, { task: { type: "chat", payload_ref: "s3://b/k" } })),
    ).toMatchObject({ ok: true });
  });
});
