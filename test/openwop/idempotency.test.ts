/** A caller's key makes a mutation happen once, whichever surface it and its retries take (OpenWOP, idempotency layer 1). */
import { createHash, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canonicalJson } from "../../contracts/openwop/json.ts";
import { buckets } from "../../contracts/streams.ts";
import type { IdempotencyRecord } from "../../workers/runs/idempotency.ts";
import { Records } from "../../workers/runs/records.ts";
import { verifies } from "../kit/verifies.ts";
import { bearer, KEYS, startHost, type Got, type Host } from "./host.ts";
import { apply, node, waiting, workflow } from "./provoke.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";

const REPLAY = "openwop-idempotent-replay";
const noop = { workflowId: "conformance-noop" };

let host: Host;
let surfaces: readonly Surface[];
beforeAll(async () => {
  host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "true" }, 2);
  surfaces = [restSurface(host), grpcSurface(host)];
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

const post = (path: string, body: unknown, key: string, bearerKey: string = KEYS.full): Promise<Got> =>
  host.rest("POST", path, body, { "idempotency-key": key }, bearerKey);
const keyed = (key: string): { metadata: Record<string, string> } => ({
  metadata: { ...bearer().metadata, "idempotency-key": key },
});

/** A record as somebody leaves it who dies after the deed and before writing down what came of it. */
async function leave(operation: string, idempotencyKey: string, body: unknown, executionId: string): Promise<void> {
  const digest = (text: string): string => createHash("sha256").update(text).digest("base64url");
  const records = new Records<IdempotencyRecord>(host.bed.bus, buckets.runIdempotency);
  await records.put(["acme", operation, digest(idempotencyKey)], {
    requestDigest: digest(canonicalJson(body)),
    executionId,
    state: "pending",
    leaseOwner: "dead",
    leaseUntil: Date.now() + 1_000,
  });
}

describe.each(["rest", "grpc"] as const)("over %s", (name) => {
  const on = (): Surface => {
    const found = surfaces.find((one) => one.name === name);
    if (found === undefined) throw new Error(name);
    return found;
  };

  test("idempotencyRetry: twenty retries are one run; another body, another tenant, another key are not", async () => {
    const idempotencyKey = randomUUID();
    const body = { workflowId: "conformance-idempotent", inputs: { nonce: "1" } };
    const ids = new Set<string>();
    for (let count = 0; count < 20; count++) ids.add((await on().create(body, { idempotencyKey })).body.runId);
    expect(ids.size).toBe(1);
    const other = await on().create({ ...body, inputs: { nonce: "2" } }, { idempotencyKey });
    expect([other.body.error, other.body.runId]).toEqual(["idempotency_key_mismatch", undefined]);
    const elsewhere = await on().create(body, { idempotencyKey, key: KEYS.other });
    expect([elsewhere.ok, ids.has(elsewhere.body.runId)]).toEqual([true, false]);
    const fresh = await Promise.all(
      Array.from({ length: 10 }, () => on().create(body, { idempotencyKey: randomUUID() })),
    );
    expect(new Set(fresh.map((reply) => reply.body.runId)).size).toBe(10);
  });

  verifies("effect-once", `highConcurrency over ${name}: ten calls at once under a key are one run`, async () => {
    const idempotencyKey = randomUUID();
    const replies = await Promise.all(Array.from({ length: 10 }, () => on().create(noop, { idempotencyKey })));
    const made = replies.filter(({ ok }) => ok);
    expect(made.length).toBeGreaterThan(0);
    expect(new Set(made.map(({ body }) => body.runId)).size).toBe(1);
    for (const { body } of replies.filter(({ ok }) => !ok)) expect(body.error).toBe("idempotency_in_flight");
  });

  test("a request that was wrong, or not allowed, leaves its key free; a refusal that stands is kept", async () => {
    const wrong = randomUUID();
    expect((await on().create({}, { idempotencyKey: wrong })).body.error).toBe("validation_error");
    const mock = { ...noop, configurable: { mockProvider: { id: "stream-text" } } };
    const refused = await on().create(mock, { idempotencyKey: wrong, key: KEYS.live });
    expect(refused.body.error).toBe("mock_provider_forbidden");
    expect((await on().create(noop, { idempotencyKey: wrong, key: KEYS.low })).body.error).toBe("forbidden");
    expect((await on().create(noop, { idempotencyKey: wrong })).ok).toBe(true);
    const kept = randomUUID();
    const late = { workflowId: `late-${name}` };
    const first = await on().create(late, { idempotencyKey: kept });
    expect(first.body.error).toBe("workflow_not_found");
    await apply(host, late.workflowId, [node("n", "core.noop")]);
    expect(await on().create(late, { idempotencyKey: kept })).toEqual(first);
  });

  test("a holder that died: the next call takes over after its lease, and names the run as the first would have", async () => {
    const [idempotencyKey, executionId] = [randomUUID(), randomUUID()];
    await leave("runs.create", idempotencyKey, noop, executionId);
    const replies = await Promise.all([1, 2, 3].map(() => on().create(noop, { idempotencyKey })));
    expect(replies.map((reply) => reply.body.runId)).toEqual([executionId, executionId, executionId]);
  });

  test("keys of 255 characters, of any characters; longer ones are refused", async () => {
    const odd = `${"ü".repeat(20)} 🙂 "quoted", ${randomUUID()}`;
    const long = `${randomUUID()}${"k".repeat(219)}`;
    for (const idempotencyKey of name === "rest" ? [long] : [long, odd]) {
      const [one, two] = [await on().create(noop, { idempotencyKey }), await on().create(noop, { idempotencyKey })];
      expect([one.ok, two.body.runId]).toEqual([true, one.body.runId]);
    }
    expect((await on().create(noop, { idempotencyKey: `${long}k` })).body.error).toBe("validation_error");
  });
});

test("a retry over the other surface finds the same record, however the body is spelled", async () => {
  const body = { workflowId: "conformance-idempotent", inputs: { nonce: "1" }, tags: ["a"] };
  const [one, two] = [randomUUID(), randomUUID()];
  const [rest, grpc] = surfaces;
  const first = await rest?.create(body, { idempotencyKey: one });
  const spelled = { tags: ["a"], inputs: { nonce: "1" }, workflowId: "conformance-idempotent" };
  expect((await grpc?.create(spelled, { idempotencyKey: one }))?.body.runId).toBe(first?.body.runId);
  const second = await grpc?.create(body, { idempotencyKey: two });
  const again = await post("/v1/runs", spelled, two);
  expect([again.body.runId, again.headers.get(REPLAY)]).toEqual([second?.body.runId, "true"]);
});

test("the header says whether an answer was kept, also a refusal; reading knows no keys", async () => {
  const key = randomUUID();
  const [first, second] = [await post("/v1/runs", noop, key), await post("/v1/runs", noop, key)];
  expect([first.headers.get(REPLAY), second.headers.get(REPLAY)]).toEqual(["false", "true"]);
  expect([second.status, second.body, second.headers.get("set-cookie")]).toEqual([201, first.body, null]);
  const gone = randomUUID();
  const refusals = [await post("/v1/runs/none/cancel", {}, gone), await post("/v1/runs/none/cancel", {}, gone)];
  expect(refusals.map(({ status, body }) => [status, body.error])).toEqual([
    [404, "run_not_found"],
    [404, "run_not_found"],
  ]);
  expect(refusals.map(({ headers }) => headers.get(REPLAY))).toEqual([null, "true"]);
  expect(refusals[1]?.body).toEqual(refusals[0]?.body);
  const runId = await host.start("conformance-approval");
  await host.reaches(runId, "waiting-approval");
  const read = (): Promise<Got> => host.rest("GET", `/v1/runs/${runId}`, undefined, { "idempotency-key": key });
  const before = (await read()).body.status;
  await post(`/v1/runs/${runId}/cancel`, {}, randomUUID());
  const after = await read();
  expect([before, after.body.status, after.headers.get(REPLAY)]).toEqual(["waiting-approval", "cancelled", null]);
});

test("every mutation takes a key: the second call changes nothing and answers the same, from either surface", async () => {
  const gate = await waiting(host, "conformance-approval", "waiting-approval");
  const done = await waiting(host, "conformance-noop", "completed");
  const slow = await host.start("conformance-cancellable");
  const doomed = await host.start("conformance-cancellable");
  const { grpc } = host;
  const hook = { url: "http://127.0.0.1:9/hook", events: ["run.completed"] };
  const hookKey = randomUUID();
  const { webhookId } = (await post("/v1/webhooks", hook, hookKey)).body;
  // What REST did first, gRPC does again under the same key: each must give what was kept.
  const key = randomUUID();
  const accept = { action: "accept" };
  const pairs: readonly (readonly [string, () => Promise<Got>, () => Promise<unknown>])[] = [
    [
      "resolve",
      () => post(`/v1/runs/${gate}/interrupts/gate`, { resumeValue: accept }, key),
      () => grpc.call("resolveInterruptByRun", { run_id: gate, node_id: "gate", resume_value: accept }, keyed(key)),
    ],
    [
      "fork",
      () => post(`/v1/runs/${done}:fork`, { mode: "branch", fromSeq: 0 }, key),
      () => grpc.call("forkRun", { run_id: done, mode: "branch", from_seq: 0n }, keyed(key)),
    ],
    [
      "pause",
      () => post(`/v1/runs/${slow}:pause`, { drainPolicy: "immediate" }, key),
      () => grpc.call("pauseRun", { run_id: slow, drain_policy: "immediate" }, keyed(key)),
    ],
    [
      "resume",
      () => post(`/v1/runs/${slow}:resume`, {}, key),
      () => grpc.call("resumeRun", { run_id: slow }, keyed(key)),
    ],
    [
      "bulk cancel",
      () => post("/v1/runs:bulk-cancel", { runIds: [doomed, done] }, key),
      () => grpc.call("bulkCancelRuns", { run_ids: [doomed, done] }, keyed(key)),
    ],
    [
      "cancel",
      () => post(`/v1/runs/${slow}/cancel`, { reason: "enough" }, key),
      () => grpc.call("cancelRun", { run_id: slow, reason: "enough" }, keyed(key)),
    ],
    [
      "register",
      () => post("/v1/webhooks", hook, hookKey),
      () => grpc.call("registerWebhook", { url: hook.url, event_types: hook.events }, keyed(hookKey)),
    ],
    [
      "unregister",
      () => host.rest("DELETE", `/v1/webhooks/${webhookId}`, undefined, { "idempotency-key": key }),
      () => grpc.call("unregisterWebhook", { webhook_id: webhookId }, keyed(key)),
    ],
  ];
  for (const [what, overRest, overGrpc] of pairs) {
    const first = await overRest();
    const second = await overRest();
    expect([what, first.status < 300, second.status, second.body]).toEqual([what, true, first.status, first.body]);
    expect([what, second.headers.get(REPLAY)]).toEqual([what, "true"]);
    await overGrpc();
  }
  const events = (await host.events(slow)).map(({ type }) => type);
  for (const type of ["run.paused", "run.resumed", "run.cancelled"])
    expect([type, events.filter((one) => one === type).length]).toEqual([type, 1]);
});

test("so do our own: a workflow that is applied, a webhook that is revived", async () => {
  const hook = { url: "http://127.0.0.1:9/revived", events: ["run.completed"] };
  const { webhookId } = (await post("/v1/webhooks", hook, randomUUID())).body;
  const applied = workflow("applied-once", [node("n", "core.noop")]);
  const calls: readonly (() => Promise<Got>)[] = [
    () => host.rest("PUT", "/v1/workflows/applied-once", applied, { "idempotency-key": "apply" }),
    () => post(`/v1/webhooks/${webhookId}/redrive`, undefined, "revive"),
  ];
  for (const call of calls) {
    const [first, second] = [await call(), await call()];
    expect([second.status, second.body, second.headers.get(REPLAY)]).toEqual([first.status, first.body, "true"]);
  }
  const other = workflow("applied-once", [node("m", "core.noop")]);
  const mismatch = await host.rest("PUT", "/v1/workflows/applied-once", other, { "idempotency-key": "apply" });
  expect(mismatch.body.error).toBe("idempotency_key_mismatch");
});

test("a holder that died after its deed: the fork or the webhook it made is the one that is told, and there is no other", async () => {
  const { body: source } = await post("/v1/runs", noop, randomUUID());
  await host.reaches(source.runId, "completed");
  for (const fromSeq of [0, 2]) {
    const [key, asked] = [randomUUID(), { mode: "branch", fromSeq }];
    const made = await post(`/v1/runs/${source.runId}:fork`, asked, key);
    await leave("runs.fork", key, { runId: source.runId, body: asked }, made.body.runId as string);
    const again = await post(`/v1/runs/${source.runId}:fork`, asked, key);
    expect([again.status, again.body.runId, again.headers.get(REPLAY)]).toEqual([201, made.body.runId, "false"]);
  }
  const key = randomUUID();
  const hook = { url: "https://example.com/hook-of-the-dead", events: ["run.completed"] };
  const made = await post("/v1/webhooks", hook, key);
  await leave("webhooks.register", key, hook, made.body.webhookId as string);
  const again = await post("/v1/webhooks", hook, key);
  expect([again.status, again.body.webhookId]).toEqual([201, made.body.webhookId]);
  const { webhooks } = (await host.rest("GET", "/v1/webhooks")).body as { webhooks: { url: string }[] };
  expect(webhooks.filter(({ url }) => url === hook.url)).toHaveLength(1);
});

test("a refusal that says when to come again is not kept: the same call, later, goes through", async () => {
  const [scoped, key] = [{ workflowId: "conformance-approval", scopeId: "busy" }, randomUUID()];
  const dedup = (idempotencyKey: string): Promise<Got> =>
    host.rest("POST", "/v1/runs", scoped, { "x-dedup": "enforce", "idempotency-key": idempotencyKey });
  const active = await dedup(randomUUID());
  for (let tries = 0; tries < 2; tries++) {
    const refused = await dedup(key);
    expect([refused.status, refused.body.error]).toEqual([409, "run_already_active"]);
    expect(refused.headers.get("retry-after")).toMatch(/^[1-9]/);
  }
  await post(`/v1/runs/${active.body.runId}/cancel`, {}, randomUUID());
  const made = await dedup(key);
  expect([made.status, made.headers.get(REPLAY)]).toEqual([201, "false"]);
  expect((await dedup(key)).body.runId).toBe(made.body.runId);
});

test("no key is kept as it was given", async () => {
  const key = `secret-${randomUUID()}`;
  await post("/v1/runs", noop, key);
  const bucket = `KV_${buckets.runIdempotency.name}`;
  const { bus } = host.bed;
  const { state } = await bus.jsm.streams.info(bucket);
  for await (const message of await bus.jsm.direct.getBatch(bucket, { seq: state.first_seq, batch: 10_000 })) {
    expect(`${message.subject} ${message.string()}`).not.toContain(key);
  }
});
