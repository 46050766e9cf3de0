/** The routing worker on a real server: requests as gateways and clients send them, and two workers with one bucket. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Caller } from "../../bus/call.ts";
import { textOf } from "../../bus/headers.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { PolicyStore } from "./policies/policystore.ts";
import { sampleDecision, sampleRequest } from "./testkit.ts";
import { ask as askOf, DECIDE, startTestWorker, type TestWorker } from "./testworker.ts";

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

describe("deciding", () => {
  test("the sample request of the contract, by the seeded policy", async () => {
    const { body, error } = await ask(DECIDE, sampleRequest);
    expect(error).toBe(false);
    expect(body).toMatchObject(sampleDecision);
  });

  test.each<[string, JsonObject, JsonObject]>([
    [
      "extended",
      {
        version: "1",
        request_id: "r2",
        tenant_id: "acme",
        task: { type: "text.generate", payload: { text: "hi there" } },
      },
      { ok: true, context: { request_id: "r2" } },
    ],
    [
      "hybrid",
      {
        version: "1",
        request_id: "r3",
        trace_id: "t3",
        tenant_id: "acme",
        message: { message_type: "chat", payload: { text: "hi" } },
      },
      { ok: true, context: { request_id: "r3", trace_id: "t3" } },
    ],
    [
      "flat",
      { message_id: "m4", tenant_id: "acme", message_type: "chat", payload: "eyJ0IjoxfQ==" },
      { provider_id: "openai", reason: "weighted" },
    ],
  ])("the %s form", async (_, request, expected) => {
    const { body, error } = await ask(DECIDE, request);
    expect(error).toBe(false);
    expect(body).toMatchObject(expected);
  });

  test("get_decision finds what was decided", async () => {
    await ask(DECIDE, { message: { message_id: "find-me", tenant_id: "acme", message_type: "chat", payload: "x" } });
    expect((await ask("beamline.router.v1.get_decision", { message_id: "find-me" })).body).toMatchObject({
      provider_id: "openai",
    });
    expect(
      await ask("beamline.router.v1.get_decision", { message_id: "never-seen" }, { tenant_id: "acme" }),
    ).toMatchObject({ error: true, body: { error: { code: "policy_not_found" } } });
  });

  test.each(["beamline.router.v1.decide.reply", "beamline.router.v1.decide.response"])(
    "a request without a reply subject is answered on %s",
    async (subject) => {
      const { bus } = client;
      const heard: string[] = [];
      const subscription = bus.nc.subscribe(subject, {
        callback: (_error, message) => void heard.push(textOf(message)),
      });
      await bus.flush();
      bus.send(
        DECIDE,
        JSON.stringify({ version: "1", request_id: `no-reply-${subject}`, tenant_id: "acme", message: {} }),
      );
      await until(() => heard.length > 0, "the reply");
      subscription.unsubscribe();
      expect(JSON.parse(heard[0] ?? "")).toMatchObject({ ok: true, context: { request_id: `no-reply-${subject}` } });
    },
  );

  test("an error is an envelope and is marked in the headers", async () => {
    const reply = await client.call(
      DECIDE,
      JSON.stringify({ ...sampleRequest, policy_id: "nope", idempotency_key: "e" }),
      { timeoutMs: 5_000 },
    );
    expect(reply.headers["Nats-Service-Error-Code"]).toBe("404");
    expect(JSON.parse(reply.text)).toEqual({
      ok: false,
      error: {
        code: "policy_not_found",
        message: "Policy not found in store",
        details: { tenant_id: "tenant_abc123", policy_id: "nope" },
      },
      context: { request_id: "msg_1234567890", trace_id: "trace_abc123" },
    });
  });

  verifies("clear-failure", "what intake refuses stands on the dead-letter subject with its hash", async () => {
    const { bus } = worker;
    const text = '{"message":{"tenant_id":"acme","message_type":"chat","message_id":"bad-1"}}';
    await ask(DECIDE, text);
    const letter = await until(async () => {
      const stored = await bus.jsm.streams.getMessage("DLQ", { last_by_subj: "beamline.router.v1.decide.dlq" });
      return stored?.json<JsonObject>();
    }, "the dead letter");
    expect(letter).toMatchObject({
      original_subject: DECIDE,
      original_payload_hash: expect.stringMatching(/^[0-9a-f]{64}$/) as unknown,
      validation_error: {
        code: "SCHEMA_VALIDATION_FAILED",
        message: "Missing required field: payload",
        severity: "error",
      },
      context: { tenant_id: "acme", msg_id: "bad-1", validation_stage: "schema" },
      router_node_id: "worker-a",
    });
  });

  test("backpressure is unknown while nobody measures it", async () => {
    expect((await ask("beamline.router.v1.status.backpressure", { subject: DECIDE })).body).toMatchObject({
      success: true,
      data: { status: "unknown" },
    });
  });
});

describe("two workers", () => {
  test("one's change reaches the other, and conflicting changes are both made", async () => {
    const other = await startTestWorker(await nats.connect("worker-b"));
    const first = worker;
    expect(other.store.size).toBe(first.store.size);
    await first.store.put("pair", "p", () => ({ version: "1.0", providers: [{ name: "a", weight: 1 }] }));
    await until(() => other.store.own("pair", "p") !== undefined, "the policy on the other worker");
    await Promise.all(
      [first, other].flatMap(({ store }, w) =>
        Array.from({ length: 5 }, (_, i) =>
          store.put("pair", "p", (stored) => ({
            version: "1.0",
            providers: [...(stored?.document.providers ?? []), { name: `w${w}-${i}`, weight: 1 }],
          })),
        ),
      ),
    );
    const names = (store: PolicyStore): string[] | undefined =>
      store
        .own("pair", "p")
        ?.document.providers?.map(({ name }) => name)
        .sort();
    await until(() => names(first.store)?.length === 11 && names(other.store)?.length === 11, "all changes everywhere");
    expect(names(first.store)).toEqual(names(other.store));
    await other.store.delete("pair", "p");
    await until(() => first.store.own("pair", "p") === undefined, "the deletion on the other worker");
    await other.stop();
  });

  test("a value nobody can read is passed over, and the last good one stays", async () => {
    const first = worker;
    await first.store.put("broken", "p", () => ({ version: "1.0", providers: [{ name: "a", weight: 1 }] }));
    const unreadable: string[] = [];
    const bus = await nats.connect("watcher");
    const store = new PolicyStore(bus, { onUnreadable: (name) => void unreadable.push(name) });
    await store.open();
    bus.send("$KV.policies.broken.p", "{oops");
    await until(() => unreadable.includes("broken.p"), "the complaint");
    expect(store.own("broken", "p")?.candidates).toMatchObject([{ id: "a" }]);
    await store.put("broken", "p", () => ({ version: "1.0", providers: [{ name: "b", weight: 1 }] }));
    expect(store.own("broken", "p")?.candidates).toMatchObject([{ id: "b" }]);
    store.close();
  });

  test("policies survive the worker: a new one has them all at once", async () => {
    const store = new PolicyStore(await nats.connect("late"));
    await store.open();
    expect(store.size).toBe(worker.store.size);
    expect(store.find("anybody", "default")?.tenant).toBe("*");
    store.close();
  });
});
