import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../../contracts/codec.ts";
import { MemoryState } from "./shared.memory.ts";
import type { Question, SharedState, Verdict } from "../ports.ts";
import { policy, seventyThirty, TestRouter } from "../testkit.ts";

let ids = 0;
/** A request of the seed form with its own message id. */
function request(more: JsonObject = {}, context: JsonObject = {}, tenant = "acme"): JsonObject {
  return {
    message: { message_id: `m${++ids}`, tenant_id: tenant, message_type: "chat", payload: "hello" },
    context,
    ...more,
  };
}

describe("sessions", () => {
  const sticky = { ...seventyThirty, sticky: { enabled: true, session_key: "user_id", ttl: "10m" } };
  const router = (document: object = sticky): TestRouter =>
    new TestRouter([policy(document), policy(document, { tenant: "other" })]);

  test("the first request is weighted and stores, the next are sticky with priority 100", async () => {
    const one = router();
    const first = await one.ask(request({}, { user_id: "u1" }));
    expect(first).toMatchObject({ reason: "weighted", priority: 50 });
    for (let i = 0; i < 10; i++) {
      expect(await one.ask(request({}, { user_id: "u1" }))).toMatchObject({
        provider_id: first["provider_id"],
        reason: "sticky",
        priority: 100,
        metadata: { session_key: "user_id" },
      });
    }
  });

  test("a session takes one turn, however often it comes back: 70/30 of sessions", async () => {
    const one = router();
    const found: unknown[] = [];
    for (let user = 0; user < 100; user++) {
      found.push((await one.ask(request({}, { user_id: `u${user}` })))["provider_id"]);
      for (let again = 0; again < user % 4; again++) await one.ask(request({}, { user_id: `u${user % 7}` }));
    }
    expect(found.filter((provider) => provider === "openai")).toHaveLength(70);
  });

  test("the envelope tells the session and its end", async () => {
    const one = router();
    const reply = await one.ask({
      version: "1",
      request_id: "r",
      tenant_id: "acme",
      message: {},
      context: { user_id: "u1" },
    });
    expect(reply["decision"]).toMatchObject({ sticky_key: "u1", expires_at_ms: one.nowMs + 600_000 });
  });

  test("it ends after its TTL, and a hit makes it last again", async () => {
    const one = router({
      providers: [
        { name: "a", weight: 50 },
        { name: "b", weight: 50 },
      ],
      sticky: { enabled: true, ttl: "10m" },
    });
    const ask = async (): Promise<unknown> => (await one.ask(request({}, { session_id: "s" })))["reason"];
    expect(await ask()).toBe("weighted");
    one.nowMs += 599_000;
    expect(await ask()).toBe("sticky");
    one.nowMs += 599_000;
    expect(await ask()).toBe("sticky");
    one.nowMs += 600_000;
    expect(await ask()).toBe("weighted");
  });

  test.each([
    [{ ttl: "30s" }, 30_000],
    [{ ttl: "1h" }, 3_600_000],
    [{ ttl: "soon" }, 3_600_000],
    [{}, 3_600_000],
    [{ ttl_seconds: 7 }, 7_000],
  ])("%j lasts %i ms", (ttl, ms) => {
    expect(policy({ ...seventyThirty, sticky: { enabled: true, ...ttl } }).sticky?.ttlMs).toBe(ms);
  });

  test("without the session key in the context nothing sticks", async () => {
    const one = router();
    const found = await Promise.all(Array.from({ length: 10 }, () => one.ask(request({}, {}))));
    expect(found.filter(({ provider_id }) => provider_id === "openai")).toHaveLength(7);
    expect(new Set(found.map(({ reason }) => reason))).toEqual(new Set(["weighted"]));
  });

  test("sessions of two tenants know nothing of each other", async () => {
    const one = router();
    await one.ask(request({}, { user_id: "u1" }));
    expect(await one.ask(request({}, { user_id: "u1" }, "other"))).toMatchObject({ reason: "weighted" });
  });

  test("a session moves when its provider is gone from the policy", async () => {
    const shared = new MemoryState(() => 1);
    const before = new TestRouter([policy({ providers: [{ name: "a", weight: 1 }], sticky: { enabled: true } })], {
      shared,
    });
    const after = new TestRouter([policy({ providers: [{ name: "b", weight: 1 }], sticky: { enabled: true } })], {
      shared,
    });
    await before.ask(request({}, { session_id: "s" }));
    expect(await after.ask(request({}, { session_id: "s" }))).toMatchObject({ provider_id: "b", reason: "weighted" });
    expect(await after.ask(request({}, { session_id: "s" }))).toMatchObject({ provider_id: "b", reason: "sticky" });
  });

  test("two workers keep one session", async () => {
    const shared = new MemoryState(() => 1);
    const workers = [new TestRouter([policy(sticky)], { shared }), new TestRouter([policy(sticky)], { shared })];
    const found: unknown[] = [];
    for (let i = 0; i < 20; i++)
      found.push((await workers[i % 2]?.ask(request({}, { user_id: "u" })))?.["provider_id"]);
    expect(new Set(found).size).toBe(1);
  });
});

describe("idempotency", () => {
  const router = (): TestRouter =>
    new TestRouter([
      policy(seventyThirty),
      policy(seventyThirty, { tenant: "other" }),
      policy({ providers: [{ name: "x", weight: 0 }] }, { id: "empty" }),
    ]);

  test("a repetition gets the first decision, and takes no turn", async () => {
    const one = router();
    const first = await one.ask(request({ idempotency_key: "k" }));
    for (let i = 0; i < 5; i++) expect(await one.ask(request({ idempotency_key: "k" }))).toEqual(first);
    const rest = await Promise.all(Array.from({ length: 9 }, () => one.ask(request())));
    expect([first, ...rest].filter(({ provider_id }) => provider_id === "openai")).toHaveLength(7);
  });

  test("the request's key governs, the message's stands in", async () => {
    const one = router();
    const message = {
      message_id: "m",
      tenant_id: "acme",
      message_type: "chat",
      payload: "hello",
      idempotency_key: "k",
    };
    const first = await one.ask({ message });
    expect(await one.ask({ message })).toEqual(first);
    const conflicting = await one.ask({ message: { ...message, payload: "other" }, idempotency_key: "another" });
    expect(conflicting).toHaveProperty("provider_id");
  });

  test("the same key with another content is a violation", async () => {
    const one = router();
    await one.ask(request({ idempotency_key: "k" }));
    const reply = await one.ask({ ...request({ idempotency_key: "k" }), context: { user: "else" } });
    expect(reply).toMatchObject({
      ok: false,
      error: {
        code: "invalid_request",
        intake_error_code: "IDEMPOTENCY_VIOLATION",
        details: { field: "idempotency_key", idempotency_key: "k" },
      },
    });
    expect(one.refused).toEqual([]);
  });

  test("the same key in two tenants is two requests", async () => {
    const one = router();
    await one.ask(request({ idempotency_key: "k" }));
    expect(await one.ask({ ...request({ idempotency_key: "k" }, { more: 1 }, "other") })).toHaveProperty("provider_id");
  });

  test("what failed may be tried again with the same key", async () => {
    const one = router();
    expect(await one.ask(request({ idempotency_key: "k", policy_id: "empty" }))).toMatchObject({
      error: { code: "decision_failed" },
    });
    expect(await one.ask(request({ idempotency_key: "k" }))).toHaveProperty("provider_id");
  });

  test("after its time it is new", async () => {
    const one = router();
    const first = await one.ask(request({ idempotency_key: "k" }));
    one.nowMs += 3_600_000;
    await one.ask(request());
    const later = await one.ask(request({ idempotency_key: "k" }, { anything: "else" }));
    expect(later).toHaveProperty("provider_id");
    expect(first).toHaveProperty("provider_id");
  });

  test("the decision is replayed in the form of the repetition", async () => {
    const one = router();
    const message = { message_id: "m", message_type: "chat", payload: "hello" };
    const bare = await one.ask({ message: { ...message, tenant_id: "acme" }, idempotency_key: "k" });
    const enveloped = await one.ask({
      version: "1",
      request_id: "r",
      tenant_id: "acme",
      message,
      idempotency_key: "k",
    });
    expect(enveloped).toMatchObject({ ok: true, decision: bare, context: { request_id: "r" } });
  });
});

describe("limits", () => {
  const limited = { ...seventyThirty, rate_limit: { enabled: true, requests_per_second: 2, burst: 3 } };

  test("the burst, then refusal with when to come back, then refilled by the second", async () => {
    const one = new TestRouter([policy(limited)]);
    for (let i = 0; i < 3; i++) expect(await one.ask(request())).toHaveProperty("provider_id");
    const { reply, error } = await one.exchange(request());
    expect(reply).toMatchObject({
      ok: false,
      error: {
        code: "rate_limit_exceeded",
        details: { scope: "policy", identifier: "default", limit: 2, burst: 3, retry_after_seconds: 1 },
      },
    });
    expect(error?.retryAfterSeconds).toBe(1);
    one.nowMs += 1_000;
    expect(await one.ask(request())).toHaveProperty("provider_id");
    expect(await one.ask(request())).toHaveProperty("provider_id");
    expect(await one.ask(request())).toMatchObject({ ok: false });
  });

  test("a repetition costs nothing", async () => {
    const one = new TestRouter([policy(limited)]);
    for (let i = 0; i < 10; i++) expect(await one.ask(request({ idempotency_key: "k" }))).toHaveProperty("provider_id");
  });

  test("a refused request takes no turn and stores no session", async () => {
    const one = new TestRouter([
      policy({
        ...limited,
        rate_limit: { enabled: true, requests_per_second: 1, burst: 1 },
        sticky: { enabled: true },
      }),
    ]);
    await one.ask(request({}, { session_id: "first" }));
    for (let i = 0; i < 5; i++) await one.ask(request({}, { session_id: "second" }));
    one.nowMs += 1_000;
    expect(await one.ask(request({}, { session_id: "second" }))).toMatchObject({
      reason: "weighted",
      provider_id: "anthropic",
    });
  });
});

describe("a store that answers later", () => {
  /** The memory behind a promise, as Redis would be; counts its questions. */
  class Remote implements SharedState {
    readonly inner = new MemoryState(() => 1);
    asked = 0;
    away = false;
    async settle(question: Question): Promise<Verdict> {
      this.asked++;
      await Promise.resolve();
      if (this.away) throw new Error("away");
      return this.inner.settle(question);
    }
    remember(...[tenant, key, digest, words]: Parameters<SharedState["remember"]>): void {
      this.inner.remember(tenant, key, digest, words);
    }
    forget(...args: Parameters<SharedState["forget"]>): void {
      this.inner.forget(...args);
    }
  }

  test("session, limit and key are one question", async () => {
    const shared = new Remote();
    const one = new TestRouter(
      [policy({ ...seventyThirty, sticky: { enabled: true }, rate_limit: { enabled: true } })],
      { shared },
    );
    expect(await one.ask(request({ idempotency_key: "k" }, { session_id: "s" }))).toMatchObject({ reason: "weighted" });
    expect(shared.asked).toBe(1);
  });

  test("a plain policy asks nothing", async () => {
    const shared = new Remote();
    await new TestRouter([policy(seventyThirty)], { shared }).ask(request());
    expect(shared.asked).toBe(0);
  });

  test("calls of one session that overlap agree", async () => {
    const one = new TestRouter([policy({ ...seventyThirty, sticky: { enabled: true } })], { shared: new Remote() });
    const found = await Promise.all(Array.from({ length: 50 }, () => one.ask(request({}, { session_id: "s" }))));
    expect(new Set(found.map(({ provider_id }) => provider_id)).size).toBe(1);
    expect(found.filter(({ reason }) => reason === "weighted")).toHaveLength(1);
    // All turns but one were given back: the shares of new sessions are as if nothing had happened.
    const rest = await Promise.all(Array.from({ length: 99 }, (_, i) => one.ask(request({}, { session_id: `t${i}` }))));
    expect([...rest, found[0]].filter((reply) => reply?.["provider_id"] === "openai")).toHaveLength(70);
  });

  test("a repetition that overtakes the first waits for it", async () => {
    const one = new TestRouter([policy(seventyThirty)], { shared: new Remote() });
    const found = await Promise.all(Array.from({ length: 10 }, () => one.ask(request({ idempotency_key: "k" }))));
    expect(new Set(found.map((reply) => JSON.stringify(reply))).size).toBe(1);
  });

  test("a store that is away stops nobody", async () => {
    const shared = new Remote();
    const failures: unknown[] = [];
    const sticky = policy({
      ...seventyThirty,
      sticky: { enabled: true },
      rate_limit: { enabled: true, requests_per_second: 1, burst: 1 },
    });
    const one = new TestRouter([sticky], { shared, onStoreFailure: (thrown) => void failures.push(thrown) });
    shared.away = true;
    for (let i = 0; i < 5; i++)
      expect(await one.ask(request({ idempotency_key: "k" }, { session_id: "s" }))).toMatchObject({
        reason: "weighted",
      });
    expect(failures).toHaveLength(5);
    shared.away = false;
    expect(await one.ask(request({}, { session_id: "s" }))).toMatchObject({ reason: "weighted" });
    expect(await one.ask(request({}, { session_id: "s" }))).toMatchObject({ error: { code: "rate_limit_exceeded" } });
  });
});
