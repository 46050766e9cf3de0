/** RouterAdmin on a real server: policies as administrators change them, the key, the quota, the shared policies. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Caller } from "../../../bus/call.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { errorOfBody } from "../../../contracts/errorbody.ts";
import { meaning } from "../../../contracts/errors.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { ask as askOf, DECIDE, KEY, startTestWorker, type TestWorker } from "../testworker.ts";

let nats: TestNats;
let worker: TestWorker;
let client: Caller;

beforeAll(async () => {
  nats = await startTestNats();
  worker = await startTestWorker(await nats.connect("worker-a"));
  client = new Caller(await nats.connect("client", "publisher"));
}, 60_000);

afterAll(async () => {
  await worker.stop();
  await nats.stop();
});

const ask = (subject: string, request: unknown, headers: Record<string, string> = {}): ReturnType<typeof askOf> =>
  askOf(client, subject, request, headers);

const key = { "x-api-key": KEY };
const admin = (name: string): string => `beamline.router.v1.admin.${name}`;
const call = async (name: string, request: unknown, headers: Record<string, string> = key): Promise<JsonObject> =>
  (await ask(admin(name), request, headers)).body;

function policyOf(policy_id: string, weights: Readonly<Record<string, number>>): JsonObject {
  return {
    policy_id,
    providers: Object.entries(weights).map(([id, weight]) => ({ id, weight })),
    sticky: false,
    rules: [{ match: "status:timeout", prefer: ["b"], fallback: "c" }],
  };
}

describe("administering", () => {
  test("upsert, decide at once, get, list, delete", async () => {
    const tenant_id = "lifecycle";
    expect(await call("upsert_policy", { tenant_id, policy: policyOf("main", { a: 0.7, b: 0.3 }) })).toEqual({
      ok: true,
    });
    const found: unknown[] = [];
    for (let i = 0; i < 100; i++) {
      found.push(
        (await ask(DECIDE, { message: { tenant_id, message_type: "chat", payload: "x" }, policy_id: "main" })).body[
          "provider_id"
        ],
      );
    }
    expect(found.filter((provider) => provider === "a")).toHaveLength(70);
    expect(await call("get_policy", { tenant_id, policy_id: "main" })).toMatchObject({
      policy: policyOf("main", { a: 0.7, b: 0.3 }),
    });
    await call("upsert_policy", { tenant_id, policy: policyOf("another", { z: 1 }) });
    const { policies } = await call("list_policies", { tenant_id });
    expect((policies as JsonObject[]).map(({ policy_id }) => policy_id)).toEqual(["another", "main"]);
    expect(await call("delete_policy", { tenant_id, policy_id: "main" })).toEqual({ ok: true });
    expect(await call("delete_policy", { tenant_id, policy_id: "main" })).toMatchObject({
      ok: false,
      error: { code: "POLICY_NOT_FOUND", message: "policy not found" },
    });
    expect(
      (await ask(DECIDE, { message: { tenant_id, message_type: "chat", payload: "x" }, policy_id: "main" })).body,
    ).toMatchObject({ error: { code: "policy_not_found" } });
  });

  test("a policy that was deleted can be made again", async () => {
    const tenant_id = "again";
    for (let i = 0; i < 3; i++) {
      await call("upsert_policy", { tenant_id, policy: policyOf("p", { a: 1 }) });
      expect(await call("delete_policy", { tenant_id, policy_id: "p" })).toEqual({ ok: true });
    }
    expect(await call("list_policies", { tenant_id })).toEqual({ policies: [], documents: [] });
  });

  test("the same policy twice is one revision", async () => {
    const { store } = worker;
    await call("upsert_policy", { tenant_id: "same", policy: policyOf("p", { a: 1 }) });
    const before = store.own("same", "p")?.revision;
    await call("upsert_policy", { tenant_id: "same", policy: policyOf("p", { a: 1 }) });
    expect(store.own("same", "p")?.revision).toBe(before);
  });

  test("a whole document, and what the admin form cannot say survives the admin form", async () => {
    const tenant_id = "documents";
    const document = {
      version: "1.0",
      providers: [{ name: "a", weight: 70 }],
      sticky: { enabled: true, session_key: "user_id", ttl: "10m" },
    };
    expect(await call("upsert_policy", { tenant_id, policy: { policy_id: "p", ...document } })).toEqual({ ok: true });
    await call("upsert_policy", {
      tenant_id,
      policy: { policy_id: "p", providers: [{ id: "a", weight: 0.5 }], sticky: true },
    });
    expect(await call("get_policy", { tenant_id, policy_id: "p" })).toMatchObject({
      policy: { providers: [{ id: "a", weight: 0.5 }], sticky: true, rules: [] },
      document: { policy_id: "p", tenant_id, version: "1.0", sticky: { session_key: "user_id", ttl: "10m" } },
    });
  });

  test.each<[string, string, JsonObject, string, string, number]>([
    ["no tenant", "upsert_policy", { policy: policyOf("p", { a: 1 }) }, "INVALID_ARGUMENT", "missing tenant_id", 3],
    ["no policy", "upsert_policy", { tenant_id: "t" }, "INVALID_ARGUMENT", "policy is missing", 3],
    [
      "no policy_id",
      "upsert_policy",
      { tenant_id: "t", policy: policyOf("", { a: 1 }) },
      "INVALID_ARGUMENT",
      "policy.policy_id must not be empty",
      3,
    ],
    [
      "a weight above 1",
      "upsert_policy",
      { tenant_id: "t", policy: policyOf("p", { a: 1.1 }) },
      "INVALID_ARGUMENT",
      "policy.providers[0].weight must be between 0 and 1",
      3,
    ],
    [
      "a weight of a wrong type",
      "upsert_policy",
      { tenant_id: "t", policy: { policy_id: "p", providers: [{ id: "a", weight: "1" }] } },
      "INVALID_ARGUMENT",
      "policy.providers[0].weight must be a finite number",
      3,
    ],
    [
      "a document with a mistake",
      "upsert_policy",
      { tenant_id: "t", policy: { policy_id: "p", version: "1.0", providers: [{ name: "a", weight: 200 }] } },
      "INVALID_ARGUMENT",
      "policy.providers[0].weight must be between 0 and 100",
      3,
    ],
    [
      "an unknown policy",
      "get_policy",
      { tenant_id: "t", policy_id: "nope" },
      "POLICY_NOT_FOUND",
      "policy not found",
      5,
    ],
    ["an empty policy_id", "get_policy", { tenant_id: "t" }, "INVALID_ARGUMENT", "policy_id must not be empty", 3],
    [
      "a list as body",
      "list_policies",
      [] as unknown as JsonObject,
      "INVALID_ARGUMENT",
      "body must be a JSON object",
      3,
    ],
    [
      "complexity of an unknown policy",
      "get_pipeline_complexity",
      { tenant_id: "t", policy_id: "nope" },
      "POLICY_NOT_FOUND",
      "policy not found",
      5,
    ],
    [
      "a dry run without a payload",
      "dry_run_pipeline",
      { tenant_id: "t", policy_id: "default" },
      "INVALID_ARGUMENT",
      "payload must not be empty",
      3,
    ],
  ])("%s", async (_, name, request, code, message, grpc) => {
    const { body, error } = await ask(admin(name), request, key);
    expect(error).toBe(true);
    expect(body).toMatchObject({ ok: false, error: { code, message } });
    expect(meaning(errorOfBody(body).code).grpc).toBe(grpc);
  });

  test.each<[string, Record<string, string>, unknown]>([
    ["none", {}, undefined],
    ["a wrong one", { "x-api-key": "wrong-key-1" }, undefined],
    ["a wrong one before a right one", { "x-api-key": "wrong-key-1", authorization: `Bearer ${KEY}` }, undefined],
    ["a wrong one in the body", {}, "wrong-key-1"],
    ["one that is no text", {}, 7],
  ])("the key: %s is refused, whatever else is wrong", async (_, headers, api_key) => {
    for (const name of ["list_policies", "get_checkpoint_status", "get_extension_health", "dry_run_pipeline"]) {
      const { body } = await ask(admin(name), { tenant_id: "", api_key }, headers);
      expect(body).toMatchObject({
        ok: false,
        error: { code: "UNAUTHENTICATED", message: "missing or invalid API key" },
      });
      expect(meaning(errorOfBody(body).code).grpc).toBe(16);
    }
    expect((await ask(admin("list_policies"), "{oops", headers)).body).toMatchObject({
      error: { code: "UNAUTHENTICATED" },
    });
  });

  test.each<[string, Record<string, string>, unknown]>([
    ["x-api-key", { "x-api-key": KEY }, undefined],
    ["bearer", { authorization: `Bearer ${KEY}` }, undefined],
    ["bare authorization", { authorization: KEY }, undefined],
    ["the body", {}, KEY],
  ])("the key: by %s", async (_, headers, api_key) => {
    expect(await call("list_policies", { tenant_id: "keys", api_key }, headers)).toEqual({
      policies: [],
      documents: [],
    });
  });

  test("the quota: ten policies, an update is not a new one, the eleventh is refused and not stored", async () => {
    const tenant_id = "quota";
    for (let i = 0; i < 10; i++)
      expect(await call("upsert_policy", { tenant_id, policy: policyOf(`p${i}`, { a: 1 }) })).toEqual({ ok: true });
    expect(await call("upsert_policy", { tenant_id, policy: policyOf("p3", { a: 0.5 }) })).toEqual({ ok: true });
    const { body } = await ask(admin("upsert_policy"), { tenant_id, policy: policyOf("p10", { a: 1 }) }, key);
    expect(body).toMatchObject({ ok: false, error: { message: "Policy quota exceeded. Maximum policies: 10" } });
    expect(meaning(errorOfBody(body).code).grpc).toBe(8);
    expect(await call("get_policy", { tenant_id, policy_id: "p10" })).toMatchObject({
      error: { code: "POLICY_NOT_FOUND" },
    });
    await call("delete_policy", { tenant_id, policy_id: "p0" });
    expect(await call("upsert_policy", { tenant_id, policy: policyOf("p10", { a: 1 }) })).toEqual({ ok: true });
  });

  test("the quota holds when many come at once", async () => {
    const made = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        call("upsert_policy", { tenant_id: "rush", policy: policyOf(`p${i}`, { a: 1 }) }),
      ),
    );
    expect(made.filter(({ ok }) => ok === true)).toHaveLength(10);
  });

  test("metadata's tenant goes before the body's", async () => {
    await call("upsert_policy", { tenant_id: "body", policy: policyOf("p", { a: 1 }) }, { ...key, tenant_id: "meta" });
    expect(await call("get_policy", { tenant_id: "body", policy_id: "p" })).toMatchObject({
      error: { code: "POLICY_NOT_FOUND" },
    });
    expect(await call("get_policy", { tenant_id: "meta", policy_id: "p" })).toMatchObject({
      policy: { policy_id: "p" },
    });
  });

  verifies(
    "tenant-wall",
    "the shared policies are the operator's: no tenant sees them as its own, none can name them",
    async () => {
      expect(await call("get_policy", { tenant_id: "tenant", policy_id: "default" })).toMatchObject({
        error: { code: "POLICY_NOT_FOUND" },
      });
      expect(await call("delete_policy", { tenant_id: "tenant", policy_id: "default" })).toMatchObject({
        error: { code: "POLICY_NOT_FOUND" },
      });
      expect(await call("get_policy", { policy_id: "default" }, { ...key, tenant_id: "*" })).toMatchObject({
        error: { code: "INVALID_ARGUMENT" },
      });
      expect(
        (await ask(DECIDE, { message: { tenant_id: "*", message_type: "chat", payload: "x" } })).body,
      ).toMatchObject({ error: { code: "invalid_request" } });
      expect(await call("get_policy", { tenant_id: "*", policy_id: "default" })).toMatchObject({
        policy: { policy_id: "default", providers: [{ id: "openai", weight: 1 }] },
      });
    },
  );

  test("a tenant's own default goes before the shared one", async () => {
    await call("upsert_policy", { tenant_id: "own-default", policy: policyOf("default", { mine: 1 }) });
    expect(
      (await ask(DECIDE, { message: { tenant_id: "own-default", message_type: "chat", payload: "x" } })).body,
    ).toMatchObject({ provider_id: "mine" });
    await call("delete_policy", { tenant_id: "own-default", policy_id: "default" });
    expect(
      (await ask(DECIDE, { message: { tenant_id: "own-default", message_type: "chat", payload: "x" } })).body,
    ).toMatchObject({ provider_id: "openai" });
  });

  test("the rest of the admin subjects", async () => {
    expect(await call("get_checkpoint_status", {})).toMatchObject({
      status: { current_cp: "CP1-baseline", cp2_plus_allowed: false },
    });
    expect(await call("get_validators_health", {})).toMatchObject({
      validators: [{ name: "grpc_health", status: "serving" }, { name: "policy_store" }],
    });
    expect(await call("get_extension_health", {})).toEqual({ health: {} });
    expect(await call("get_circuit_breaker_states", {})).toEqual({ states: {} });
    expect(await call("get_pipeline_complexity", { tenant_id: "t", policy_id: "default" })).toMatchObject({
      total_extensions: 0,
      complexity_level: "low",
      complexity: { total_extensions: 0 },
    });
  });

  test("a dry run says what would be, and changes nothing", async () => {
    const tenant_id = "dry";
    await call("upsert_policy", {
      tenant_id,
      policy: {
        policy_id: "p",
        version: "1.0",
        providers: [
          { name: "a", weight: 51 },
          { name: "b", weight: 49 },
        ],
        pre: [{ id: "norm" }],
        validators: [{ id: "check" }],
      },
    });
    for (let i = 0; i < 3; i++) {
      expect(await call("dry_run_pipeline", { tenant_id, policy_id: "p", payload: { text: "hi" } })).toEqual({
        ok: true,
        result: {
          decision: { provider_id: "a", reason: "weighted", priority: 50 },
          executed_extensions: [
            { type: "pre", id: "norm", status: "skipped" },
            { type: "validator", id: "check", status: "skipped" },
          ],
          final_payload: { text: "hi" },
        },
      });
    }
    expect(await call("dry_run_pipeline", { tenant_id, policy_id: "p", payload: "plain text" })).toMatchObject({
      result: { final_payload: "plain text" },
    });
  });
});
