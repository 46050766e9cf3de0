/** What is killed under load, and what callers see of it. Every part is a process of its own here. */
import { status as grpc, type ServiceError } from "@grpc/grpc-js";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureStreams } from "../../bus/streams.ts";
import { publish } from "../../bus/publish.ts";
import { RouterAdminDefinition, RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { streams } from "../../contracts/streams.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { ADMIN_KEY, startWorld, type Running, type World } from "../kit/world.ts";

const admin = { metadata: { "x-api-key": ADMIN_KEY } };
/** What a caller may be told when something dies under it; each says that trying again may help, none is a hang. */
const honest: ReadonlySet<number> = new Set([grpc.OK, grpc.UNAVAILABLE, grpc.DEADLINE_EXCEEDED]);

let world: World;
let worker: Running;
let router: GrpcClient<typeof RouterDefinition>;
let policies: GrpcClient<typeof RouterAdminDefinition>;

beforeAll(async () => {
  world = await startWorld({ processes: true });
  worker = await world.startWorker("routing");
  router = grpcClient(RouterDefinition, world.grpc);
  policies = grpcClient(RouterAdminDefinition, world.grpc);
  await until(() => decide().then(() => true), "the first decision");
}, 60_000);
afterAll(async () => {
  router?.[Symbol.dispose]();
  policies?.[Symbol.dispose]();
  await world?.[Symbol.asyncDispose]();
});

const request = { message: { message_id: "m1", tenant_id: "acme", message_type: "chat", payload: Buffer.from("{}") } };
const decide = (timeoutMs = 3_000): Promise<unknown> => router.call("decide", request, { timeoutMs });

interface Load {
  readonly outcomes: Map<number, number>;
  /** Longest that any call took beyond its deadline, milliseconds. */
  late: number;
  stop(): Promise<void>;
}

/** Sixteen callers in a row, until stopped: what each call came to, by gRPC status. */
function load(timeoutMs = 3_000): Load {
  let going = true;
  const state: Load = {
    outcomes: new Map(),
    late: 0,
    async stop() {
      going = false;
      await Promise.all(callers);
    },
  };
  const caller = async (): Promise<void> => {
    while (going) {
      const started = Date.now();
      const code = await decide(timeoutMs).then(
        () => grpc.OK,
        (error: ServiceError) => error.code,
      );
      state.outcomes.set(code, (state.outcomes.get(code) ?? 0) + 1);
      state.late = Math.max(state.late, Date.now() - started - timeoutMs);
      if (code !== grpc.OK) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const callers = Array.from({ length: 16 }, caller);
  return state;
}

const succeeded = (state: Load): number => state.outcomes.get(grpc.OK) ?? 0;

verifies(
  "crash-safe",
  "a routing worker killed under load: callers see UNAVAILABLE or their deadline, never a hang, and no acknowledged message is lost",
  async () => {
    const bus = await world.connect("operator", "publisher-of-results");
    await ensureStreams(bus, [streams.exec]);
    const acknowledged: number[] = [];
    let publishing = true;
    const publisher = (async () => {
      for (let i = 0; publishing; i++) {
        const { seq } = await publish(bus, "caf.exec.result.v1", JSON.stringify({ i }), {
          msgId: `result-${i}`,
          timeoutMs: 5_000,
        });
        acknowledged.push(seq);
      }
    })();
    const state = load();
    await until(() => succeeded(state) > 100 && acknowledged.length > 20);
    await worker.kill();
    await until(() => (state.outcomes.get(grpc.UNAVAILABLE) ?? 0) > 10, "callers to notice");
    worker = await world.startWorker("routing");
    const before = succeeded(state);
    await until(() => succeeded(state) > before + 100, "decisions to go on");
    publishing = false;
    await publisher;
    await state.stop();
    for (const code of state.outcomes.keys()) expect(honest.has(code), `status ${code}`).toBe(true);
    expect(state.late).toBeLessThan(2_000);
    const info = await bus.jsm.streams.info(streams.exec.name);
    expect(info.state.messages).toBe(acknowledged.length);
  },
);

verifies(
  "acked-is-durable",
  "an acknowledged policy survives kill -9 of worker and NATS under load, and callers are told the truth meanwhile",
  async () => {
    const upsert = (policy_id: string): Promise<unknown> =>
      policies.call(
        "upsertPolicy",
        { tenant_id: "acme", policy: { policy_id, providers: [{ id: "mistral", weight: 1 }] } },
        { ...admin, timeoutMs: 3_000 },
      );
    await upsert("durable");
    const state = load(1_500);
    await until(() => succeeded(state) > 50);
    await world.servers.nats.kill();
    await worker.kill();
    await until(() => (state.outcomes.get(grpc.UNAVAILABLE) ?? 0) > 10, "callers to notice");
    await world.servers.nats.restart();
    worker = await world.startWorker("routing");
    const before = succeeded(state);
    await until(() => succeeded(state) > before + 50, "decisions to go on", 30_000);
    await state.stop();
    for (const code of state.outcomes.keys()) expect(honest.has(code), `status ${code}`).toBe(true);
    expect(state.late).toBeLessThan(2_000);
    expect(await router.call("decide", { ...request, policy_id: "durable" })).toMatchObject({ provider_id: "mistral" });
  },
);

verifies("log-is-truth", "with Redis emptied and the worker new, every policy answers as before", async () => {
  const list = async (): Promise<unknown> =>
    (await policies.call("listPolicies", { tenant_id: "acme" }, admin)).policies;
  await policies.call(
    "upsertPolicy",
    {
      tenant_id: "acme",
      policy: {
        policy_id: "kept",
        providers: [{ id: "cohere", weight: 0.5 }],
        sticky: true,
        rules: [{ match: "status:timeout", prefer: ["cohere"], fallback: "openai" }],
      },
    },
    admin,
  );
  const before = await list();
  expect(before).toHaveLength(2);
  await worker.kill();
  const redis = new Redis(world.servers.redis.url);
  await redis.flushall();
  redis.disconnect();
  worker = await world.startWorker("routing");
  await until(async () => (await list()) !== undefined, "the new worker");
  expect(await list()).toEqual(before);
});

verifies(
  "thin-edge",
  "an edge killed under load: another one serves the same, and nothing is lost with it",
  async () => {
    const second = await world.startEdge();
    await world.edge.kill();
    await expect(decide(2_000)).rejects.toMatchObject({ code: grpc.UNAVAILABLE });
    using other = grpcClient(RouterDefinition, second);
    expect(await other.call("decide", { ...request, policy_id: "durable" })).toMatchObject({ provider_id: "mistral" });
  },
);

test("a worker asked to stop under load drains: no call is lost, the next ones are told nobody serves", async () => {
  const edge = await world.startEdge();
  using client = grpcClient(RouterDefinition, edge);
  await until(() => client.call("decide", request).then(() => true));
  const calls = Array.from({ length: 200 }, () =>
    client.call("decide", request).then(
      () => grpc.OK,
      (error: ServiceError) => error.code,
    ),
  );
  await worker.stop();
  const codes = await Promise.all(calls);
  for (const code of codes) expect([grpc.OK, grpc.UNAVAILABLE]).toContain(code);
  await expect(client.call("decide", request)).rejects.toMatchObject({ code: grpc.UNAVAILABLE });
});
