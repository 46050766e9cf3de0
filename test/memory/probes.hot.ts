/** What the contract says of operational and working memory. */
import { expect } from "vitest";
import type { Probe } from "./probe.ts";

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

export const hotProbes: readonly Probe[] = [
  {
    name: "PushEvent fills an empty id and a zero timestamp, and keeps what is given",
    async run({ call, id }) {
      await call("pushEvent", { category: id });
      await call("pushEvent", { id: `${id}-1`, timestamp: 7n, category: id, source: "s", data_json: json({ a: 1 }) });
      const { events } = await call("getRecentEvents", { count: 10, category: id });
      expect(events).toHaveLength(2);
      expect(events[0]).toMatchObject({ id: `${id}-1`, timestamp: 7n, source: "s", critical: false });
      expect(events[1]?.id).toMatch(/^[0-9a-f-]{36}$/);
      expect(Number(events[1]?.timestamp)).toBeGreaterThan(1_700_000_000);
      expect(events[1]?.data_json).toHaveLength(0);
    },
  },
  {
    name: "GetRecentEvents is newest first by arrival, whatever the timestamps say",
    async run({ call, id }) {
      for (const [n, timestamp] of [300n, 100n, 200n].entries())
        await call("pushEvent", { id: `${id}-${n}`, timestamp, category: id });
      const { events } = await call("getRecentEvents", { count: 10, category: id });
      expect(events.map((event) => event.id)).toEqual([`${id}-2`, `${id}-1`, `${id}-0`]);
    },
  },
  {
    name: "GetRecentEvents filters exactly, both filters together, and counts after filtering",
    async run({ call, id }) {
      for (const [category, source] of [
        ["a", "x"],
        ["a", "y"],
        ["ab", "x"],
        ["a", "x"],
      ] as const) {
        await call("pushEvent", { category: `${id}${category}`, source: `${id}${source}` });
      }
      const count = async (request: object) =>
        (await call("getRecentEvents", { count: 100, ...request })).events.length;
      expect(await count({ category: `${id}a` })).toBe(3);
      expect(await count({ source: `${id}x` })).toBe(3);
      expect(await count({ category: `${id}a`, source: `${id}x` })).toBe(2);
      expect(await count({ category: `${id}a`, count: 1 })).toBe(1);
      expect(await count({ category: id })).toBe(0);
    },
  },
  {
    name: "GetRecentEvents: count 0 reads none, a negative count reads all",
    async run({ call, id }) {
      for (let n = 0; n < 30; n++) await call("pushEvent", { category: id });
      expect((await call("getRecentEvents", { category: id })).events).toHaveLength(0);
      expect((await call("getRecentEvents", { count: -5, category: id })).events).toHaveLength(30);
    },
  },
  {
    name: "PushEvent is idempotent: the same event twice is kept once, another one of the same id beside it",
    async run({ call, id }) {
      const event = { id, category: id, data_json: json(1) };
      await call("pushEvent", event);
      await call("pushEvent", event);
      await call("pushEvent", { ...event, data_json: json(2) });
      await call("pushEvent", { ...event, critical: true });
      await call("pushEvent", { ...event, critical: true });
      expect((await call("getRecentEvents", { count: 10, category: id })).events).toHaveLength(3);
    },
  },
  {
    name: "UpdateMetric: the last write wins by arrival; GetMetric of an unknown key is not_found",
    async run({ call, refused, id }) {
      await call("updateMetric", { key: id, value: 1.5, timestamp: 200n });
      await call("updateMetric", { key: id, value: -2.25, timestamp: 100n });
      expect(await call("getMetric", { key: id })).toEqual({ key: id, value: -2.25, timestamp: 100n });
      const { code, message } = await refused("getMetric", { key: `${id}-no` });
      expect(code).toBe("not_found");
      expect(message).toContain(`Metric not found: ${id}-no`);
    },
  },
  {
    name: "GetSystemSnapshot shows this host, and metrics in its place",
    async run({ call }) {
      const live = await call("getSystemSnapshot", {});
      expect(live.memory_total_mb).toBeGreaterThan(100);
      expect(live.memory_used_mb).toBeGreaterThan(0);
      expect(live.disk_total_gb).toBeGreaterThan(0);
      expect(live.cpu_percent).toBeGreaterThanOrEqual(0);
      await call("updateMetric", { key: "cpu.usage", value: 12.5 });
      await call("updateMetric", { key: "tasks.active", value: 3.9 });
      await call("updateMetric", { key: "agents.active", value: -1.9 });
      expect(await call("getSystemSnapshot", {})).toMatchObject({
        cpu_percent: 12.5,
        active_tasks: 3,
        active_agents: -1,
      });
    },
  },
  {
    name: "StoreGoal replaces everything; UpdateGoal sets status and result alone; an unknown goal is no error",
    async run({ call, id }) {
      await call("storeGoal", {
        id,
        description: "first",
        status: "pending",
        created_at: 5n,
        metadata_json: json({ a: 1 }),
      });
      await call("storeGoal", { id, description: "second", status: "pending", created_at: 6n });
      const active = async () => (await call("getActiveGoals", {})).goals.find((goal) => goal.id === id);
      expect(await active()).toMatchObject({ description: "second", created_at: 6n, metadata_json: Buffer.alloc(0) });
      await call("updateGoal", { id, status: "in_progress", result: "half" });
      await call("updateGoal", { id, status: "in_progress" });
      expect(await active()).toMatchObject({ status: "in_progress", result: "", completed_at: 0n });
      await call("updateGoal", { id: `${id}-unknown`, status: "failed" });
      await call("updateGoal", { id, status: "cancelled", result: "no" });
      expect(await active()).toBeUndefined();
    },
  },
  {
    name: "GetActiveGoals: priority, then created_at; completed, failed and cancelled are not active, other words are",
    async run({ call, id }) {
      const goals = [
        ["c", 2, 1n, "pending"],
        ["a", 1, 9n, "Completed"],
        ["b", 1, 3n, "blocked"],
        ["d", 0, 1n, "completed"],
        ["e", 0, 1n, "failed"],
        ["f", 0, 1n, "cancelled"],
      ] as const;
      for (const [name, priority, created_at, status] of goals)
        await call("storeGoal", { id: `${id}-${name}`, priority, created_at, status });
      const mine = (await call("getActiveGoals", {})).goals
        .filter((goal) => goal.id.startsWith(id))
        .map((goal) => goal.id.at(-1));
      expect(mine).toEqual(["b", "a", "c"]);
    },
  },
  {
    name: "StoreTask needs its goal; tasks come in the order they started, zero first",
    async run({ call, refused, id }) {
      const { code, message } = await refused("storeTask", { id: `${id}-t`, goal_id: `${id}-none` });
      expect(code).toBe("not_found");
      expect(message).toContain("goal_id");
      expect((await call("getTasksForGoal", { goal_id: `${id}-none` })).tasks).toEqual([]);
      await call("storeGoal", { id, status: "pending" });
      for (const [name, started_at] of [
        ["b", 20n],
        ["p1", 0n],
        ["a", 10n],
        ["p2", 0n],
      ] as const) {
        await call("storeTask", { id: `${id}-${name}`, goal_id: id, started_at, input_json: json({ name }) });
      }
      await call("storeTask", { id: `${id}-a`, goal_id: id, started_at: 30n, status: "completed" });
      const { tasks } = await call("getTasksForGoal", { goal_id: id });
      expect(tasks.map((task) => task.id.slice(id.length + 1))).toEqual(["p1", "p2", "b", "a"]);
      expect(tasks[3]).toMatchObject({ status: "completed", input_json: Buffer.alloc(0) });
    },
  },
  {
    name: "StoreToolCall, StoreDecision and StoreConfigChange refuse an id that is taken, and keep what is there",
    async run({ call, refused, id }) {
      await call("storeToolCall", { id, task_id: "unchecked", tool_name: "fs.read", success: true });
      expect((await refused("storeToolCall", { id, tool_name: "fs.write" })).code).toBe("already_exists");
      await call("storeDecision", { id, context: "which shell", chosen: "zsh", reasoning: "habit" });
      expect((await refused("storeDecision", { id, context: "other" })).code).toBe("already_exists");
      await call("storeConfigChange", { id, file_path: "/etc/x", content: "a", reason: "because" });
      const again = await refused("storeConfigChange", { id, file_path: "/etc/x" });
      expect(again).toMatchObject({ code: "already_exists" });
      expect(again.message).toContain("id");
    },
  },
  {
    name: "FindPattern: the trigger contains the query, ASCII case aside; best rate, then most used; nothing is a wildcard",
    async run({ call, id }) {
      await call("storePattern", {
        id: `${id}-1`,
        trigger: `${id} Disk FULL on /var`,
        action: "clean",
        success_rate: 0.8,
        uses: 3,
      });
      await call("storePattern", {
        id: `${id}-2`,
        trigger: `${id} disk full on /home`,
        action: "grow",
        success_rate: 0.9,
        uses: 1,
      });
      await call("storePattern", {
        id: `${id}-3`,
        trigger: `${id} disk full 100%`,
        action: "alert",
        success_rate: 0.9,
        uses: 7,
      });
      const find = async (trigger: string, min_success_rate = 0) => {
        const { found, pattern } = await call("findPattern", { trigger, min_success_rate });
        expect(found).toBe(pattern !== undefined);
        return pattern?.action;
      };
      expect(await find(`${id} disk full`)).toBe("alert");
      expect(await find(`${id} disk full on`)).toBe("grow");
      expect(await find(`${id} disk full on /var`)).toBe("clean");
      expect(await find(`${id} disk full on /var`, 0.8)).toBe("clean");
      expect(await find(`${id} disk full on /var`, 0.81)).toBeUndefined();
      expect(await find(`${id} disk full on /var and more`)).toBeUndefined();
      expect(await find(`${id} disk%full`)).toBeUndefined();
      expect(await find(`${id} disk_full`)).toBeUndefined();
      expect(await find(`${id} disk full 100%`)).toBe("alert");
    },
  },
  {
    name: "UpdatePatternStats counts with the contract's formula, atomically; an unknown pattern is no error",
    async run({ call, id }) {
      await call("storePattern", { id, trigger: id, success_rate: 0.8, uses: 10 });
      await call("updatePatternStats", { id, success: true });
      const { pattern } = await call("findPattern", { trigger: id });
      expect(pattern).toMatchObject({ uses: 11 });
      expect(pattern?.success_rate).toBeCloseTo(9 / 11, 12);
      expect(Number(pattern?.last_used)).toBeGreaterThan(1_700_000_000);
      await Promise.all(Array.from({ length: 40 }, (_, n) => call("updatePatternStats", { id, success: n % 2 === 0 })));
      const after = (await call("findPattern", { trigger: id })).pattern;
      expect(after?.uses).toBe(51);
      expect(after?.success_rate).toBeCloseTo(29 / 51, 9);
      await call("updatePatternStats", { id: `${id}-unknown`, success: true });
      const full = 2 ** 31 - 1;
      await call("storePattern", { id: `${id}-full`, trigger: `${id} full`, success_rate: 0.5, uses: full });
      await call("updatePatternStats", { id: `${id}-full`, success: true });
      expect((await call("findPattern", { trigger: `${id} full` })).pattern?.uses).toBe(full);
    },
  },
  {
    name: "StoreAgentState replaces; GetAgentState of an unknown agent is not_found",
    async run({ call, refused, id }) {
      await call("storeAgentState", { agent_name: id, state_json: json({ key: "a", value: 1 }), updated_at: 1n });
      await call("storeAgentState", { agent_name: id, state_json: json({ key: "b" }), updated_at: 2n });
      expect(await call("getAgentState", { agent_name: id })).toEqual({
        agent_name: id,
        state_json: json({ key: "b" }),
        updated_at: 2n,
      });
      expect((await refused("getAgentState", { agent_name: `${id}-no` })).code).toBe("not_found");
    },
  },
];
