/** Handlers registered in code, allow-lists, and workers that share the subject with others. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Caller } from "../../bus/call.ts";
import { publish } from "../../bus/publish.ts";
import { ObjectStore } from "../../bus/objects.ts";
import { objects } from "../../contracts/streams.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { loadConfig } from "../../runtime/config.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { executionWorkerWith } from "../../workers/execution/worker.ts";
import type { Job } from "../../workers/execution/job.ts";
import { StepFailure } from "../../workers/execution/step.ts";
import { startWorld, type World } from "../kit/world.ts";
import { until } from "../kit/until.ts";
import { about, assign, assignment, count, resultFor, usageFor } from "./kit.ts";

let world: World;
let scope: Scope;
let folder: string;
const runs: string[] = [];
const registry = createRegistry();

const flaky: Job = {
  types: ["flaky"],
  effect: "repeatable",
  run(_input, { attempt, assignment: { assignment_id } }) {
    runs.push(assignment_id);
    if (attempt === 1) throw new StepFailure("RESOURCE_UNAVAILABLE", "not now");
    return Promise.resolve({ payload: { attempt }, cost: 0.002, metadata: { note: "second" } });
  },
};
const big: Job = {
  types: ["big"],
  effect: "repeatable",
  run: () => Promise.resolve({ payload: "x".repeat(9_000_000) }),
};
const pay: Job = {
  types: ["pay"],
  effect: "once",
  run(_input, { assignment: { assignment_id } }) {
    runs.push(assignment_id);
    throw new StepFailure("NETWORK_ERROR", "gone", { outcomeUnknown: true });
  },
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "beamline-handlers-"));
  world = await startWorld({
    workers: ["usage"],
    syncInterval: "10s",
    env: { BEAMLINE_RESULT_TENANTS: "acme", BEAMLINE_RESULT_MAX_DELIVER: "1" },
  });
  scope = new Scope();
  const module = executionWorkerWith([flaky, big, pay]);
  const bus = await world.connect("worker", "execution");
  await ensureStreams(bus, module.streams ?? []);
  await ensureBuckets(bus, module.buckets ?? []);
  await ensureObjects(bus, module.objects ?? []);
  const env = { REDIS_URL: world.servers.redis.url, BEAMLINE_DATA_DIR: folder, BEAMLINE_EXEC_LEAVE_UNKNOWN: "true" };
  const config = loadConfig({ ...workerSettings, ...module.settings }, env);
  await module.open(scope, {
    config,
    bus,
    caller: new Caller(bus),
    log: silentLogger,
    metrics: registry,
    calls: () => ({ active: 0, waiting: 0 }),
    env,
  });
});
afterAll(async () => {
  await scope.close();
  await world[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

test("a handler of one's own is retried within its deadline, and its cost is billed", async () => {
  const id = await assign(world.bus, assignment({ type: "flaky", payload: 1 }));
  expect((await resultFor(world.bus, id)).body).toMatchObject({
    status: "success",
    payload: { attempt: 2 },
    cost: 0.002,
    metadata: { retries_used: "1", note: "second" },
  });
  expect((await usageFor(world.bus, id)).body).toMatchObject({ cost: 0.002, event_type: "flaky" });
});

test("the same assignment published twice is done once", async () => {
  const given = assignment({ type: "flaky", payload: 1 });
  await assign(world.bus, given);
  await resultFor(world.bus, given.assignment_id);
  const before = runs.length;
  await publish(world.bus, "caf.exec.assign.v1", JSON.stringify(given));
  const later = await assign(world.bus, assignment({ type: "echo", payload: 1 }));
  await resultFor(world.bus, later);
  expect(runs.length).toBe(before);
});

test("an effect whose outcome nobody knows is tried once, whatever the retry options say", async () => {
  const id = await assign(
    world.bus,
    assignment(
      { type: "pay", payload: {} },
      { options: { deadline_ms: 5_000, retry: { max_attempts: 5, backoff_ms: 1 } } },
    ),
  );
  expect((await resultFor(world.bus, id)).body).toMatchObject({
    status: "error",
    error_code: "NETWORK_ERROR",
    metadata: { outcome: "unknown" },
  });
  expect(runs.filter((one) => one === id)).toHaveLength(1);
});

test("an output too large for a message is in the object store, and an input may be there as well", async () => {
  const id = await assign(world.bus, assignment({ type: "big", payload: {} }));
  const { body } = await resultFor(world.bus, id);
  expect(body).toMatchObject({
    status: "success",
    metadata: { payload_ref: expect.stringMatching(/^object:\/\/payloads\//) as string },
  });
  const store = await ObjectStore.open(world.bus, objects.payloads);
  await store.put("input-1", Buffer.from('{"from":"afar"}'));
  const read = await assign(
    world.bus,
    assignment({ type: "echo", payload_ref: "object://payloads/input-1", payload: { not: "this" } }),
  );
  expect((await resultFor(world.bus, read)).body).toMatchObject({ payload: { from: "afar" } });
  const s3 = await assign(world.bus, assignment({ type: "echo", payload_ref: "s3://bucket/key" }));
  expect((await resultFor(world.bus, s3)).body).toMatchObject({
    status: "error",
    error_code: "INVALID_INPUT",
    error_message: expect.stringContaining("payload_ref") as string,
  });
});

test("what breaks the contract is rejected by its field; what has no id is a dead letter", async () => {
  const bad = { ...assignment({ type: "echo", payload: 1 }), executor: { provider_id: "p" } };
  await assign(world.bus, bad);
  expect((await resultFor(world.bus, bad.assignment_id)).body).toMatchObject({
    status: "error",
    error_code: "MISSING_REQUIRED_FIELD",
    error_message: "executor.channel is required",
  });
  expect((await about(world.bus, "EXEC_ACKS", "caf.exec.assign.v1.ack", bad.assignment_id))[0]?.body).toMatchObject({
    status: "rejected",
    message: "executor.channel is required",
  });
  const [letter] = await until(async () => {
    const found = await about(world.bus, "DLQ", "caf.exec.dlq.v1", bad.assignment_id);
    return found.length > 0 && found;
  }, "the worker's dead letter");
  expect(letter?.body["metadata"]).toMatchObject({
    original_payload_hash: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
  });
  await publish(world.bus, "caf.exec.assign.v1", "{nonsense");
  await until(async () => (await count(world.bus, "DLQ", "dlq.EXEC.exec-workers")) === 1, "a dead letter");
});

test("types it does not know are left to others", async () => {
  const id = await assign(
    world.bus,
    assignment({ type: "somebody.elses", payload: {} }, { options: { deadline_ms: 60_000 } }),
  );
  const later = await assign(world.bus, assignment({ type: "echo", payload: 1 }));
  await resultFor(world.bus, later);
  expect(await about(world.bus, "EXEC_ACKS", "caf.exec.assign.v1.ack", id)).toEqual([]);
});

test("results of a tenant that is not on the list are tried again, then dead letters", async () => {
  const id = await assign(world.bus, assignment({ type: "echo", payload: 1 }, { tenant_id: "stranger" }));
  await until(
    async () =>
      (await about(world.bus, "DLQ", "caf.exec.result.v1.dlq", id)).length +
        (await count(world.bus, "DLQ", "caf.exec.result.v1.dlq")) >
      0,
    "a dead letter",
  );
  expect(await about(world.bus, "USAGE", "beamline.usage.v1.metered", id)).toEqual([]);
});

test("the worker's metrics carry the contract's names", () => {
  const find = (name: string) => registry.collect().find((family) => family.name === name);
  const total = find("worker_tasks_total")?.series.reduce(
    (sum, { recorded }) => sum + ("value" in recorded ? recorded.value : 0),
    0,
  );
  expect(total).toBeGreaterThan(5);
  expect(find("worker_step_errors_total")?.series.map(({ labels }) => labels["error_code"])).toContain("1001");
  expect(find("tasks_in_progress")?.series[0]?.recorded).toEqual({ value: 0 });
});
