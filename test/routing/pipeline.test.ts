/** Extensions served by an outside program, called by a routing worker before and after it selects. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { admin, ask, exchange, putPolicy, request, serveExtension, type Json } from "./kit.ts";

let world: World;
let outside: Bus;
let preAsked: Json[];
let postAsked: Json[];
let verdict: Json = { status: "ok" };
let timeouts = 0;

beforeAll(async () => {
  world = await startWorld({ workers: ["routing"], syncInterval: "10s" });
  outside = await world.connect("publisher", "extensions");
  preAsked = serveExtension(outside, "beamline.ext.pre.translate.v1", ({ payload }) => ({
    payload: `translated ${String((payload as Json)["payload"])}`,
    metadata: { language: "en" },
  }));
  serveExtension(outside, "beamline.ext.validate.guard.v2", () => verdict);
  serveExtension(outside, "beamline.ext.pre.silent.v1", () => {
    timeouts++;
    return undefined;
  });
  serveExtension(outside, "beamline.ext.pre.broken.v1", () => ({
    ok: false,
    error: { code: "internal", message: "no" },
  }));
  postAsked = serveExtension(outside, "beamline.ext.post.label.v1", () => ({
    payload: { expected_latency_ms: 1e300, expected_cost: 0.25, metadata: { label: "seen", nested: { a: 1 } } },
  }));
  await outside.flush();
  const extensions: Json[] = [
    { id: "translate", type: "pre" },
    { id: "guard", type: "validator", subject: "beamline.ext.validate.guard.v2" },
    { id: "silent", type: "pre", timeout_ms: 50, retry: 1 },
    { id: "broken", type: "pre" },
    { id: "absent", type: "post" },
    { id: "label", type: "post" },
    { id: "off", type: "pre", enabled: false },
  ];
  for (const extension of extensions) await admin(world, "upsert_extension", { tenant_id: "*", extension });
}, 60_000);
afterAll(() => world[Symbol.asyncDispose]());

const providers = [{ name: "openai", weight: 1 }];
let policies = 0;
/** Decides by a policy with the given pipeline. */
async function decide(pipeline: object, more: Json = {}): Promise<Json> {
  const id = `p${++policies % 10}`;
  await putPolicy(world, "acme", id, { providers, ...pipeline });
  return ask(world, request("acme", id, more));
}

function executed(reply: Json): unknown {
  return JSON.parse(String((reply["metadata"] as Json)["executed_extensions"]));
}

test("pre, validators, selection, post, in order; each sees what the one before made", async () => {
  const reply = await decide(
    { pre: [{ id: "translate" }], validators: [{ id: "guard" }], post: [{ id: "label" }] },
    { context: { user_id: "u1" }, message: { trace_id: "t1" } },
  );
  // A figure beyond what the contract can hold is passed over.
  expect(reply).toMatchObject({
    provider_id: "openai",
    expected_latency_ms: 500,
    expected_cost: 0.25,
    metadata: { label: "seen", nested: '{"a":1}' },
  });
  expect(executed(reply)).toEqual([
    { type: "pre", id: "translate", status: "ok" },
    { type: "validator", id: "guard", status: "ok" },
    { type: "post", id: "label", status: "ok" },
  ]);
  expect(preAsked.at(-1)).toMatchObject({
    trace_id: "t1",
    tenant_id: "acme",
    payload: { tenant_id: "acme", message_type: "chat", payload: '{"text":"hello"}' },
    metadata: { user_id: "u1" },
  });
  expect(postAsked.at(-1)).toMatchObject({
    payload: { provider_id: "openai", reason: "weighted" },
    metadata: { user_id: "u1", language: "en" },
  });
});

describe("a validator that says no", () => {
  test.each([{ status: "reject", reason: "too rude", details: { score: 9 } }, { valid: false }])(
    "%j",
    async (answer) => {
      verdict = answer;
      expect(await decide({ validators: [{ id: "guard" }] })).toMatchObject({
        ok: false,
        error: { code: "validator_blocked", details: { extension_id: "guard" } },
      });
      for (const on_fail of ["warn", "ignore"]) {
        const reply = await decide({ validators: [{ id: "guard", on_fail }] });
        expect(executed(reply)).toEqual([{ type: "validator", id: "guard", status: on_fail }]);
      }
      verdict = { status: "ok" };
    },
  );
});

describe("an extension that fails", () => {
  verifies(
    "clear-failure",
    "a required one ends the request, with its code; an optional one is passed over",
    async () => {
      timeouts = 0;
      expect(await decide({ pre: [{ id: "silent", mode: "required" }] })).toMatchObject({
        error: { code: "extension_timeout", details: { extension_id: "silent" } },
      });
      expect(timeouts).toBe(2); // one try and one retry
      expect(await decide({ pre: [{ id: "broken", mode: "required" }] })).toMatchObject({
        error: { code: "extension_error" },
      });
      expect(await decide({ post: [{ id: "absent", mode: "required" }] })).toMatchObject({
        error: { code: "post_processor_failed", details: { reason: "extension_unavailable" } },
      });
      const reply = await decide({ pre: [{ id: "broken" }, { id: "off" }], post: [{ id: "absent" }] });
      expect(executed(reply)).toEqual([
        { type: "pre", id: "broken", status: "error" },
        { type: "pre", id: "off", status: "skipped" },
        { type: "post", id: "absent", status: "error" },
      ]);
    },
  );

  test("one that is not registered, or of another type, is a mistake in the policy", async () => {
    for (const id of ["nobody", "label"])
      expect(await decide({ pre: [{ id }] })).toMatchObject({ error: { code: "extension_not_found" } });
  });

  test("one whose condition does not match is skipped", async () => {
    const reply = await decide({ pre: [{ id: "broken", mode: "required", when: { tier: ["gold"] } }] });
    expect(executed(reply)).toEqual([{ type: "pre", id: "broken", status: "skipped" }]);
  });

  test("the deadline of the context is looked at between phases", async () => {
    expect(await decide({ pre: [{ id: "translate" }] }, { context: { deadline: Date.now() - 1 } })).toMatchObject({
      error: { code: "unavailable" },
    });
  });

  test("five failures open its circuit: refused at once, and seen in health and circuit states", async () => {
    await admin(world, "upsert_extension", {
      tenant_id: "acme",
      extension: { id: "flaky", type: "pre", subject: "beamline.ext.pre.broken.v1" },
    });
    const required = { pre: [{ id: "flaky", mode: "required" }] };
    for (let i = 0; i < 5; i++) expect(await decide(required)).toMatchObject({ error: { code: "extension_error" } });
    expect(await decide(required)).toMatchObject({ error: { code: "extension_unavailable" } });
    expect(await admin(world, "get_circuit_breaker_states", {})).toMatchObject({
      states: { flaky: { extension_id: "flaky", state: "open" }, translate: { state: "closed" } },
    });
    expect(await admin(world, "get_extension_health", {})).toMatchObject({
      health: {
        flaky: { status: "unhealthy", failure_count: 5, circuit_breaker_state: "open" },
        translate: { status: "healthy" },
        off: { success_count: 0 },
      },
    });
  });
});

test("a replay is the answer the post extensions made", async () => {
  const pipeline = { post: [{ id: "label" }] };
  const first = await decide(pipeline, { idempotency_key: "piped" });
  const calls = postAsked.length;
  expect(await ask(world, request("acme", `p${policies % 10}`, { idempotency_key: "piped" }))).toEqual(first);
  expect(postAsked.length).toBe(calls);
});

describe("before any extension is asked", () => {
  /** A pre extension that takes its time; what it was asked. */
  async function counted(id: string, ms: number): Promise<unknown[]> {
    const asked: unknown[] = [];
    outside.nc.subscribe(`beamline.ext.pre.${id}.v1`, {
      callback(_error, message) {
        asked.push(message.json());
        setTimeout(() => message.respond("{}"), ms);
      },
    });
    await outside.flush();
    await admin(world, "upsert_extension", { tenant_id: "*", extension: { id, type: "pre" } });
    return asked;
  }
  const hello = { message_type: "chat", payload: '{"text":"hello"}' };

  verifies(
    "effect-once",
    "a repetition gets the stored answer, also one that comes while the first is under way",
    async () => {
      const asked = await counted("slowly", 150);
      await putPolicy(world, "gate", "slowly", {
        providers: [
          { name: "a", weight: 50 },
          { name: "b", weight: 50 },
        ],
        pre: [{ id: "slowly", mode: "required" }],
      });
      const keyed = request("gate", "slowly", { idempotency_key: "slow-key", message: hello });
      const replies = await Promise.all(Array.from({ length: 6 }, () => ask(world, keyed)));
      expect(new Set(replies.map((one) => JSON.stringify(one))).size).toBe(1);
      expect(replies[0]).toMatchObject({ reason: "weighted" });
      expect(await ask(world, keyed)).toEqual(replies[0]);
      expect(asked).toHaveLength(1);
      // Another content is refused as quietly.
      expect(await ask(world, { ...keyed, context: { more: "1" } })).toMatchObject({
        error: { intake_error_code: "IDEMPOTENCY_VIOLATION" },
      });
      expect(asked).toHaveLength(1);
    },
  );

  test("what an extension refused has not used its key", async () => {
    let rejects = true;
    serveExtension(outside, "beamline.ext.validate.moody.v1", () => (rejects ? { status: "reject" } : {}));
    await outside.flush();
    await admin(world, "upsert_extension", { tenant_id: "*", extension: { id: "moody", type: "validator" } });
    await putPolicy(world, "gate", "moody", { providers: [{ name: "a", weight: 1 }], validators: [{ id: "moody" }] });
    const keyed = request("gate", "moody", { idempotency_key: "moody-key", message: hello });
    expect(await ask(world, keyed)).toMatchObject({ error: { code: "validator_blocked" } });
    rejects = false;
    expect(await ask(world, keyed)).toMatchObject({ provider_id: "a" });
    rejects = true;
    expect(await ask(world, keyed)).toMatchObject({ provider_id: "a" });
  });

  test("what is beyond the limit of its policy is refused", async () => {
    const asked = await counted("limited", 0);
    await putPolicy(world, "gate", "limited", {
      providers: [{ name: "a", weight: 1 }],
      pre: [{ id: "limited" }],
      rate_limit: { enabled: true, requests_per_second: 1, burst: 1 },
    });
    let refused = 0;
    let decided = 0;
    await until(async () => {
      const reply = await ask(world, request("gate", "limited"));
      if ("error" in reply) refused++;
      else decided++;
      return refused >= 3;
    }, "refusals");
    expect(asked).toHaveLength(decided);
  });

  test("a session that a pre extension names is kept", async () => {
    serveExtension(outside, "beamline.ext.pre.names.v1", () => ({ metadata: { user_id: "from-extension" } }));
    await outside.flush();
    await admin(world, "upsert_extension", { tenant_id: "*", extension: { id: "names", type: "pre" } });
    await putPolicy(world, "gate", "named", {
      providers: [{ name: "a", weight: 1 }],
      pre: [{ id: "names" }],
      sticky: { enabled: true, session_key: "user_id" },
    });
    const keyed = (key: string): Json => request("gate", "named", { idempotency_key: key });
    expect(await ask(world, keyed("named-1"))).toMatchObject({ reason: "weighted" });
    expect(await ask(world, keyed("named-2"))).toMatchObject({ reason: "sticky" });
    expect(await ask(world, keyed("named-1"))).toMatchObject({ provider_id: "a" });
  });
});

describe("the registry", () => {
  test.each<[Json, string]>([
    [{ type: "pre" }, "extension.id"],
    [{ id: "a.b", type: "pre" }, "extension.id"],
    [{ id: "x" }, "extension.type"],
    [{ id: "x", type: "other" }, "extension.type"],
    [{ id: "x", type: "pre", subject: "beamline.ext.post.x.v1" }, "extension.subject"],
    [{ id: "x", type: "pre", subject: "log.memory.rec.x" }, "extension.subject"],
    [{ id: "x", type: "pre", timeout_ms: 5 }, "extension.timeout_ms"],
    [{ id: "x", type: "pre", retry: 4 }, "extension.retry"],
    [{ id: "x", type: "pre", wrong: 1 }, "extension.wrong"],
  ])("refuses %j, naming %s", async (extension, field) => {
    const error = await admin(world, "upsert_extension", { tenant_id: "acme", extension }).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ code: "invalid_argument", field });
  });

  verifies("tenant-wall", "a tenant's extension is nobody else's", async () => {
    await admin(world, "upsert_extension", { tenant_id: "evil", extension: { id: "theirs", type: "pre" } });
    expect(await decide({ pre: [{ id: "theirs" }] })).toMatchObject({ error: { code: "extension_not_found" } });
    expect(await admin(world, "list_extensions", { tenant_id: "evil" })).toMatchObject({
      extensions: [{ id: "theirs" }],
    });
    await admin(world, "delete_extension", { tenant_id: "evil", extension_id: "theirs" });
    expect(await admin(world, "list_extensions", { tenant_id: "evil" })).toEqual({ extensions: [] });
  });

  test("without the key nothing is told", async () => {
    const { reply } = await exchange(world, { tenant_id: "*" }, {}, "beamline.router.v1.admin.list_extensions");
    expect(reply).toMatchObject({ ok: false, error: { code: "UNAUTHENTICATED" } });
  });
});
