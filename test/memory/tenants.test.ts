/** No sequence of calls, whatever its ids, texts and tenant names, shows one tenant what another one wrote. */
import { array, assert, asyncProperty, constantFrom, oneof, pre, string, stringMatching } from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type Method, type World } from "./world.ts";

let world: World;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await world.worker();
}, 60_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

/** Names that would meet if any of them were pasted into a key, a subject, a pattern, SQL or a filter as it is. */
const hostile = [
  "acme",
  "acme.",
  "acme.*",
  "acme.>",
  "*",
  ">",
  "acme:goal",
  "acme:",
  "ac me",
  "acme=2E",
  "=",
  "acme' OR '1'='1",
  'acme"',
  "acme/x",
  "ACME",
  "acmé",
  "a\u0301cme",
  "default.rec",
  "rec",
  "null",
  "undefined",
  "__proto__",
  "{acme}",
  "acme%00",
  "acme\u0000".replace("\u0000", "%"),
  "acme--",
  "tenants",
  "applied",
];
const tenant = oneof(constantFrom(...hostile), stringMatching(/^[A-Za-z0-9._:/*>=-]{1,24}$/));
const id = oneof(
  constantFrom("1", "goal", "../acme", "acme:goal:1", "*", ">", "a\nb", "=", "constructor"),
  string({ minLength: 1, maxLength: 12 }).filter((text) => text.isWellFormed()),
);

/** What every read of a tenant shows, as one text. */
async function everything(of: string, ids: readonly string[]): Promise<string> {
  const shown: unknown[] = [];
  const ask = async (method: Method, request: object): Promise<void> => {
    try {
      shown.push(await world.call(method, request, { tenant: of }));
    } catch (error) {
      expect((error as { code?: string }).code).toBe("not_found");
    }
  };
  await ask("getRecentEvents", { count: -1 });
  await ask("getActiveGoals", {});
  await ask("findPattern", { trigger: "" });
  await ask("semanticSearch", { query: "secret", n_results: 50 });
  await ask("searchKnowledge", { query: "", n_results: 50 });
  await ask("assembleContext", { task_description: "secret" });
  for (const one of ids) {
    await ask("getMetric", { key: one });
    await ask("getTasksForGoal", { goal_id: one });
    await ask("getAgentState", { agent_name: one });
  }
  return JSON.stringify(shown, (_key, value: unknown) => {
    if (typeof value === "bigint") return String(value);
    const bytes = value as { type?: string; data?: number[] };
    return bytes?.type === "Buffer" && Array.isArray(bytes.data) ? Buffer.from(bytes.data).toString("utf8") : value;
  });
}

let round = 0;

verifies(
  "tenant-wall",
  "memory: nothing crosses between tenants, however they and their ids are named",
  async () => {
    await assert(
      asyncProperty(tenant, tenant, array(id, { minLength: 1, maxLength: 3 }), async (mine, other, ids) => {
        pre(mine !== other && mine.trim() === mine && other.trim() === other && ids.every((one) => one.trim() !== ""));
        const mark = `secret${++round}mark`;
        for (const one of ids) {
          const options = { tenant: mine };
          const data = Buffer.from(JSON.stringify({ mark }));
          await world.call("pushEvent", { id: one, category: mark, data_json: data }, options);
          await world.call("pushEvent", { id: one, category: mark, data_json: data, critical: true }, options);
          await world.call("updateMetric", { key: one, value: 4_000 + round }, options);
          await world.call("storeGoal", { id: one, description: mark, status: "pending" }, options);
          await world.call("storeTask", { id: one, goal_id: one, description: mark }, options);
          await world.call("storePattern", { id: one, trigger: mark, success_rate: 1, uses: 1_000 }, options);
          await world.call("storeAgentState", { agent_name: one, state_json: data }, options);
          await world.call("storeIncident", { id: one, description: `secret ${mark}` }, options);
          await world.call("addKnowledge", { title: mark, content: "secret", source: one }, options);
          // A change asked for by the other tenant finds nothing of this one to change.
          await world.call("updateGoal", { id: one, status: "cancelled", result: "taken" }, { tenant: other });
          await world.call("updatePatternStats", { id: one, success: false }, { tenant: other });
        }
        expect(await everything(mine, ids)).toContain(mark);
        expect(await everything(other, ids)).not.toContain(mark);
        const { goals } = await world.call("getActiveGoals", {}, { tenant: mine });
        expect(goals.filter((goal) => goal.description === mark && goal.result === "").length).toBe(new Set(ids).size);
      }),
      { numRuns: 40 },
    );
  },
  { timeout: 180_000 },
);
