import { afterAll, beforeAll, expect, test } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { publish } from "../../bus/publish.ts";
import { ensureStreams } from "../../bus/streams.ts";
import type { Alert } from "../../contracts/execution/alert.ts";
import { streams } from "../../contracts/streams.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { usageMeasures } from "./measures.ts";
import { Watchman } from "./watchman.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  bus = await nats.connect();
  await ensureStreams(bus, [streams.exec, streams.deadLetters]);
});
afterAll(() => nats.stop());

function watchman() {
  const raised: (Alert & { key: string })[] = [];
  const clock = { now: 1_000_000 };
  const registry = createRegistry();
  const assignments = [["exec-workers", "caf.exec.assign.v1"]] as const;
  const options = { everyMs: 1_000, dlqGrowth: 2, lag: 5, silenceMs: 15_000, assignments, now: () => clock.now };
  const one = new Watchman(
    bus,
    { raise: (alert, key) => raised.push({ ...alert, key }) },
    usageMeasures(registry),
    options,
  );
  return { one, raised, clock, registry };
}

const beat = (worker_id: string, more: object = {}) =>
  Buffer.from(
    JSON.stringify({
      version: "1",
      worker_id,
      timestamp: "then",
      status: "ready",
      resources: { jobs_in_flight: 3 },
      ...more,
    }),
  );

test("a worker that falls silent is told of once; one that said goodbye is not", async () => {
  const { one, raised, clock } = watchman();
  one.heard(beat("lost"));
  one.heard(beat("gone"));
  one.heard(beat("gone", { metadata: { draining: "true" }, status: "degraded" }));
  one.heard(Buffer.from("nonsense"));
  expect(one.workers.map(({ worker_id }) => worker_id)).toEqual(["lost"]);
  await one.look();
  expect(raised).toEqual([]);
  clock.now += 15_000;
  await one.look();
  await one.look();
  expect(raised).toMatchObject([
    { severity: "warning", key: "worker-lost-then", metadata: { worker_id: "lost", jobs_in_flight: 3 } },
  ]);
});

test("a consumer that is behind is told of by how far, and stands in the metrics", async () => {
  const { one, raised, registry } = watchman();
  await bus.jsm.consumers.add("EXEC", {
    durable_name: "router-results",
    ack_policy: "explicit",
    filter_subjects: ["caf.exec.result.v1"],
  });
  for (let n = 0; n < 5; n++) await publish(bus, "caf.exec.result.v1", "{}");
  await one.look();
  expect(raised).toMatchObject([
    { severity: "warning", key: "lag-router-results-1000", message: "consumer router-results is 5 messages behind" },
  ]);
  for (let n = 0; n < 45; n++) await publish(bus, "caf.exec.result.v1", "{}");
  await one.look();
  expect(raised.at(-1)).toMatchObject({ severity: "critical" });
  const pending = registry.collect().find(({ name }) => name === "router_jetstream_pending_messages");
  expect(pending?.series).toMatchObject([
    { labels: { subject: "caf.exec.result.v1", consumer: "router-results" }, recorded: { value: 50 } },
  ]);
});

test("dead letters that grow are told of, those that were there are not", async () => {
  const { one, raised } = watchman();
  await publish(bus, "caf.exec.dlq.v1", "{}");
  await publish(bus, "caf.exec.dlq.v1", "{}");
  const told = () => raised.filter(({ key }) => key.startsWith("dlq-"));
  await one.look();
  expect(told()).toEqual([]);
  await publish(bus, "caf.exec.dlq.v1", "{}");
  await one.look();
  expect(told()).toEqual([]);
  for (let n = 0; n < 2; n++) await publish(bus, "caf.exec.dlq.v1", "{}");
  await one.look();
  expect(told()).toMatchObject([{ severity: "warning", message: "2 new dead letters within 1 s" }]);
});
