/** Projections are only that: flushed, deleted, or of another model, they come back from the log with every answer as before. */
import { createServer } from "node:http";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect } from "vitest";
import { openStream } from "../../bus/stream.ts";
import type { Scope } from "../../runtime/lifecycle.ts";
import { connectRedis, type HotState } from "../../workers/connect.redis.ts";
import { REBUILD_SUBJECT } from "../../workers/memory/rebuild.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

let world: World;
let worker: Scope;
let redis: HotState;
const env = { BEAMLINE_MEMORY_EVENTS: "50" };
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  redis = await connectRedis(world.redis.url, "test");
  worker = await world.worker(env);
  await fill();
}, 60_000);

afterAll(async () => {
  await redis.close();
  await world[Symbol.asyncDispose]();
});

const tenants = ["default", "tenant two/ü"];

async function fill(): Promise<void> {
  for (const tenant of tenants) {
    const call = <M extends Parameters<World["call"]>[0]>(method: M, request: Parameters<World["call"]>[1]) =>
      world.call(method, request, { tenant });
    for (let n = 0; n < 5; n++)
      await call("pushEvent", { id: `critical-${n}`, category: "error", critical: true, data_json: json({ n }) });
    for (let n = 0; n < 80; n++)
      await call("pushEvent", { id: `e${n}`, category: n % 2 === 0 ? "even" : "odd", data_json: json({ n, tenant }) });
    await call("updateMetric", { key: "cpu.usage", value: 1 });
    await call("updateMetric", { key: "cpu.usage", value: 42.5, timestamp: 9n });
    for (let n = 0; n < 12; n++) {
      await call("storeGoal", {
        id: `g${n}`,
        description: `goal ${n} of ${tenant}`,
        status: "pending",
        priority: n % 3,
        created_at: 5n,
      });
      for (let t = 0; t < 3; t++)
        await call("storeTask", { id: `g${n}t${t}`, goal_id: `g${n}`, description: `task ${t}` });
    }
    await call("updateGoal", { id: "g3", status: "in_progress", result: "r" });
    await call("storeToolCall", { id: "c1", task_id: "g4t0", tool_name: "fs.read", success: true });
    await call("updateGoal", { id: "g4", status: "completed", result: "done" });
    await call("storePattern", { id: "p1", trigger: "Disk full", action: "clean", success_rate: 0.5, uses: 2 });
    for (let n = 0; n < 3; n++) await call("updatePatternStats", { id: "p1", success: true });
    await call("storeAgentState", { agent_name: "a1", state_json: json({ mood: "good" }) });
    await call("storeDecision", { id: "d1", context: "which database", chosen: "postgres", reasoning: "it is boring" });
    await call("storeIncident", {
      id: "i1",
      description: "power cut in the hall",
      root_cause: "a digger",
      resolution: "generator",
    });
    await call("storeConfigChange", { id: "f1", file_path: "/etc/hosts", reason: "new printer" });
    await call("addKnowledge", { title: "Printer", content: "first text", source: "manual" });
    await call("addKnowledge", {
      title: "Printer",
      content: "Hold the green button for ten seconds to reset it.",
      source: "manual",
      tags: ["office"],
    });
  }
}

/**
 * Everything the service can be asked, as one comparable thing. Relevances are compared apart, to four digits: the model rounds a text
 * embedded in company differently in the seventh.
 */
async function answers(): Promise<{ readonly all: unknown; readonly relevances: readonly number[] }> {
  const all: unknown[] = [];
  for (const tenant of tenants) {
    const ask = <M extends Parameters<World["call"]>[0]>(method: M, request: Parameters<World["call"]>[1]) =>
      world.call(method, request, { tenant });
    all.push(
      await ask("getRecentEvents", { count: -1 }),
      await ask("getRecentEvents", { count: 7, category: "odd" }),
      await ask("getMetric", { key: "cpu.usage" }),
      await ask("getActiveGoals", {}),
      await ask("getTasksForGoal", { goal_id: "g7" }),
      await ask("findPattern", { trigger: "disk" }),
      await ask("findPattern", { trigger: "goal 4" }),
      await ask("getAgentState", { agent_name: "a1" }),
      await ask("semanticSearch", { query: "electricity failure", n_results: 20 }),
      await ask("semanticSearch", { query: "reset the printer", collections: ["knowledge", "config_changes"] }),
      await ask("searchKnowledge", { query: "" }),
      await ask("assembleContext", { task_description: "the printer does not work" }),
    );
  }
  const relevances: number[] = [];
  const without = JSON.stringify(all, (key, value: unknown) => {
    if (typeof value === "bigint") return String(value);
    if (key !== "relevance" || typeof value !== "number") return value;
    relevances.push(value);
    return 0;
  });
  return { all: JSON.parse(without) as unknown, relevances };
}

async function same(before: Awaited<ReturnType<typeof answers>>): Promise<void> {
  const now = await answers();
  expect(now.all).toEqual(before.all);
  expect(now.relevances.every((value, at) => Math.abs(value - (before.relevances[at] ?? 9)) < 1e-4)).toBe(true);
}

async function logged(): Promise<void> {
  await until(async () => (await world.bus.jsm.streams.info("MEMORY_RECENT")).state.messages > 0);
}

verifies(
  "log-is-truth",
  "memory: critical events survive the overflow of the ring, and every answer survives a flushed Redis while running",
  async () => {
    await logged();
    const before = await answers();
    const { events } = await world.call("getRecentEvents", { count: -1 });
    expect(events.filter(({ critical }) => critical)).toHaveLength(5);
    expect(events.filter(({ critical }) => !critical)).toHaveLength(50);
    await redis.redis.flushall();
    await same(before);
  },
);

verifies("log-is-truth", "memory: Redis flushed and the index deleted while no worker runs", async () => {
  const before = await answers();
  expect((await worker.close()).failures).toEqual([]);
  await redis.redis.flushall();
  await rm(join(world.dataDir, "memory"), { recursive: true });
  worker = await world.worker(env);
  await same(before);
});

verifies("log-is-truth", "memory: an index damaged while no worker runs is made again", async () => {
  const before = await answers();
  await worker.close();
  await writeFile(join(world.dataDir, "memory", "index.sqlite"), "no database any more");
  worker = await world.worker(env);
  await same(before);
});

verifies("log-is-truth", "memory: a rebuild by hand, with progress", async () => {
  const before = await answers();
  const told: { projection?: string; done: number | boolean; total?: number }[] = [];
  for await (const message of openStream(world.caller, REBUILD_SUBJECT, "{}", { timeoutMs: 60_000 }))
    told.push(JSON.parse(message) as never);
  expect(told.at(-1)).toEqual({ done: true });
  expect(new Set(told.map(({ projection }) => projection))).toEqual(new Set(["hot", "index", undefined]));
  await same(before);
});

verifies("clear-failure", "memory: a rebuild of something else is refused by name, and empties nothing", async () => {
  const before = await answers();
  for (const [request, field] of [
    ["null", "body"],
    ['{"what":"all"}', "what"],
    ['{"what":["hot","cold"]}', "what"],
  ] as const) {
    const messages = openStream(world.caller, REBUILD_SUBJECT, request, { timeoutMs: 60_000 });
    await expect(messages[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "invalid_argument", field });
  }
  await same(before);
});

verifies("log-is-truth", "memory: another embedding model embeds everything again", async () => {
  await worker.close();
  let embedded = 0;
  // An endpoint of ten dimensions: each text is where its letters point.
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      const { input } = JSON.parse(body) as { input: string[] };
      embedded += input.length;
      const data = input.map((one, index) => {
        const embedding = Array.from({ length: 10 }, () => 0.01);
        for (const letter of one.toLowerCase())
          embedding[letter.charCodeAt(0) % 10] = (embedding[letter.charCodeAt(0) % 10] ?? 0) + 1;
        return { index, embedding };
      });
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ data: data.toReversed() }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : 0;
  worker = await world.worker({ ...env, EMBEDDINGS_URL: `http://127.0.0.1:${port}/v1`, EMBEDDINGS_MODEL: "letters" });
  const { results } = await world.call("searchKnowledge", { query: "reset the printer" });
  expect(results.map(({ content }) => content)).toEqual([
    "[manual] Printer: Hold the green button for ten seconds to reset it.",
  ]);
  // The probe, the query, and per tenant: knowledge, decision, incident, config change, the learned procedure.
  expect(embedded).toBe(1 + 1 + 2 * 5);
  await worker.close();
  server.close();
});
