/** What follows a decision: the assignment, its result, and what results teach the routers about providers. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { publish } from "../../bus/publish.ts";
import { listDeadLetters } from "../../bus/redrive.ts";
import { about, all, resultFor, usageFor } from "../execution/kit.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { ask, putPolicy, request, serveExtension, admin, type Json } from "./kit.ts";

const ASSIGN = "caf.exec.assign.v1";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    workers: ["routing", "execution", "usage"],
    syncInterval: "10s",
    env: {
      BEAMLINE_ROUTER_ASSIGNMENT_TENANTS: "acme",
      BEAMLINE_EXEC_SUBJECTS: "caf.exec.assign.gpu",
      BEAMLINE_EXEC_LEAVE_UNKNOWN: "true",
      BEAMLINE_EXEC_GRACE_MS: "100",
    },
  });
  await world.startWorker("routing");
}, 90_000);
afterAll(() => world[Symbol.asyncDispose]());

let ids = 0;
function extended(more: Json = {}): Json & { request_id: string } {
  return {
    version: "1",
    request_id: `r-${++ids}`,
    trace_id: "tr-1",
    tenant_id: "acme",
    task: { type: "echo", payload: { text: "hello there" } },
    metadata: { source: "test" },
    push_assignment: true,
    ...more,
  };
}

async function assignmentFor(requestId: string): Promise<Json & { assignment_id: string }> {
  const found = await until(
    async () => (await all(world.bus, "EXEC", ASSIGN)).find(({ body }) => body["request_id"] === requestId),
    "the assignment",
  );
  return found.body as Json & { assignment_id: string };
}

describe("push_assignment", () => {
  verifies("effect-once", "a decision becomes one assignment, one result, one usage event", async () => {
    const one = extended({ idempotency_key: "push-once", options: { priority: 80 } });
    const reply = await ask(world, one);
    const assignment = await assignmentFor(one.request_id);
    expect(assignment).toMatchObject({
      version: "1",
      assignment_id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4/) as unknown,
      tenant_id: "acme",
      executor: { provider_id: "openai", channel: "nats" },
      job: { type: "echo", payload: { text: "hello there" } },
      options: { priority: 80, deadline_ms: 5_000, retry: { max_attempts: 2, backoff_ms: 200 } },
      correlation: { trace_id: "tr-1" },
      decision: { provider_id: "openai", expected_latency_ms: 250, expected_cost: 0.001 },
      metadata: { source: "test" },
    });
    const id = assignment.assignment_id;
    expect((await resultFor(world.bus, id)).body).toMatchObject({
      status: "success",
      payload: { text: "hello there" },
    });
    await usageFor(world.bus, id);
    // The same request again, on whichever worker: the same reply, and nothing more happens.
    for (let i = 0; i < 6; i++) expect((await ask(world, one))["decision"]).toEqual(reply["decision"]);
    const last = extended();
    await ask(world, last);
    await assignmentFor(last.request_id);
    const mine = (await all(world.bus, "EXEC", ASSIGN)).filter(({ body }) => body["request_id"] === one.request_id);
    expect(mine).toHaveLength(1);
    expect(await about(world.bus, "USAGE", "beamline.usage.v1.metered", id)).toHaveLength(1);
  });

  test("the deadline grows with the expected latency", async () => {
    await putPolicy(world, "acme", "slowly", { providers: [{ name: "p", weight: 1, expected_latency_ms: 3_000 }] });
    const one = extended({ policy_id: "slowly" });
    await until(async () => (await ask(world, one))["ok"] === true);
    expect(await assignmentFor(one.request_id)).toMatchObject({ options: { deadline_ms: 15_000 } });
  });

  test("what a pre extension made of the payload is what is executed", async () => {
    serveExtension(await world.connect("publisher", "ext"), "beamline.ext.pre.shout.v1", () => ({
      payload: '{"text":"HELLO"}',
    }));
    await admin(world, "upsert_extension", { tenant_id: "*", extension: { id: "shout", type: "pre" } });
    await putPolicy(world, "acme", "shouting", {
      providers: [{ name: "p", weight: 1 }],
      pre: [{ id: "shout", mode: "required" }],
    });
    const one = extended({ policy_id: "shouting" });
    await until(async () => (await ask(world, one))["ok"] === true);
    expect(await assignmentFor(one.request_id)).toMatchObject({ job: { payload: { text: "HELLO" } } });
  });

  test("a tenant that is not on the list gets its decision and no assignment", async () => {
    const before = (await all(world.bus, "EXEC", ASSIGN)).length;
    expect(await ask(world, extended({ tenant_id: "other" }))).toMatchObject({ ok: true });
    const last = extended();
    await ask(world, last);
    await assignmentFor(last.request_id);
    expect((await all(world.bus, "EXEC", ASSIGN)).length).toBe(before + 1);
  });

  verifies("clear-failure", "one that no stream takes is a dead letter with everything in it", async () => {
    const one = extended({ assignment_subject: "caf.exec.elsewhere" });
    expect(await ask(world, one)).toMatchObject({ ok: true });
    const [letter] = await until(async () => {
      const { entries } = await listDeadLetters(world.bus, { subject: "caf.exec.elsewhere" });
      return entries.length > 0 && entries;
    }, "the dead letter");
    expect(letter).toMatchObject({
      reason: "processing_error",
      letter: { tenant_id: "acme", message: { payload: { request_id: one.request_id, job: { type: "echo" } } } },
    });
  });
});

describe("a subject of its own", () => {
  const GPU = "caf.exec.assign.gpu";
  const onGpu = async (requestId: string): Promise<Json & { assignment_id: string }> => {
    const found = await until(
      async () => (await all(world.bus, "EXEC", GPU)).find(({ body }) => body["request_id"] === requestId),
      "the assignment",
    );
    return found.body as Json & { assignment_id: string };
  };

  test("the assignment goes there, is taken from there, and is metered once", async () => {
    const one = extended({ assignment_subject: GPU });
    expect(await ask(world, one)).toMatchObject({ ok: true });
    const { assignment_id: id } = await onGpu(one.request_id);
    expect((await resultFor(world.bus, id)).body).toMatchObject({
      status: "success",
      payload: { text: "hello there" },
    });
    await usageFor(world.bus, id);
    expect((await all(world.bus, "EXEC", ASSIGN)).filter(({ body }) => body["request_id"] === one.request_id)).toEqual(
      [],
    );
  });

  verifies(
    "crash-safe",
    "one that no worker ends is published there again by deadline, and then ends as a timeout",
    async () => {
      // A job without an answer: the worker leaves types alone that it does not know.
      const options = { deadline_ms: 600, retry: { max_attempts: 2, backoff_ms: 10 } };
      const one = extended({
        assignment_subject: GPU,
        task: { type: "nobody.does", payload: { text: "hello" } },
        options,
      });
      expect(await ask(world, one)).toMatchObject({ ok: true });
      const { assignment_id: id } = await onGpu(one.request_id);
      expect((await resultFor(world.bus, id, 30_000)).body).toMatchObject({
        status: "timeout",
        error_code: "CANCELLED_BY_TIMEOUT",
      });
      expect(await about(world.bus, "EXEC", GPU, id)).toHaveLength(2);
      expect(await about(world.bus, "EXEC", ASSIGN, id)).toEqual([]);
      await usageFor(world.bus, id);
      expect(await about(world.bus, "USAGE", "beamline.usage.v1.metered", id)).toHaveLength(1);
    },
  );

  test("its load is its consumer's lag", async () => {
    expect(
      await world.caller.request("beamline.router.v1.status.backpressure", { subject: GPU }, { timeoutMs: 5_000 }),
    ).toMatchObject({ success: true, data: { subject: GPU, status: "inactive" } });
  });
});

describe("health of providers", () => {
  const breaker = { circuit_breaker: { enabled: true, failure_threshold: 3, timeout_ms: 60_000 } };
  const report = async (provider_id: string, status: string, more: Json = {}): Promise<void> => {
    const assignment_id = `health-${++ids}`;
    const body = {
      version: "1",
      assignment_id,
      status,
      provider_id,
      tenant_id: "acme",
      job: { type: "echo" },
      latency_ms: 900,
      cost: 0.5,
      ...more,
    };
    await publish(world.bus, "caf.exec.result.v1", JSON.stringify(body), { msgId: assignment_id });
  };
  const decide = (policy: string): Promise<Json> => ask(world, request("acme", policy));
  const settled = (provider: string, field: string, value: number): Promise<unknown> =>
    until(async () => {
      const message = await world.bus.jsm.streams.getMessage("KV_provider_health", {
        last_by_subj: `$KV.provider_health.acme.${provider}`,
      });
      return message?.json<Json>()[field] === value;
    }, `${field} of ${provider}`);

  test("latency and cost of results are what the next decision expects", async () => {
    await putPolicy(world, "acme", "measured", { providers: [{ name: "meter", weight: 1 }] });
    await report("meter", "success");
    await until(async () => {
      const found = await Promise.all(Array.from({ length: 10 }, () => decide("measured")));
      return found.every((one) => one["expected_latency_ms"] === 900 && one["expected_cost"] === 0.5);
    }, "both workers to have learned");
  });

  test("one error opens nothing; three in a row open the circuit on every worker, with an alert", async () => {
    await putPolicy(world, "acme", "broken", {
      providers: [
        { name: "frail", weight: 50 },
        { name: "sound", weight: 50 },
      ],
      ...breaker,
    });
    const ten = async (): Promise<Set<unknown>> =>
      new Set(
        (await Promise.all(Array.from({ length: 20 }, () => decide("broken")))).map(({ provider_id }) => provider_id),
      );
    await until(async () => (await ten()).size === 2);
    await report("frail", "error", { error_code: "CONNECTION_TIMEOUT" });
    await settled("frail", "consecutive_failures", 1);
    expect((await ten()).size).toBe(2);
    await report("frail", "timeout");
    await report("frail", "timeout");
    await until(async () => {
      const found = await ten();
      return found.size === 1 && found.has("sound");
    }, "the circuit to be open on both workers");
    expect(String(((await decide("broken"))["metadata"] as Json)["candidates"])).toContain("circuit open");
    const alerts = await until(async () => {
      const found = await all(world.bus, "ALERTS", "beamline.alert.v1.warning");
      return found.find(({ body }) => body["component"] === "routing");
    }, "the alert");
    expect(alerts.body).toMatchObject({ severity: "warning", metadata: { tenant_id: "acme", provider_id: "frail" } });
  });

  test("a caller's own mistakes open nothing", async () => {
    await putPolicy(world, "acme", "steady", { providers: [{ name: "calm", weight: 1 }], ...breaker });
    for (let i = 0; i < 4; i++) await report("calm", "error", { error_code: "INVALID_INPUT" });
    await report("calm", "success");
    await settled("calm", "successes", 1);
    expect(await decide("steady")).toMatchObject({ provider_id: "calm", reason: "weighted" });
  });
});

test("the load of the execution subjects is their consumers' lag", async () => {
  const status = (subject: string): Promise<unknown> =>
    world.caller.request("beamline.router.v1.status.backpressure", { subject }, { timeoutMs: 5_000 });
  for (const subject of [ASSIGN, "caf.exec.result.v1", "beamline.router.v1.decide"])
    expect(await status(subject)).toMatchObject({ success: true, data: { subject, status: "inactive" } });
  expect(await status("something.else")).toMatchObject({ data: { status: "unknown" } });
});
