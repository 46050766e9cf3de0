/** What nobody of ours would write, in the logs that the memory worker reads: it is set aside, and everything else goes on. */
import { afterAll, beforeAll, expect } from "vitest";
import { publish } from "../../bus/publish.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { connectRedis } from "../../workers/connect.redis.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await ensureStreams(world.bus, memoryWorker.streams ?? []);
  await ensureBuckets(world.bus, memoryWorker.buckets ?? []);
  await ensureObjects(world.bus, memoryWorker.objects ?? []);
}, 60_000);
afterAll(() => world[Symbol.asyncDispose]());

const record = (more: object): string => JSON.stringify({ v: 1, kind: "goal", id: "x", at: 1, born: 1, ...more });
const rubbish: readonly (string | Uint8Array)[] = [
  "",
  "null",
  "[]",
  "5",
  "{}",
  "not json",
  Buffer.from([0xff, 0x00, 0xfe]),
  "[".repeat(100_000),
  '{"claim":',
  '{"claim":5}',
  '{"claim":{"a":1}}',
  '{"claim":"default/nobody-stored-it"}',
  record({ state: 5 }),
  record({ state: null }),
  record({ state: [] }),
  record({ state: "text" }),
  record({ born: -1.5, state: { id: "x" } }),
  record({ born: "long ago", state: { id: "x" } }),
  record({ kind: "__proto__" }),
  record({ kind: "goal", state: { id: 5, status: {}, created_at: "soon" } }),
  record({ kind: "knowledge", state: { title: 5, tags: "all" } }),
  record({ kind: "pattern", state: { id: "x", trigger: "x", success_rate: "often", uses: 1e300 } }),
  '{"v":1,"kind":"knowledge","id":"x","at":1e400,"state":{"title":"t","content":"c"}}',
  '{"key":"x","at":"now","value":1,"timestamp":1}',
  '{"key":"x","at":1,"value":1,"timestamp":"soon"}',
  '{"v":1,"events":null}',
  '{"v":1,"events":[null]}',
  '{"v":1,"events":[{"at":1e400,"e":{}}]}',
];
const subjects = [
  "log.memory.rec.default.goal.x",
  "log.memory.rec.default.knowledge.x",
  "log.memory.rec.default.pattern.x",
  "log.memory.rec.a",
  "log.memory.rec.=.=.=",
  "log.memory.critical.default",
  "log.memory.critical.a.b",
  "log.memory.recent.default",
  "$KV.memory_metrics.default.x",
  "$KV.memory_metrics.x",
];

async function poison(): Promise<void> {
  for (const subject of subjects) for (const text of rubbish) await publish(world.bus, subject, text);
}

/** Everything that memory does, once more. */
async function works(id: string): Promise<void> {
  await world.call("storeGoal", { id, description: `goal ${id}`, status: "active" });
  await world.call("pushEvent", { id: `e-${id}`, category: "c" });
  await world.call("pushEvent", { id: `c-${id}`, category: "c", critical: true });
  await world.call("updateMetric", { key: "load", value: 3 });
  await world.call("storePattern", { id, trigger: `when ${id}`, action: "a", success_rate: 1 });
  await world.call("addKnowledge", { title: `Walrus ${id}`, content: "They live in the cold.", source: "s" });
  expect((await world.call("getActiveGoals", {})).goals.map((goal) => goal.id)).toContain(id);
  expect((await world.call("getRecentEvents", { count: 2 })).events.map((event) => event.id)).toEqual([
    `c-${id}`,
    `e-${id}`,
  ]);
  expect(await world.call("getMetric", { key: "load" })).toMatchObject({ value: 3 });
  expect(await world.call("findPattern", { trigger: `when ${id}` })).toMatchObject({ found: true });
  const { results } = await world.call("searchKnowledge", { query: `walrus ${id}`, n_results: 1 });
  expect(results).toMatchObject([{ content: expect.stringContaining(id) as string }]);
}

verifies(
  "clear-failure",
  "memory: rubbish in its logs stops neither a running worker nor one that starts, and hides nothing",
  async () => {
    const first = await world.worker();
    await works("before");
    await poison();
    await works("after");
    const redis = await connectRedis(world.redis.url, "test");
    const { last } = await world.bus.jsm.streams.info("MEMORY").then(({ state }) => ({ last: state.last_seq }));
    await until(
      async () => Number(await redis.redis.get("beamline:memory:applied")) >= last,
      "the tail to pass it all",
    );
    await first.close();
    await redis.redis.flushall();
    await redis.close();
    await world.worker();
    await works("rebuilt");
    const kept = (await world.call("getActiveGoals", {})).goals.map(({ id }) => id);
    expect(kept).toEqual(expect.arrayContaining(["before", "after", "rebuilt"]));
  },
  { timeout: 120_000 },
);
