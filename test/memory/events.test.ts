/** The ring of events beyond the probes of the contract, and records of the log that nobody can read. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Scope } from "../../runtime/lifecycle.ts";
import { connectRedis } from "../../workers/connect.redis.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

let world: World;
let worker: Scope;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  worker = await world.worker({ BEAMLINE_MEMORY_EVENTS: "250" });
}, 60_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

test("ordinary and critical events come in one order of arrival, in pages and by filters, the critical ones beyond the ring", async () => {
  const options = { tenant: "ring" };
  for (let n = 0; n < 300; n++) {
    const category = n % 2 === 0 ? 'ev"en' : "odd\\";
    await world.call("pushEvent", { id: `e${n}`, category, source: `s${n % 3}`, critical: n % 10 === 0 }, options);
  }
  const ids = async (request: object): Promise<number[]> =>
    (await world.call("getRecentEvents", request, options)).events.map(({ id }) => Number(id.slice(1)));
  const critical = (n: number): boolean => n % 10 === 0;
  const ordinary = Array.from({ length: 300 }, (_, n) => 299 - n).filter((n) => !critical(n));
  const kept = new Set(ordinary.slice(0, 250));
  const all = Array.from({ length: 300 }, (_, n) => 299 - n).filter((n) => kept.has(n) || critical(n));
  expect(await ids({ count: -1 })).toEqual(all);
  expect(await ids({ count: 25 })).toEqual(all.slice(0, 25));
  expect(await ids({ count: 0 })).toEqual([]);
  expect(await ids({ count: 30, category: 'ev"en', source: "s1" })).toEqual(
    all.filter((n) => n % 2 === 0 && n % 3 === 1).slice(0, 30),
  );
  expect(await ids({ count: -1, category: "odd\\" })).toEqual(all.filter((n) => n % 2 === 1));
  expect(await ids({ count: 5, category: "odd" })).toEqual([]);
});

test("the newest events are whole whatever kind comes next, and with a Redis that has just been emptied", async () => {
  const options = { tenant: "turns" };
  const ids = async (): Promise<string[]> =>
    (await world.call("getRecentEvents", { count: 3 }, options)).events.map(({ id }) => id);
  const push = (id: string, more: object = {}) => world.call("pushEvent", { id, timestamp: 5n, ...more }, options);
  expect(await ids()).toEqual([]);
  await push("plain");
  expect(await ids()).toEqual(["plain"]);
  await push("untimed", { timestamp: 0n });
  expect(await ids()).toEqual(["untimed", "plain"]);
  for (const id of ["a", "b", "c"]) await push(id);
  expect(await ids()).toEqual(["c", "b", "a"]);
  expect(await ids()).toEqual(["c", "b", "a"]);
  await push("critical", { critical: true });
  expect(await ids()).toEqual(["critical", "c", "b"]);
  await push("last");
  expect(await ids()).toEqual(["last", "critical", "c"]);
  await until(async () => (await world.bus.jsm.streams.info("MEMORY_RECENT")).state.messages > 0);
  const redis = await connectRedis(world.redis.url, "test");
  await redis.redis.flushall();
  await redis.close();
  expect(await ids()).toEqual(["last", "critical", "c"]);
});

test("an event with an id and without a timestamp is the same event whenever it is pushed, and has the time of its arrival", async () => {
  const options = { tenant: "untimed" };
  const before = BigInt(Math.floor(Date.now() / 1000));
  for (let n = 0; n < 3; n++) await world.call("pushEvent", { id: "once", category: "c" }, options);
  await world.call("pushEvent", { id: "timed", timestamp: 5n }, options);
  const { events } = await world.call("getRecentEvents", { count: 10 }, options);
  expect(events.map(({ id }) => id)).toEqual(["timed", "once"]);
  expect(events[0]?.timestamp).toBe(5n);
  expect(events[1]?.timestamp).toBeGreaterThanOrEqual(before);
});

verifies(
  "clear-failure",
  "memory: a poison record becomes a dead letter, and what comes after it is applied; a rebuild leaves it out too",
  async () => {
    const letters = async (subject: string): Promise<number> => {
      const { state } = await world.bus.jsm.streams.info("DLQ", { subjects_filter: `dlq.${subject}` });
      return state.subjects?.[`dlq.${subject}`] ?? 0;
    };
    await world.call("storeGoal", { id: "good", status: "pending" });
    const poison = [
      ["log.memory.rec.default.goal.bad", "{not json"],
      ["log.memory.rec.default.knowledge.bad", '{"kind":"nothing"}'],
      ["log.memory.critical.default", '{"v":1,"events":[{"at":1,"e":5}]}'],
      ["log.memory.recent.default", "[]"],
    ] as const;
    for (const [subject, text] of poison) await world.bus.js.publish(subject, text);
    await until(async () => (await letters("MEMORY.memory-hot-state")) === 3, "dead letters of hot state");
    await until(async () => (await letters("MEMORY.memory-the-search-index")) === 1, "a dead letter of the index");
    const letter = await world.bus.jsm.streams.getMessage("DLQ", {
      last_by_subj: "dlq.MEMORY.memory-the-search-index",
    });
    expect(letter?.string()).toContain("log.memory.rec.default.knowledge.bad");
    await world.call("storeGoal", { id: "after", status: "pending" });
    await worker.close();
    const redis = await connectRedis(world.redis.url, "test");
    await redis.redis.flushall();
    await redis.close();
    worker = await world.worker();
    expect((await world.call("getActiveGoals", {})).goals.map(({ id }) => id)).toEqual(["good", "after"]);
    // The ordinary ones are read when hot state is built, and once more a moment later.
    expect([await letters("MEMORY.memory-hot-state"), await letters("MEMORY_RECENT.memory-hot-state")]).toEqual([3, 1]);
  },
);
