/** An assignment from its publication to its usage event, on real servers. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startWorld, type World } from "../kit/world.ts";
import { verifies } from "../kit/verifies.ts";
import { until } from "../kit/until.ts";
import { publish } from "../../bus/publish.ts";
import { flushRedis } from "./flush.redis.ts";
import { about, assign, assignment, resultFor, usageFor } from "./kit.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({ workers: ["execution", "usage"], syncInterval: "10s" });
});
afterAll(() => world[Symbol.asyncDispose]());

test("published, accepted, executed, reported, metered", async () => {
  const { bus } = world;
  const given = assignment({ type: "echo", payload: { text: "hi" } });
  const id = await assign(bus, given, { trace_id: "trace-h", tenant_id: "acme" });
  const result = await resultFor(bus, id);
  expect(result.body).toMatchObject({
    version: "1",
    assignment_id: id,
    request_id: given["request_id"],
    status: "success",
    provider_id: "p1",
    job: { type: "echo" },
    cost: 0,
    trace_id: "trace-h",
    tenant_id: "acme",
    payload: { text: "hi" },
  });
  expect(result.headers).toMatchObject({
    "Nats-Msg-Id": `result-${id}`,
    tenant_id: "acme",
    trace_id: "trace-h",
    version: "1",
    cp_phase: "cp1",
  });
  const [ack] = await about(bus, "EXEC_ACKS", "caf.exec.assign.v1.ack", id);
  expect(ack?.body).toMatchObject({ assignment_id: id, status: "accepted", tenant_id: "acme", trace_id: "trace-h" });
  expect(ack?.seq).toBeLessThan(result.seq);
  const usage = await usageFor(bus, id);
  expect(usage.headers["Nats-Msg-Id"]).toBe(`usage-${id}`);
  expect(usage.body).toMatchObject({
    version: "1",
    tenant_id: "acme",
    provider_id: "p1",
    event_type: "echo",
    status: "success",
    cost: 0,
    assignment_id: id,
    trace_id: "trace-h",
  });
});

verifies("effect-once", "the same result twice, also after Redis forgot it, is one usage event", async () => {
  const { bus } = world;
  const id = await assign(bus, assignment({ type: "echo", payload: 1 }));
  const result = await resultFor(bus, id);
  await usageFor(bus, id);
  await flushRedis(world.servers.redis.url);
  await publish(bus, "caf.exec.result.v1", JSON.stringify(result.body), {
    headers: { tenant_id: "acme", version: "1" },
    msgId: `again-${id}`,
  });
  const late = await assign(bus, assignment({ type: "echo", payload: 2 }));
  await usageFor(bus, late);
  expect(await about(bus, "USAGE", "beamline.usage.v1.metered", id)).toHaveLength(1);
});

verifies("log-is-truth", "totals come back after Redis was flushed", async () => {
  const { bus, caller } = world;
  const ids = await Promise.all(
    [1, 2, 3].map((n) => assign(bus, assignment({ type: "echo", payload: n }, { tenant_id: "totals" }))),
  );
  await Promise.all(ids.map((id) => usageFor(bus, id)));
  const ask = () => caller.request("beamline.router.v1.usage", { tenant_id: "totals" }, { timeoutMs: 5_000 });
  const before = await ask();
  expect(before).toMatchObject({
    total_requests: 3,
    records: [{ provider_id: "p1", requests: 3, by_status: { success: 3 } }],
  });
  await flushRedis(world.servers.redis.url);
  expect(await ask()).toEqual(before);
  expect(await caller.request("beamline.router.v1.usage", { tenant_id: "nobody" }, { timeoutMs: 5_000 })).toMatchObject(
    { total_requests: 0, records: [] },
  );
});

test("what nobody can do is refused, ends in a result, and stands on the worker's dead letters", async () => {
  const { bus } = world;
  const id = await assign(bus, assignment({ type: "juggle", payload: {} }));
  expect((await resultFor(bus, id)).body).toMatchObject({ status: "error", error_code: "INVALID_INPUT" });
  expect((await about(bus, "EXEC_ACKS", "caf.exec.assign.v1.ack", id))[0]?.body).toMatchObject({ status: "rejected" });
  expect((await about(bus, "DLQ", "caf.exec.dlq.v1", id))[0]?.headers).toMatchObject({
    "x-dlq-reason": "validation_failed",
  });
  await usageFor(bus, id);
});

test("heartbeats carry real figures", async () => {
  const beats: Record<string, unknown>[] = [];
  const bus = await world.connect("operator");
  bus.nc.subscribe("caf.worker.heartbeat.v1", { callback: (_error, message) => void beats.push(message.json()) });
  await bus.flush();
  const beat = await until(() => beats[0], "a heartbeat");
  expect(beat).toMatchObject({ version: "1", status: "ready", resources: { gpu: 0, jobs_in_flight: 0 } });
  expect((beat["resources"] as { mem_bytes: number }).mem_bytes).toBeGreaterThan(10_000_000);
});

verifies(
  "effect-once",
  "without Redis results are metered all the same, once; totals say that they cannot be had, and are back with it",
  async () => {
    const { bus, caller } = world;
    const ask = () => caller.request("beamline.router.v1.usage", { tenant_id: "noredis" }, { timeoutMs: 5_000 });
    await world.servers.redis.kill();
    const id = await assign(bus, assignment({ type: "echo", payload: 1 }, { tenant_id: "noredis" }));
    await usageFor(bus, id);
    await publish(bus, "caf.exec.result.v1", JSON.stringify((await resultFor(bus, id)).body), {
      headers: { tenant_id: "noredis", version: "1" },
      msgId: `once-more-${id}`,
    });
    const later = await assign(bus, assignment({ type: "echo", payload: 2 }, { tenant_id: "noredis" }));
    await usageFor(bus, later);
    expect(await about(bus, "USAGE", "beamline.usage.v1.metered", id)).toHaveLength(1);
    await expect(ask()).rejects.toMatchObject({ code: "unavailable" });
    await world.servers.redis.restart();
    expect(await until(() => ask().catch(() => undefined), "totals")).toMatchObject({ total_requests: 2 });
  },
);
