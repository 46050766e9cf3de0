/** Three NATS servers of one cluster: copies everywhere, and one server may die at any time. */
import { afterAll, beforeAll, expect } from "vitest";
import { MemoryServiceDefinition } from "../../contracts/gen/aios/memory.ts";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";

let world: World;
let router: GrpcClient<typeof RouterDefinition>;
let memory: GrpcClient<typeof MemoryServiceDefinition>;

beforeAll(async () => {
  world = await startWorld({ cluster: true, workers: ["routing", "memory"] });
  router = grpcClient(RouterDefinition, world.grpc);
  memory = grpcClient(MemoryServiceDefinition, world.grpc);
}, 120_000);
afterAll(async () => {
  router?.[Symbol.dispose]();
  memory?.[Symbol.dispose]();
  await world?.[Symbol.asyncDispose]();
}, 60_000);

const request = { message: { message_id: "m1", tenant_id: "acme", message_type: "chat", payload: Buffer.from("{}") } };
const decide = (): Promise<unknown> => router.call("decide", request, { timeoutMs: 5_000 });

async function configured(): Promise<{ name: string; replicas: number; leader: string; current: boolean }[]> {
  const all = [];
  for await (const { config, cluster } of world.bus.jsm.streams.list())
    all.push({
      name: config.name,
      replicas: config.num_replicas,
      leader: cluster?.leader ?? "",
      current: (cluster?.replicas ?? []).filter(({ current }) => current).length === 2,
    });
  return all;
}

verifies("acked-is-durable", "in a cluster everything is kept three times", async () => {
  const streams = await configured();
  expect(streams.length).toBeGreaterThan(10);
  expect(streams.filter(({ replicas }) => replicas !== 3)).toEqual([]);
});

verifies(
  "acked-is-durable",
  "whichever server dies under load, nothing acknowledged is lost and calls go on",
  async () => {
    const acknowledged = new Set<string>();
    let asked = 0;
    let going = true;
    const writer = async (): Promise<void> => {
      while (going) {
        const id = `goal-${asked++}`;
        const goal = { id, description: id, status: "active", priority: 1 };
        const stored = await memory.call("storeGoal", goal, { timeoutMs: 5_000 }).then(
          () => true,
          () => false, // UNAVAILABLE or out of time: it may be there or not
        );
        if (stored) acknowledged.add(id);
      }
    };
    const writers = Array.from({ length: 4 }, writer);
    const more = async (): Promise<unknown> => {
      const before = acknowledged.size;
      return until(() => acknowledged.size > before + 20, "further writes", 60_000);
    };
    try {
      await more();
      for (let round = 0; round < 2; round++) {
        const leader = (await configured()).find(({ name }) => name === "MEMORY")?.leader;
        const node = world.nodes.find(({ name }) => name === leader);
        if (node === undefined) throw new Error(`no server leads MEMORY: ${leader}`);
        await node.kill();
        await more();
        await until(() => decide().then(() => true), "a decision", 30_000);
        await node.start();
        await until(async () => (await configured()).every(({ current }) => current), "all copies", 60_000);
      }
    } finally {
      going = false;
      await Promise.all(writers);
    }
    const { goals } = await memory.call("getActiveGoals", {}, { timeoutMs: 10_000 });
    const kept = new Set(goals.map(({ id }) => id));
    expect([...acknowledged].filter((id) => !kept.has(id))).toEqual([]);
    expect(acknowledged.size).toBeGreaterThan(60);
  },
  { timeout: 240_000 },
);
