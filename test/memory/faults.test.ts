/** What fails around memory, and what callers hear: one code, at once, nothing half done, and everything back afterwards. */
import { createServer, type Server } from "node:http";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { connectRedis } from "../../workers/connect.redis.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { Scope } from "../../runtime/lifecycle.ts";
import { openOpenAi } from "../../workers/memory/embeddings/embeddings.openai.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

let world: World;
let worker: Scope | undefined;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
}, 60_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

async function open(env: Record<string, string> = {}): Promise<void> {
  await worker?.close();
  worker = await world.worker(env);
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const logged = async (): Promise<number> => (await world.bus.jsm.streams.info("MEMORY")).state.messages;

describe("Redis", () => {
  beforeAll(() => open());

  verifies(
    "clear-failure",
    "memory: without Redis hot calls are unavailable and store nothing, long-term ones work, and it recovers",
    async () => {
      await world.call("storeGoal", { id: "before", status: "pending" });
      await world.call("pushEvent", { id: "before", category: "outage" });
      await until(async () => (await world.bus.jsm.streams.info("MEMORY_RECENT")).state.messages > 0);
      const count = await logged();
      await world.redis.kill();
      const refused = { code: "unavailable", message: expect.stringContaining("Redis") as string };
      await expect(world.call("storeGoal", { id: "during", status: "pending" })).rejects.toMatchObject(refused);
      await expect(world.call("pushEvent", { id: "during" })).rejects.toMatchObject(refused);
      await expect(world.call("pushEvent", { id: "during", critical: true })).rejects.toMatchObject(refused);
      await expect(world.call("storeDecision", { id: "during" })).rejects.toMatchObject(refused);
      await expect(world.call("updateGoal", { id: "before", status: "failed" })).rejects.toMatchObject(refused);
      await expect(world.call("updateMetric", { key: "during", value: 1 })).rejects.toMatchObject(refused);
      await expect(world.call("getActiveGoals", {})).rejects.toMatchObject(refused);
      await expect(world.call("getRecentEvents", { count: 1 })).rejects.toMatchObject(refused);
      expect(await logged()).toBe(count);
      await world.call("addKnowledge", { title: "During", content: "Knowledge needs no Redis.", source: "test" });
      expect((await world.call("searchKnowledge", { query: "knowledge needs" })).results).toHaveLength(1);
      await world.redis.restart();
      await until(() => world.call("storeGoal", { id: "after", status: "pending" }).then(() => true));
      expect((await world.call("getActiveGoals", {})).goals.map(({ id }) => id)).toEqual(["before", "after"]);
      const { events } = await world.call("getRecentEvents", { count: -1 });
      expect(events.map(({ id }) => id)).toEqual(["before"]);
      await expect(world.call("getMetric", { key: "during" })).rejects.toMatchObject({ code: "not_found" });
    },
  );

  verifies(
    "log-is-truth",
    "memory: what Redis lost in its crash comes back, without a restart of the worker",
    async () => {
      for (let n = 0; n < 50; n++) await world.call("storeGoal", { id: `crash-${n}`, status: "pending" });
      for (let n = 0; n < 50; n++) await world.call("pushEvent", { id: `crash-${n}`, category: "crash" });
      await world.call("updateMetric", { key: "crash", value: 3 });
      await until(async () => (await world.bus.jsm.streams.info("KV_memory_metrics")).state.messages > 0);
      await world.redis.kill(); // its file is written once a second: this loses some of it
      await world.redis.restart();
      await until(() =>
        world
          .call("getActiveGoals", {})
          .then(({ goals }) => goals.filter(({ id }) => id.startsWith("crash")).length === 50),
      );
      await until(() =>
        world.call("getRecentEvents", { count: -1, category: "crash" }).then(({ events }) => events.length === 50),
      );
      expect(await world.call("getMetric", { key: "crash" })).toMatchObject({ value: 3 });
    },
  );

  verifies(
    "effect-once",
    "memory: a repeated write with the same idempotency key happens once and succeeds twice",
    async () => {
      const headers = { idempotency_key: "k-1" };
      for (let n = 0; n < 2; n++) await world.call("storeToolCall", { id: "once", tool_name: "fs.read" }, { headers });
      await expect(world.call("storeToolCall", { id: "once", tool_name: "fs.read" })).rejects.toMatchObject({
        code: "already_exists",
      });
      await world.call("storePattern", { id: "once", trigger: "once", uses: 1, success_rate: 1 });
      for (let n = 0; n < 3; n++) await world.call("updatePatternStats", { id: "once", success: true }, { headers });
      expect((await world.call("findPattern", { trigger: "once" })).pattern?.uses).toBe(2);
    },
  );

  verifies("clear-failure", "memory: writing what is there already stores nothing", async () => {
    const write = async (): Promise<void> => {
      await world.call("storeGoal", { id: "same", description: "same", status: "pending" });
      await world.call("storeProcedure", { id: "same", name: "same", steps_json: json([1]) });
      await world.call("addKnowledge", { title: "Same", content: "same", source: "test" });
    };
    await write();
    const count = await logged();
    await write();
    expect(await logged()).toBe(count);
  });

  verifies("clear-failure", "memory: texts of megabytes are stored and read back", async () => {
    const state = json({ text: "é".repeat(1_500_000) });
    await world.call("storeAgentState", { agent_name: "huge", state_json: state });
    const recent = (await world.bus.jsm.streams.info("MEMORY_RECENT")).state.last_seq;
    for (const critical of [false, true])
      await world.call("pushEvent", { id: `huge-${critical}`, category: "huge", critical, data_json: state });
    await until(async () => (await world.bus.jsm.streams.info("MEMORY_RECENT")).state.last_seq > recent);
    const content = "haystack ".repeat(250_000) + "needle7731";
    await world.call("addKnowledge", { title: "Huge", content, source: "test" });
    const { results } = await world.call("searchKnowledge", { query: "needle7731", n_results: 1 });
    expect(results[0]?.content).toBe(`[test] Huge: ${content}`);
    // The log has the names, the object store the texts; from there they come back as well.
    const redis = await connectRedis(world.redis.url, "test");
    await redis.redis.flushall();
    await redis.close();
    expect((await world.call("getAgentState", { agent_name: "huge" })).state_json.equals(state)).toBe(true);
    // An ordinary one does not stay where the lasting ones are: its log forgets it one day.
    expect((await world.bus.jsm.streams.info("OBJ_memories_recent")).state.messages).toBeGreaterThan(0);
    for (const id of ["huge-true", "huge-false"]) {
      const { events } = await world.call("getRecentEvents", { count: -1, category: "huge" });
      expect(events.find((event) => event.id === id)?.data_json.equals(state)).toBe(true);
    }
    const { chunks } = await world.call("assembleContext", {
      task_description: "needle7731",
      memory_tiers: ["knowledge"],
    });
    expect(chunks.some((chunk) => chunk.content.length > 100_000)).toBe(false);
  });
});

describe("the index and the embedding endpoint", () => {
  let server: Server;
  let mood: "well" | "failing" | "silent" | "confused" = "well";
  const confusions = [{ data: 5 }, null, { data: [null] }, { data: [{ embedding: [1, null, 1, 2] }] }] as const;
  let asked = 0;
  let url = "";

  beforeAll(async () => {
    server = createServer((request, response) => {
      void text(request).then((body) => {
        asked++;
        if (mood === "silent") return;
        response.statusCode = mood === "failing" ? 503 : 200;
        const { input } = JSON.parse(body) as { input: string[] };
        const data = input.map((one, index) => ({ index, embedding: [one.length, one.split("e").length, 1, 2] }));
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify(mood === "confused" ? confusions[asked % confusions.length] : { data }));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    url = `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}/v1`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  verifies(
    "clear-failure",
    "memory: a failing embedding endpoint: writes are accepted and found later, search says why not",
    async () => {
      mood = "failing";
      await open({
        EMBEDDINGS_URL: url,
        EMBEDDINGS_MODEL: "m",
        BEAMLINE_MEMORY_INDEX_WAIT_MS: "300",
        BEAMLINE_EMBEDDINGS_TIMEOUT_MS: "1000",
      });
      await world.call("addKnowledge", { title: "Later", content: "found when the endpoint is back", source: "test" });
      const search = () => world.call("searchKnowledge", { query: "endpoint back" }, { timeoutMs: 5_000 });
      await expect(search()).rejects.toMatchObject({
        code: "unavailable",
        message: expect.stringContaining("503") as string,
      });
      mood = "well";
      const results = await until(() => search().then((found) => found.results));
      expect(results.map(({ content }) => content)).toContain("[test] Later: found when the endpoint is back");
    },
  );

  verifies(
    "clear-failure",
    "memory: a silent embedding endpoint holds up neither writes nor, beyond its deadline, a search",
    async () => {
      mood = "silent";
      const started = performance.now();
      await world.call("addKnowledge", { title: "Silence", content: "stored all the same", source: "test" });
      expect(performance.now() - started).toBeLessThan(3_000);
      await expect(
        world.call("searchKnowledge", { query: "something never asked before" }, { timeoutMs: 2_000 }),
      ).rejects.toMatchObject({
        code: expect.stringMatching(/deadline_exceeded|unavailable/) as string,
      });
      mood = "well";
      await until(() =>
        world
          .call("searchKnowledge", { query: "silence", n_results: 50 })
          .then(({ results }) => results.some(({ content }) => content.includes("Silence"))),
      );
      expect(asked).toBeGreaterThan(3);
    },
  );

  verifies("clear-failure", "memory: an answer of the embedding endpoint that is none is refused by name", async () => {
    mood = "well";
    const embedder = await openOpenAi({ url, model: "m", clock: systemClock });
    mood = "confused";
    for (const _ of confusions)
      await expect(embedder.embed(["text"])).rejects.toMatchObject({
        code: "failed_precondition",
        message: expect.stringContaining("no vector for every text") as string,
      });
    mood = "well";
    expect(await embedder.embed(["text"])).toHaveLength(1);
  });

  verifies(
    "clear-failure",
    "memory: a Qdrant that is away: writes are accepted, search is unavailable at once, the other tiers still make a context",
    async () => {
      await open({ QDRANT_URL: "http://127.0.0.1:1" });
      await world.call("storeIncident", { id: "q", description: "qdrant was away" });
      await world.call("storeDecision", { id: "q", context: "which index", chosen: "this one" });
      const started = performance.now();
      await expect(world.call("semanticSearch", { query: "away" })).rejects.toMatchObject({
        code: "unavailable",
        message: expect.stringContaining("Qdrant") as string,
      });
      expect(performance.now() - started).toBeLessThan(5_000);
      const { chunks } = await world.call("assembleContext", { task_description: "anything" });
      expect(new Set(chunks.map(({ source }) => source))).toEqual(new Set(["operational", "working"]));
      await expect(
        world.call("assembleContext", { task_description: "x", memory_tiers: ["knowledge"] }),
      ).rejects.toMatchObject({ code: "unavailable" });
      // With an index at hand again, what was written meanwhile is found.
      await open();
      expect((await world.call("semanticSearch", { query: "qdrant was away", n_results: 1 })).results[0]?.id).toBe("q");
    },
  );

  verifies(
    "clear-failure",
    "memory: a second worker on one embedded index does not start, and says which settings help",
    async () => {
      await open();
      await expect(world.worker()).rejects.toThrow(/in use by another memory worker.*BEAMLINE_DATA_DIR.*QDRANT_URL/);
    },
  );
});
