/** What the workers of the BeamLine contract tell Prometheus after a decision, an assignment and a bus that went away and came back (BeamLine, metrics). */
import { afterAll, beforeAll, expect, test } from "vitest";
import { publish } from "../../bus/publish.ts";
import { freePort } from "../../deploy/local/ports.ts";
import { until } from "../kit/until.ts";
import { startWorld, type World } from "../kit/world.ts";

const names = ["routing", "execution", "usage"] as const;
const addresses: Record<string, string> = {};
let world: World;

beforeAll(async () => {
  world = await startWorld({ processes: true, syncInterval: "10s" });
  for (const name of names) addresses[name] = `127.0.0.1:${await freePort()}`;
  await Promise.all(
    names.map((name) =>
      world.startWorker(name, {
        BEAMLINE_WORKER_HTTP_ADDR: addresses[name] ?? "",
        BEAMLINE_EXEC_HEARTBEAT_MS: "200",
        BEAMLINE_ALERT_EVERY_MS: "1000",
      }),
    ),
  );
}, 60_000);
afterAll(() => world?.[Symbol.asyncDispose]());

/** The sum of a metric's series whose labels hold the given text; undefined when there is none. */
async function metric(name: string, labels = ""): Promise<number | undefined> {
  const texts = await Promise.all(names.map(async (one) => (await fetch(`http://${addresses[one]}/metrics`)).text()));
  const lines = texts.flatMap((text) => text.split("\n")).filter((line) => new RegExp(`^${name}[ {]`).test(line));
  const values = lines.filter((line) => line.includes(labels)).map((line) => Number(line.split(" ").at(-1)));
  return values.length === 0 ? undefined : values.reduce((sum, one) => sum + one, 0);
}

/** Waits for a metric to be what it should. */
const shows = (name: string, labels: string, is: (value: number) => boolean): Promise<unknown> =>
  until(async () => {
    const value = await metric(name, labels);
    return value !== undefined && is(value);
  }, `${name}{${labels}}`);

async function decided(policy_id?: string): Promise<boolean> {
  const message = { message_id: "m1", tenant_id: "acme", message_type: "chat", payload: "{}" };
  const request = { message, ...(policy_id !== undefined && { policy_id }) };
  const reply = await world.caller.request("beamline.router.v1.decide", request, { timeoutMs: 3_000 });
  return "provider_id" in (reply as object);
}

test("caches, deliveries, the worker's health and what it uses, and the connection to the bus", async () => {
  await until(() => decided().catch(() => false), "a decision");
  await decided("nobody-knows").catch(() => undefined);
  const assignment_id = "9f0c0d5e-9f4e-4b62-9d0e-2f3a4b5c6d7e";
  const assignment = {
    version: "1",
    assignment_id,
    request_id: "r1",
    tenant_id: "acme",
    executor: { provider_id: "openai", channel: "nats" },
    job: { type: "echo", payload: { text: "hi" } },
    options: { deadline_ms: 5_000 },
  };
  await publish(await world.connect("worker"), "caf.exec.assign.v1", JSON.stringify(assignment), {
    msgId: assignment_id,
  });

  await shows("beamline_router_cache_hits_total", 'cache_type="policy"', (value) => value > 0);
  await shows("beamline_router_cache_misses_total", 'cache_type="policy"', (value) => value > 0);
  await shows("router_jetstream_delivered_messages_total", 'consumer="router-results"', (value) => value > 0);
  await shows("worker_flow_execution_duration_seconds_count", 'status="success"', (value) => value === 1);
  await shows("worker_health_status", "", (value) => value === 1);
  await shows("worker_resource_usage", 'resource="mem_bytes"', (value) => value > 1_000_000);
  await shows("worker_pool_queue_depth", 'pool="caf.exec.assign.v1"', (value) => value === 0);
  await shows("worker_queue_depth", "", (value) => value === 0);
  await shows("subs_active", "", (value) => value === 1);
  await shows("nats_connected", "", (value) => value === 1);
  expect(await metric("nats_connect_attempts_total")).toBe(1);

  await world.servers.nats.kill();
  await shows("nats_connected", "", (value) => value === 0);
  await world.servers.nats.restart();
  await shows("nats_connected", "", (value) => value === 1);
  await shows("nats_connect_attempts_total", "", (value) => value === 2);
  await shows("router_nats_connection_errors_total", 'reason="unavailable"', (value) => value > 0);
  await shows("router_nats_reconnect_total", "", (value) => value === 1);
});
