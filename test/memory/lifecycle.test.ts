/** How memories grow old: what a sweep moves, what it leaves, and that nothing goes before the next tier has it. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { codecOf } from "../../contracts/codec.ts";
import { Procedure } from "../../contracts/gen/aios/memory.ts";
import { ManualClock, systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import { connectRedis, type HotState } from "../../workers/connect.redis.ts";
import { Archive, type Shelf } from "../../workers/memory/archive.ts";
import { RedisHot } from "../../workers/memory/hot/hot.redis.ts";
import { Lifecycle, type Ages } from "../../workers/memory/lifecycle.ts";
import { MemoryLog } from "../../workers/memory/log.ts";
import { knowledgeId, LongTerm } from "../../workers/memory/longterm.ts";
import { openEmbedded } from "../../workers/memory/index/index.embedded.ts";
import { Working } from "../../workers/memory/working.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

const DAY_MS = 86_400_000;
const ages: Ages = {
  eventAgeMs: DAY_MS,
  criticalAgeMs: 3 * DAY_MS,
  goalAgeMs: 90 * DAY_MS,
  decisionAgeMs: 30 * DAY_MS,
  toolCallAgeMs: 30 * DAY_MS,
  patterns: 3,
};
const now = systemClock.now();
const seconds = (daysAgo: number): bigint => BigInt(Math.floor((now - daysAgo * DAY_MS) / 1000));

let world: World;
let redis: HotState;
let hot: RedisHot;
let log: MemoryLog;
let indexWorks = true;
/** Happens once, while the index is asked to store something. */
let meanwhile: (() => Promise<unknown>) | undefined;
let shelf: Shelf;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await world.worker();
  redis = await connectRedis(world.redis.url, "test");
  hot = new RedisHot(redis.redis, 100);
  log = new MemoryLog(world.bus);
  // An index beside the worker's own, which the sweep of this test writes to, and which can be made to fail.
  const index = await openEmbedded({ file: `${world.dataDir}/lifecycle.sqlite`, model: "letters", dimensions: 4 });
  const embedder = {
    model: "letters",
    dimensions: 4,
    async embed(texts: readonly string[]) {
      if (!indexWorks) throw new Error("no index today");
      const now = meanwhile;
      meanwhile = undefined;
      await now?.();
      return texts.map(() => Float32Array.of(1, 0, 0, 0));
    },
    close: () => Promise.resolve(),
  };
  shelf = { embedder, index };
}, 60_000);

afterAll(async () => {
  await shelf.index.close();
  await redis.close();
  await world[Symbol.asyncDispose]();
});

/** A sweep of things that have just been stored begins when the tail has seen them: it would bring back what is swept before. */
function lifecycle(daysFromNow = 0, own: Partial<Ages> = {}): Pick<Lifecycle, "sweep"> {
  const clock = new ManualClock(now + daysFromNow * DAY_MS);
  const archive = new Archive(() => Promise.resolve(shelf), systemClock, silentLogger, { indexWaitMs: 1_000 });
  const working = new Working(hot, log, systemClock);
  const real = new Lifecycle(
    { hot, log, working, longTerm: new LongTerm(archive, log, systemClock), clock, logger: silentLogger },
    { ...ages, ...own },
  );
  return {
    async sweep(tenant) {
      await until(async () => (await hot.applied()) === (await log.bounds("MEMORY")).last, "the tail of the log");
      return real.sweep(tenant);
    },
  };
}

test("a completed goal becomes a procedure at once, with the steps that succeeded, and a pattern for the next time", async () => {
  const tenant = "learn";
  const options = { tenant };
  await world.call(
    "storeGoal",
    { id: "g", description: "Rotate the certificates", status: "pending", created_at: 5n },
    options,
  );
  await world.call(
    "storeTask",
    { id: "t2", goal_id: "g", description: "install", started_at: 20n, duration_ms: 30n },
    options,
  );
  await world.call(
    "storeTask",
    { id: "t1", goal_id: "g", description: "fetch", started_at: 10n, duration_ms: 12n },
    options,
  );
  const call = (id: string, task_id: string, tool_name: string, success = true, timestamp = 1n) =>
    world.call(
      "storeToolCall",
      { id, task_id, tool_name, success, timestamp, input_json: Buffer.from(`{"of":"${id}"}`) },
      options,
    );
  await call("c3", "t2", "fs.write");
  await call("c1", "t1", "net.fetch", true, 1n);
  await call("c2", "t1", "net.verify", false, 2n);
  await world.call("updateGoal", { id: "g", status: "completed", result: "valid until 2027" }, options);
  const { results } = await world.call(
    "semanticSearch",
    { query: "certificates", collections: ["procedures"] },
    options,
  );
  expect(results.map(({ id }) => id)).toEqual(["goal:g"]);
  expect(JSON.parse(results[0]?.metadata_json.toString() ?? "")).toMatchObject({
    task_id: "g",
    tags: ["learned", "net", "fs"],
  });
  const stored = await log.last(tenant, "procedure", "goal:g");
  const procedure = codecOf(Procedure).fromJson(stored?.state);
  expect(JSON.parse(procedure.steps_json.toString())).toEqual([
    { tool: "net.fetch", input: { of: "c1" } },
    { tool: "fs.write", input: { of: "c3" } },
  ]);
  expect(procedure).toMatchObject({
    success_count: 1,
    avg_duration_ms: 42n,
    description: "Rotate the certificates\nResult: valid until 2027",
  });
  const { pattern } = await world.call("findPattern", { trigger: "rotate the" }, options);
  expect(pattern).toMatchObject({ action: "net.fetch → fs.write", success_rate: 1, uses: 1, created_from: "g" });
  // Learning again changes nothing: neither a second completion nor the sweep stores anything.
  await world.call("updatePatternStats", { id: pattern?.id ?? "", success: false }, options);
  await world.call(
    "storeGoal",
    {
      id: "g",
      description: "Rotate the certificates",
      status: "completed",
      result: "valid until 2027",
      created_at: 5n,
    },
    options,
  );
  await lifecycle().sweep(tenant);
  expect((await log.last(tenant, "procedure", "goal:g"))?.seq).toBe(stored?.seq);
  expect((await world.call("findPattern", { trigger: "rotate" }, options)).pattern?.uses).toBe(2);
});

test("what was learned stays as it was when the tool calls behind it have left hot state", async () => {
  const options = { tenant: "learned" };
  const goal = { id: "g", description: "Renew the lease", status: "completed", completed_at: seconds(31) };
  await world.call("storeGoal", { ...goal, status: "pending" }, options);
  for (const id of ["t1", "t2"]) await world.call("storeTask", { id, goal_id: "g", description: id }, options);
  const call = { id: "c", task_id: "t1", tool_name: "net.renew", success: true, timestamp: seconds(31) };
  await world.call("storeToolCall", call, options);
  await world.call("storeGoal", goal, options);
  const steps = async () =>
    codecOf(Procedure)
      .fromJson((await log.last("learned", "procedure", "goal:g"))?.state)
      .steps_json.toString();
  expect(await steps()).toBe('[{"tool":"net.renew","input":{}}]');
  const used = { id: "goal:g", name: "Renew", success_count: 7, steps_json: Buffer.from('[{"tool":"net.renew"}]') };
  await world.call("storeProcedure", used, options);
  expect(await lifecycle().sweep("learned")).toMatchObject({ tool_calls: 1, waiting: 0 });
  await lifecycle().sweep("learned");
  await world.call("updateGoal", { id: "g", status: "completed", result: "until spring" }, options);
  expect(await steps()).toBe('[{"tool":"net.renew"}]');
  expect((await log.last("learned", "procedure", "goal:g"))?.state).toMatchObject({ name: "Renew", success_count: 7 });
  expect((await world.call("findPattern", { trigger: "lease" }, options)).pattern).toMatchObject({ uses: 1 });
});

test("goals that begin alike and were reached with the same tools are one pattern, counted once each", async () => {
  const options = { tenant: "alike" };
  const reach = async (id: string, description: string, ...tools: string[]): Promise<void> => {
    await world.call("storeGoal", { id, description, status: "pending" }, options);
    await world.call("storeTask", { id: `${id}t`, goal_id: id, description: "do it" }, options);
    for (const [n, tool_name] of tools.entries())
      await world.call(
        "storeToolCall",
        { id: `${id}c${n}`, task_id: `${id}t`, tool_name, success: true, timestamp: BigInt(n + 1) },
        options,
      );
    await world.call("updateGoal", { id, status: "completed", result: "done" }, options);
  };
  const begin = "Bring the web servers of the northern region up to date";
  await reach("g1", `${begin}, the first of them`, "pkg.update", "service.restart");
  await reach("g2", `${begin.toUpperCase()}, ALL OF THEM`, "pkg.update", "service.restart");
  await reach("g3", `${begin}, and tell`, "pkg.update", "email.send");
  await world.call("updateGoal", { id: "g2", status: "completed", result: "really" }, options); // learned from already
  const find = async (trigger: string) => (await world.call("findPattern", { trigger }, options)).pattern;
  expect(await find("the first of them")).toMatchObject({
    action: "pkg.update → service.restart",
    uses: 2,
    success_rate: 1,
    created_from: "g1",
  });
  expect(await find("and tell")).toMatchObject({ action: "pkg.update → email.send", uses: 1 });
  expect(await find("ALL OF THEM")).toBeUndefined();
});

verifies("log-is-truth", "memory: old goals become knowledge, and stay until that is confirmed", async () => {
  const options = { tenant: "goals" };
  const goal = (id: string, status: string, completed_at: bigint) =>
    world.call("storeGoal", { id, description: `goal ${id}`, status, completed_at, result: "as planned" }, options);
  await goal("old", "failed", seconds(91));
  await goal("young", "completed", seconds(89));
  await goal("open", "in_progress", seconds(400));
  await world.call(
    "storeTask",
    { id: "t", goal_id: "old", description: "try it", status: "failed", error: "no luck" },
    options,
  );
  indexWorks = false;
  expect(await lifecycle().sweep("goals")).toMatchObject({ goals: 0, waiting: 1 });
  expect((await world.call("getTasksForGoal", { goal_id: "old" }, options)).tasks).toHaveLength(1);
  indexWorks = true;
  expect(await lifecycle().sweep("goals")).toMatchObject({ goals: 1, waiting: 0 });
  expect((await world.call("getTasksForGoal", { goal_id: "old" }, options)).tasks).toEqual([]);
  const left = await Promise.all(["old", "young", "open"].map((id) => hot.peek("goals", [["goal", id]])));
  expect(left.map(([held]) => held?.state !== undefined)).toEqual([false, true, true]);
  const [hit] = (await world.call("searchKnowledge", { query: "goal old no luck", n_results: 1 }, options)).results;
  expect(hit?.content).toBe("[goal:old] goal old: failed: as planned\n- try it (failed: no luck)");
  expect(await lifecycle().sweep("goals")).toMatchObject({ goals: 0, waiting: 0 });
});

verifies("log-is-truth", "memory: what is stored while its goal becomes knowledge is not lost on the way", async () => {
  const tenant = "meanwhile";
  const goal = { id: "g", description: "old goal", status: "failed", completed_at: seconds(91) };
  const task = (id: string, started_at: bigint, status: string) =>
    world.call("storeTask", { id, goal_id: "g", description: `task ${id}`, started_at, status }, { tenant });
  const tasks = async () => (await world.call("getTasksForGoal", { goal_id: "g" }, { tenant })).tasks;
  const text = async () => (await log.last(tenant, "knowledge", knowledgeId("old goal", "goal:g")))?.state?.["content"];
  await world.call("storeGoal", goal, { tenant });
  await task("one", 1n, "failed");
  meanwhile = () => task("two", 2n, "running");
  expect(await lifecycle().sweep(tenant)).toMatchObject({ goals: 0, waiting: 1 });
  expect((await tasks()).map(({ id }) => id)).toEqual(["one", "two"]);
  meanwhile = () => task("two", 2n, "completed");
  expect(await lifecycle().sweep(tenant)).toMatchObject({ goals: 0, waiting: 1 });
  // A second sweep at the same time ends first: the document stays the one of all tasks.
  meanwhile = () => lifecycle().sweep(tenant);
  await lifecycle().sweep(tenant);
  expect(await tasks()).toEqual([]);
  expect(await text()).toBe("failed\n- task one (failed)\n- task two (completed)");
  expect(await lifecycle().sweep(tenant)).toMatchObject({ goals: 0, waiting: 0 });
});

test("old decisions and tool calls leave hot state once long-term memory has them; young ones stay", async () => {
  const options = { tenant: "facts" };
  for (const [id, daysAgo] of [
    ["old", 31],
    ["young", 29],
  ] as const) {
    await world.call("storeDecision", { id, context: `decision ${id}`, timestamp: seconds(daysAgo) }, options);
    await world.call("storeToolCall", { id, tool_name: "x", timestamp: seconds(daysAgo) }, options);
  }
  // The sweep's own index has never heard of the decision: it stays.
  expect(await lifecycle().sweep("facts")).toMatchObject({ decisions: 0, tool_calls: 1, waiting: 1 });
  const record = await log.last("facts", "decision", "old");
  await shelf.index.put([
    {
      tenant: "facts",
      collection: "decisions",
      id: "old",
      seq: record?.seq ?? 0,
      at: 0,
      content: "",
      text: "",
      metadata: {},
      vector: Float32Array.of(1, 0, 0, 0),
    },
  ]);
  expect(await lifecycle().sweep("facts")).toMatchObject({ decisions: 1, tool_calls: 0, waiting: 0 });
  const [decision, call, youngDecision, youngCall] = await hot.peek("facts", [
    ["decision", "old"],
    ["tool_call", "old"],
    ["decision", "young"],
    ["tool_call", "young"],
  ]);
  expect([decision, call]).toEqual([undefined, undefined]);
  expect([youngDecision?.state, youngCall?.state]).not.toContain(undefined);
  // The ids stay taken: the log knows them.
  await expect(world.call("storeToolCall", { id: "old", tool_name: "x" }, options)).rejects.toMatchObject({
    code: "already_exists",
  });
});

test("of many patterns the best stay: lowest rate first, then the least used", async () => {
  const options = { tenant: "patterns" };
  const given = [
    ["a", 0.9, 1],
    ["b", 0.2, 9],
    ["c", 0.2, 1],
    ["d", 0.5, 5],
    ["e", 1, 0],
  ] as const;
  for (const [id, success_rate, uses] of given)
    await world.call("storePattern", { id, trigger: `case ${id}`, success_rate, uses }, options);
  expect((await lifecycle().sweep("patterns")).patterns).toBe(2);
  const found = await Promise.all(
    given.map(async ([id]) => (await world.call("findPattern", { trigger: `case ${id}` }, options)).found),
  );
  expect(found).toEqual([true, false, false, true, true]);
});

test("events are forgotten at their age, critical ones at theirs", async () => {
  const options = { tenant: "events" };
  await world.call("pushEvent", { id: "ordinary" }, options);
  await world.call("pushEvent", { id: "critical", critical: true }, options);
  const ids = async () => (await world.call("getRecentEvents", { count: -1 }, options)).events.map(({ id }) => id);
  expect(await lifecycle(0.5).sweep("events")).toMatchObject({ events: 0 });
  expect(await ids()).toEqual(["critical", "ordinary"]);
  await lifecycle(2).sweep("events");
  expect(await ids()).toEqual(["critical"]);
  await lifecycle(4).sweep("events");
  expect(await ids()).toEqual([]);
});

test("what is rewritten all the time keeps one state in the log", async () => {
  const options = { tenant: "compact" };
  for (let n = 0; n < 20; n++)
    await world.call("storeAgentState", { agent_name: "busy", state_json: Buffer.from(String(n)) }, options);
  const subjects = async (): Promise<number> => {
    const { state } = await world.bus.jsm.streams.info("MEMORY", { subjects_filter: "log.memory.rec.compact.>" });
    return Object.values(state.subjects ?? {}).reduce((sum, count) => sum + count, 0);
  };
  expect(await subjects()).toBe(20);
  await lifecycle().sweep("compact");
  expect(await subjects()).toBe(1);
  expect((await world.call("getAgentState", { agent_name: "busy" }, options)).state_json.toString()).toBe("19");
});

test("an age of 0 keeps for ever", async () => {
  await world.call("storeGoal", { id: "g", status: "failed", completed_at: 1n }, { tenant: "forever" });
  const never = { goalAgeMs: 0, decisionAgeMs: 0, toolCallAgeMs: 0, eventAgeMs: 0, criticalAgeMs: 0 };
  expect(await lifecycle(10_000, never).sweep("forever")).toEqual({
    events: 0,
    goals: 0,
    decisions: 0,
    tool_calls: 0,
    patterns: 0,
    waiting: 0,
  });
});
