/** What the contract says of long-term memory, knowledge and contexts, and of any input. */
import { expect } from "vitest";
import type { Probe } from "./probe.ts";
import type { Method } from "./world.ts";

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

export const longTermProbes: readonly Probe[] = [
  {
    name: "SemanticSearch finds every collection, with its content, its id and where it comes from",
    async run({ call, id }) {
      const word = `zebra${id.replaceAll("-", "")}`;
      await call("storeProcedure", {
        id: `${id}-p`,
        name: `restart ${word}`,
        description: "stop, wait, start",
        tags: ["ops", "web"],
        steps_json: json([]),
      });
      await call("storeIncident", {
        id: `${id}-i`,
        description: `${word} outage`,
        root_cause: "full disk",
        resolution: "freed space",
        resolved_by: "ada",
        timestamp: 99n,
      });
      await call("storeConfigChange", {
        id: `${id}-c`,
        file_path: `/etc/${word}.conf`,
        reason: "more workers",
        changed_by: "bob",
      });
      await call("storeDecision", {
        id: `${id}-d`,
        context: `which cache for ${word}`,
        chosen: "redis",
        reasoning: "it is fast",
      });
      await call("addKnowledge", {
        title: `About ${word}`,
        content: "It has stripes.",
        source: "book",
        tags: ["animals"],
      });
      const { results } = await call("semanticSearch", { query: word, n_results: 20, min_relevance: 0.4 });
      expect(new Map(results.map((result) => [result.collection, result.content]))).toEqual(
        new Map([
          ["procedures", `restart ${word}: stop, wait, start`],
          ["incidents", `${word} outage | Cause: full disk | Resolution: freed space`],
          ["config_changes", `/etc/${word}.conf: more workers`],
          ["decisions", `which cache for ${word} | Chosen: redis | Because: it is fast`],
          ["knowledge", `[book] About ${word}: It has stripes.`],
        ]),
      );
      for (const result of results) {
        expect(result.relevance).toBeGreaterThanOrEqual(0.4);
        expect(result.relevance).toBeLessThanOrEqual(1);
        const metadata = JSON.parse(result.metadata_json.toString()) as Record<string, unknown>;
        expect(metadata).toMatchObject({ id: result.id, collection: result.collection });
        expect(Number(metadata["stored_at"])).toBeGreaterThan(1_700_000_000);
      }
      const incident = results.find((result) => result.collection === "incidents");
      expect(incident?.id).toBe(`${id}-i`);
      expect(JSON.parse(incident?.metadata_json.toString() ?? "")).toMatchObject({ source: "ada", timestamp: 99 });
      const only = await call("semanticSearch", { query: word, collections: ["incidents", "incidents", "nonsense"] });
      expect(only.results.map((result) => result.id)).toEqual([`${id}-i`]);
      expect((await call("semanticSearch", { query: word, collections: ["nonsense"] })).results).toEqual([]);
    },
  },
  {
    name: "SemanticSearch: exact words first, min_relevance inclusive, n_results cuts, 0 is ten",
    async run({ call, id }) {
      const word = `quokka${id.replaceAll("-", "")}`;
      for (let n = 0; n < 14; n++) await call("storeIncident", { id: `${id}-${n}`, description: `${word} number${n}` });
      const query = `${word} number7`;
      const { results } = await call("semanticSearch", { query, collections: ["incidents"] });
      expect(results).toHaveLength(10);
      expect(results[0]?.id).toBe(`${id}-7`);
      const relevances = results.map((result) => result.relevance);
      expect(relevances).toEqual(relevances.toSorted((a, b) => b - a));
      expect((await call("semanticSearch", { query, collections: ["incidents"], n_results: 3 })).results).toHaveLength(
        3,
      );
      const odd = `${word}\u0000number7 ${"-".repeat(100_000)}`;
      expect((await call("semanticSearch", { query: odd, collections: ["incidents"] })).results[0]?.id).toBe(`${id}-7`);
      const best = relevances[0] ?? 1;
      expect(
        (await call("semanticSearch", { query, collections: ["incidents"], min_relevance: best })).results,
      ).toHaveLength(1);
    },
  },
  {
    name: "an upsert replaces what search finds",
    async run({ call, id }) {
      const [old, fresh] = [`wombat${id.replaceAll("-", "")}`, `ibis${id.replaceAll("-", "")}`];
      await call("storeProcedure", { id, name: old, description: "as it was" });
      await call("storeProcedure", { id, name: fresh, description: "as it is" });
      const find = async (query: string) =>
        (await call("semanticSearch", { query, collections: ["procedures"] })).results.filter((result) =>
          result.content.includes(query),
        );
      expect(await find(old)).toEqual([]);
      expect((await find(fresh)).map((result) => result.content)).toEqual([`${fresh}: as it is`]);
    },
  },
  {
    name: "AddKnowledge replaces the same title and source, and its id stays; SearchKnowledge ignores collections and honours min_relevance",
    async run({ call, id }) {
      const word = `lemur${id.replaceAll("-", "")}`;
      await call("addKnowledge", { title: word, content: "first", source: "a" });
      const [first] = (await call("searchKnowledge", { query: word, collections: ["procedures"], min_relevance: 0.4 }))
        .results;
      await call("addKnowledge", { title: word, content: "second", source: "a", tags: ["t"] });
      await call("addKnowledge", { title: word, content: "other", source: "b" });
      const { results } = await call("searchKnowledge", { query: word, min_relevance: 0.4 });
      expect(results.map((result) => result.content).sort()).toEqual([`[a] ${word}: second`, `[b] ${word}: other`]);
      expect(results.find((result) => result.content.endsWith("second"))?.id).toBe(first?.id);
      expect((await call("searchKnowledge", { query: word, min_relevance: 1 })).results).toEqual([]);
    },
  },
  {
    name: "AssembleContext: tiers by name, long_term accepted, budget kept, unknown tiers skipped, negative budget empty",
    async run({ call, id }) {
      const word = `tapir${id.replaceAll("-", "")}`;
      await call("addKnowledge", { title: word, content: "eats leaves", source: "zoo" });
      await call("storeProcedure", { id, name: `feed the ${word}`, description: "open the gate" });
      await call("storeGoal", { id, description: `look after the ${word}`, status: "pending", priority: -1000 });
      await call("pushEvent", { id, category: id, data_json: json({ seen: word }) });
      const context = await call("assembleContext", { task_description: word, max_tokens: 0 });
      expect(new Set(context.chunks.map((chunk) => chunk.source))).toEqual(
        new Set(["operational", "working", "longterm", "knowledge"]),
      );
      for (const chunk of context.chunks) expect(chunk.tokens).toBe(Math.ceil(Buffer.byteLength(chunk.content) / 4));
      expect(context.total_tokens).toBe(context.chunks.reduce((sum, chunk) => sum + chunk.tokens, 0));
      expect(context.total_tokens).toBeLessThanOrEqual(4000);
      expect(context.chunks).toContainEqual(
        expect.objectContaining({ source: "operational", content: `{"seen":"${word}"}`, relevance: 0.8 }),
      );
      const relevances = context.chunks.map((chunk) => chunk.relevance);
      expect(relevances).toEqual(relevances.toSorted((a, b) => b - a));
      expect(await call("assembleContext", { task_description: word, max_tokens: 0 })).toEqual(context);
      const long = await call("assembleContext", { task_description: word, memory_tiers: ["long_term"] });
      expect(long.chunks[0]).toMatchObject({ source: "longterm", content: `feed the ${word}: open the gate` });
      const working = await call("assembleContext", { task_description: word, memory_tiers: ["nonsense", "working"] });
      expect(working.chunks[0]).toMatchObject({
        source: "working",
        content: `Goal [${id}]: look after the ${word} (status: pending)`,
        relevance: 0.7,
      });
      const small = await call("assembleContext", { task_description: word, max_tokens: 12 });
      expect(small.total_tokens).toBeLessThanOrEqual(12);
      expect(await call("assembleContext", { task_description: word, max_tokens: -1 })).toEqual({
        chunks: [],
        total_tokens: 0,
      });
    },
  },
  {
    name: "int64 beyond 2^53, empty JSON and any text survive",
    async run({ call, id }) {
      const big = 9_007_199_254_740_993n;
      await call("storeGoal", {
        id,
        description: 'naïve — 多 🚀 \n\t"quotes"',
        status: "pending",
        created_at: big,
        result: "",
      });
      const goal = (await call("getActiveGoals", {})).goals.find((one) => one.id === id);
      expect(goal).toMatchObject({
        description: 'naïve — 多 🚀 \n\t"quotes"',
        created_at: big,
        metadata_json: Buffer.alloc(0),
      });
      const odd = `${id} .*>/\u00e9 ${"x".repeat(300)}`;
      await call("storeAgentState", { agent_name: odd, state_json: json("s") });
      expect((await call("getAgentState", { agent_name: odd })).state_json.toString()).toBe('"s"');
    },
  },
  {
    name: "bad input is invalid_argument, names the field and changes nothing",
    async run({ refused, call, id }) {
      const bad = Buffer.from("{not json");
      const cases: readonly (readonly [Method, object, string])[] = [
        ["pushEvent", { id, category: id, data_json: bad }, "data_json"],
        ["updateMetric", { value: 1 }, "key"],
        ["updateMetric", { key: id, value: Number.NaN }, "value"],
        ["updateMetric", { key: id, value: Number.POSITIVE_INFINITY }, "value"],
        ["storeGoal", { description: "no id" }, "id"],
        ["storeGoal", { id, metadata_json: bad }, "metadata_json"],
        ["updateGoal", { status: "completed" }, "id"],
        ["storeTask", { goal_id: id }, "id"],
        ["storeTask", { id }, "goal_id"],
        ["storeTask", { id, goal_id: id, duration_ms: -1n }, "duration_ms"],
        ["storeTask", { id, goal_id: id, input_json: bad }, "input_json"],
        ["storeTask", { id, goal_id: id, output_json: bad }, "output_json"],
        ["storeToolCall", { tool_name: "x" }, "id"],
        ["storeToolCall", { id, input_json: bad }, "input_json"],
        ["storeToolCall", { id, output_json: bad }, "output_json"],
        ["storeToolCall", { id, duration_ms: -1n }, "duration_ms"],
        ["storeDecision", { context: "x" }, "id"],
        ["storeDecision", { id, options_json: bad }, "options_json"],
        ["storePattern", { trigger: "x" }, "id"],
        ["storePattern", { id, success_rate: 1.5 }, "success_rate"],
        ["storePattern", { id, success_rate: -0.1 }, "success_rate"],
        ["storePattern", { id, success_rate: Number.NaN }, "success_rate"],
        ["storePattern", { id, uses: -1 }, "uses"],
        ["findPattern", { trigger: id, min_success_rate: Number.NaN }, "min_success_rate"],
        ["updatePatternStats", { success: true }, "id"],
        ["storeAgentState", { state_json: json(1) }, "agent_name"],
        ["storeAgentState", { agent_name: id, state_json: bad }, "state_json"],
        ["storeProcedure", { name: "x" }, "id"],
        ["storeProcedure", { id, success_count: -1 }, "success_count"],
        ["storeProcedure", { id, fail_count: -1 }, "fail_count"],
        ["storeProcedure", { id, avg_duration_ms: -1n }, "avg_duration_ms"],
        ["storeProcedure", { id, steps_json: bad }, "steps_json"],
        ["storeIncident", { description: "x" }, "id"],
        ["storeIncident", { id, symptoms_json: bad }, "symptoms_json"],
        ["storeConfigChange", { file_path: "x" }, "id"],
        ["addKnowledge", { source: "x" }, "content"],
        ["semanticSearch", { query: "x", min_relevance: 7 }, "min_relevance"],
        ["semanticSearch", { query: "x", min_relevance: Number.NaN }, "min_relevance"],
        ["searchKnowledge", { query: "x", min_relevance: -7 }, "min_relevance"],
      ];
      for (const [method, request, field] of cases) {
        const { code, message } = await refused(method, request);
        expect({ method, code }).toEqual({ method, code: "invalid_argument" });
        expect(message).toContain(field);
      }
      expect((await call("getRecentEvents", { count: 10, category: id })).events).toEqual([]);
      expect((await call("getActiveGoals", {})).goals.some((goal) => goal.id === id)).toBe(false);
      expect((await refused("getAgentState", { agent_name: id })).code).toBe("not_found");
      expect((await refused("getMetric", { key: id })).code).toBe("not_found");
      expect((await call("findPattern", { trigger: id })).found).toBe(false);
      const { results } = await call("semanticSearch", { query: id, n_results: 1_000 });
      expect(results.filter((result) => result.id === id)).toEqual([]);
      // Counts without a meaning of their own are not refused: the contract gives them one.
      expect((await call("semanticSearch", { query: id, n_results: -3 })).results.length).toBeLessThanOrEqual(10);
      expect((await call("getTasksForGoal", { goal_id: "" })).tasks).toEqual([]);
    },
  },
];
