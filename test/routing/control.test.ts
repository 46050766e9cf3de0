/** The control surface of a local router: what is required, and every operation to its end. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { all } from "../execution/kit.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { exchange, type Json } from "./kit.ts";

const PREFIX = "beamline.router.control.v1";
const TOKEN = "control-token";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    workers: ["routing", "execution", "usage", "inference", "memory"],
    syncInterval: "10s",
    env: {
      BEAMLINE_ROUTER_CONTROL: "true",
      BEAMLINE_ROUTER_CONTROL_TOKEN: TOKEN,
      BEAMLINE_DEMO_PROVIDERS: "openai,anthropic,local",
    },
  });
}, 90_000);
afterAll(() => world[Symbol.asyncDispose]());

let keys = 0;
/** The reply to an operation, whatever it is. */
async function control(operation: string, more: Json = {}, headers: Record<string, string> = { token: TOKEN }) {
  const whole = { version: "1", tenant_id: "acme", request_id: "r1", trace_id: "t1", idempotency_key: `k${++keys}` };
  return (await exchange(world, { ...whole, ...more }, headers, `${PREFIX}.${operation}`)).reply;
}

/** The result of an operation that must succeed. */
async function result(operation: string, more: Json = {}): Promise<Json> {
  const reply = await control(operation, more);
  expect(reply).toMatchObject({ ok: true, context: { request_id: "r1", trace_id: "t1" } });
  return reply["result"] as Json;
}

function refused(code: string, field?: string): object {
  return { ok: false, error: { code, ...(field !== undefined && { details: { field } }) } };
}

const records = async (): Promise<number> => (await world.bus.jsm.streams.info("KV_control")).state.messages;

describe("the door", () => {
  test.each(["version", "tenant_id", "request_id", "trace_id", "idempotency_key"])("%s is required", async (field) => {
    const before = await records();
    expect(await control("project.open", { [field]: undefined })).toMatchObject(refused("invalid_request", field));
    expect(await control("project.open", { [field]: 7 })).toMatchObject(refused("invalid_request", field));
    expect(await records()).toBe(before);
  });

  test("the token is: in a header, else in the body", async () => {
    expect(await control("project.open", {}, {})).toMatchObject(refused("unauthorized", "token"));
    expect(await control("project.open", { token: TOKEN }, { token: "another-one" })).toMatchObject(
      refused("unauthorized"),
    );
    expect(await control("project.open", { token: TOKEN }, {})).toMatchObject({ ok: true });
    expect(await control("project.open", {}, { authorization: `Bearer ${TOKEN}` })).toMatchObject({ ok: true });
  });

  verifies(
    "tenant-wall",
    "a header that names another tenant is refused, and another tenant's records are unknown",
    async () => {
      expect(await control("project.open", {}, { token: TOKEN, tenant_id: "other" })).toMatchObject(
        refused("denied", "tenant_id"),
      );
      const { project_id } = await result("project.open");
      expect(await control("project.close", { tenant_id: "other", project_id })).toMatchObject(
        refused("policy_not_found", "project_id"),
      );
    },
  );

  test.each([
    ["project.open", { name: 7 }, "name"],
    ["project.open", { metadata: "x" }, "metadata"],
    ["project.close", {}, "project_id"],
    ["index.start", {}, "project_id"],
    ["index.status", {}, "index_id"],
    ["index.cancel", { index_id: 1 }, "index_id"],
    ["task.submit", {}, "task"],
    ["task.submit", { task: { payload: { text: "without a type" } } }, "task.type"],
    ["task.submit", { task: { type: "echo" } }, "task.payload"],
    ["task.submit", { task: "x" }, "task"],
    ["task.submit", { task: { type: "echo", payload: "x" }, context: [] }, "context"],
    ["task.status", {}, "task_id"],
    ["task.cancel", {}, "task_id"],
    ["chat.start", { system: 1 }, "system"],
    ["chat.send", { text: "hello" }, "chat_id"],
    ["chat.send", { chat_id: "x" }, "text"],
    ["chat.cancel", {}, "chat_id"],
    ["events.subscribe", { types: ["everything"] }, "types"],
    ["events.subscribe", { ttl_seconds: 0 }, "ttl_seconds"],
  ] as const)("%s %j is refused by its field, and nothing is written", async (operation, more, field) => {
    const before = await records();
    expect(await control(operation, more)).toMatchObject(refused("invalid_request", field));
    expect(await records()).toBe(before);
  });

  test.each([
    ["project.close", "project_id"],
    ["index.start", "project_id"],
    ["index.status", "index_id"],
    ["index.cancel", "index_id"],
    ["task.status", "task_id"],
    ["task.cancel", "task_id"],
    ["chat.start", "project_id"],
    ["chat.cancel", "chat_id"],
  ])("%s of what nobody knows names %s", async (operation, field) => {
    expect(await control(operation, { [field]: "nobody-knows" })).toMatchObject(refused("policy_not_found", field));
  });

  verifies("effect-once", "a key is one thing: repeated it is found, with other content refused", async () => {
    const first = await result("project.open", { idempotency_key: "same", name: "one" });
    expect(await result("project.open", { idempotency_key: "same", name: "one" })).toEqual(first);
    expect(await control("project.open", { idempotency_key: "same", name: "two" })).toMatchObject({
      error: { code: "invalid_request", intake_error_code: "IDEMPOTENCY_VIOLATION" },
    });
    // The key is the tenant's own.
    const other = await result("project.open", { idempotency_key: "same", name: "two", tenant_id: "other" });
    expect(other["project_id"]).not.toBe(first["project_id"]);
  });

  test("the older names answer the same", async () => {
    const { reply } = await exchange(
      world,
      { version: "1", tenant_id: "acme", request_id: "r1", trace_id: "t1", idempotency_key: "old", token: TOKEN },
      {},
      "beamline.router.ide.v1.events.subscribe",
    );
    const subject = expect.stringMatching(/^beamline\.router\.ide\.v1\.events\.inbox\./) as unknown;
    expect(reply).toMatchObject({ ok: true, result: { subject } });
  });
});

describe("the operations", () => {
  /** Events of a tenant from now on, as an outside program hears them. */
  async function subscribed(types: readonly string[] = []): Promise<Json[]> {
    const { subject, subscription_id } = await result("events.subscribe", { types });
    const heard: Json[] = [];
    const outside = await world.connect("publisher", "listener");
    outside.nc.subscribe(String(subject), { callback: (_error, message) => void heard.push(message.json<Json>()) });
    await outside.flush();
    return new Proxy(heard, {
      get(target, name): unknown {
        for (const event of target) expect(event).toMatchObject({ version: "1", tenant_id: "acme", subscription_id });
        return Reflect.get(target, name) as unknown;
      },
    });
  }
  const task = (id: unknown): Promise<Json> => result("task.status", { task_id: id });

  test("a task is decided, executed once, and told of", async () => {
    const heard = await subscribed(["task.submitted", "task.finished"]);
    const { project_id } = await result("project.open", { name: "p" });
    const asked = { idempotency_key: "task-1", project_id, task: { type: "echo", payload: { text: "hello there" } } };
    const submitted = await result("task.submit", asked);
    expect(submitted).toMatchObject({
      status: "submitted",
      type: "echo",
      project_id,
      decision: { reason: "weighted" },
    });
    const id = submitted["task_id"];
    const done = await until(async () => {
      const one = await task(id);
      return one["status"] === "success" && one;
    }, "the task to end");
    expect(done).toMatchObject({ result: { assignment_id: id, payload: { text: "hello there" } } });
    expect(await result("task.submit", asked)).toMatchObject({ task_id: id, status: "success" });
    await until(() => heard.length >= 2, "both events");
    expect(heard.map(({ type }) => type)).toEqual(["task.submitted", "task.finished"]);
    expect(heard[1]).toMatchObject({ trace_id: "t1", data: { task_id: id, status: "success" } });
    const assigned = await all(world.bus, "EXEC", "caf.exec.assign.v1");
    expect(assigned.filter(({ body }) => body["assignment_id"] === id)).toHaveLength(1);
  });

  test("what deciding refuses, submitting does, and no task is made", async () => {
    const before = await records();
    expect(
      await control("task.submit", { policy_id: "none", task: { type: "echo", payload: { text: "hello" } } }),
    ).toMatchObject(refused("policy_not_found"));
    expect(await records()).toBe(before);
  });

  test("a task is cancelled", async () => {
    const { task_id } = await result("task.submit", { task: { type: "sleep", payload: { ms: 60_000 } } });
    expect(await result("task.cancel", { task_id })).toMatchObject({ task_id, status: "cancelling" });
    await until(async () => (await task(task_id))["status"] === "cancelled", "the task to be cancelled");
    expect(await result("task.cancel", { task_id })).toMatchObject({ status: "cancelled" });
  });

  test("a chat has its turns answered one after another", async () => {
    const heard = await subscribed(["chat.answered"]);
    const { chat_id } = await result("chat.start", { system: "Be brief." });
    const asked = { chat_id, text: "hello", idempotency_key: "turn-1" };
    const { task_id } = await result("chat.send", asked);
    await until(() => heard.length === 1, "the answer");
    expect(heard[0]).toMatchObject({
      data: { chat_id, task_id, status: "success", text: expect.any(String) as unknown },
    });
    expect(await result("chat.send", asked)).toMatchObject({ task_id, status: "success" });
    await result("chat.send", { chat_id, text: "and again" });
    await until(() => heard.length === 2, "the second answer");
    const [last] = (await all(world.bus, "EXEC", "caf.exec.assign.v1")).slice(-1);
    expect(last?.body).toMatchObject({
      job: {
        type: "chat",
        payload: { messages: [{ role: "system" }, { role: "user" }, { role: "assistant" }, { content: "and again" }] },
      },
    });
    expect(await result("chat.cancel", { chat_id })).toEqual({ chat_id, status: "idle" });
  });

  test("documents are indexed behind the answer, where searches find them", async () => {
    const heard = await subscribed(["index.progress", "index.finished"]);
    const { project_id } = await result("project.open");
    const documents = [
      { id: "guide", text: "The turbine is oiled every spring." },
      { id: "rules", text: "Nobody enters the hall without a helmet." },
    ];
    const { index_id } = await result("index.start", { project_id, documents });
    await until(
      async () => (await result("index.status", { index_id }))["status"] === "completed",
      "the index",
      60_000,
    );
    await until(() => heard.length === 3, "the events");
    expect(heard.map(({ type }) => type)).toEqual(["index.progress", "index.progress", "index.finished"]);
    const found = (await world.caller.request(
      "aios.memory.v1.search_knowledge",
      { query: "oiling the turbine", n_results: 1 },
      { timeoutMs: 20_000, headers: { tenant_id: "acme" } },
    )) as { results: Json[] };
    expect(JSON.stringify(found.results)).toContain("turbine");
    expect(await result("index.cancel", { index_id })).toMatchObject({ status: "completed", indexed: 2 });
    expect(await control("index.start", { project_id })).toMatchObject(refused("invalid_request", "documents"));
    expect(await control("index.start", { project_id, documents: [{ id: "x" }] })).toMatchObject(
      refused("invalid_request", "documents[0].text"),
    );
  });

  test("a closed project takes nothing new; closing it again is the same answer", async () => {
    const { project_id } = await result("project.open");
    const closed = await result("project.close", { project_id });
    expect(closed).toMatchObject({ status: "closed" });
    expect(await result("project.close", { project_id })).toEqual(closed);
    for (const [operation, more] of [
      ["index.start", { documents: [{ id: "a", text: "b" }] }],
      ["task.submit", { task: { type: "echo", payload: { text: "hello there" } } }],
      ["chat.start", {}],
    ] as const)
      expect(await control(operation, { project_id, ...more })).toMatchObject(refused("invalid_request", "project_id"));
  });
});
