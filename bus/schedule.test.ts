import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { StreamSpec } from "../contracts/streams.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import type { Bus } from "./connect.ts";
import { consume, type MessageContext } from "./consume.ts";
import { cancel, schedule, scheduled, TIMER_HEADER, type TimerOptions } from "./schedule.ts";
import { ensureStreams } from "./streams.ts";
import { testStream } from "./streams.testbed.ts";

let nats: TestNats;
let bus: Bus;
const spec = testStream("TIMERS", ["log.timers.>", "retry.timers.>", "sched.timers.>"]);
const fired: { name: string; text: string; at: number; context: MessageContext }[] = [];
const firedFor = (name: string) => fired.filter((one) => one.name === name);

beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
  await ensureStreams(bus, [spec]);
  await consume(bus, {
    stream: spec,
    durable: "timers",
    filterSubjects: ["log.timers.>"],
    handler: async (payload, context) => {
      const name = context.subject.slice("log.timers.".length);
      fired.push({ name, text: Buffer.from(payload).toString(), at: context.timestampMs, context });
    },
  });
});
afterAll(() => nats.stop());

const set = (name: string, text: string, when: TimerOptions["when"], more: Partial<TimerOptions> = {}) =>
  schedule(bus, spec, { key: ["test", name], when, target: `log.timers.${name}`, payload: text, ...more });

describe("timers", () => {
  test("fire on time, with payload and headers, once", async () => {
    const due = Date.now() + 700;
    const { id } = await set(
      "once",
      "hello",
      { at: due },
      { headers: { tenant_id: "t", "Nats-Msg-Id": "not-copied" } },
    );
    expect(await scheduled(bus, spec, ["test", "once"])).toBe(id);
    const [one] = await until(() => firedFor("once").length > 0 && firedFor("once"));
    expect(one?.at).toBeGreaterThanOrEqual(due - 5);
    expect(one?.at).toBeLessThan(due + 500);
    expect(one?.text).toBe("hello");
    expect(one?.context.headers).toMatchObject({ tenant_id: "t", [TIMER_HEADER]: id });
    expect(one?.context.msgId).toBeUndefined();
    await until(async () => (await scheduled(bus, spec, ["test", "once"])) === undefined);
  });

  test("one whose time has passed fires at once", async () => {
    await set("past", "late", { at: Date.now() - 60_000 });
    await until(() => firedFor("past").length === 1);
  });

  test("E1: setting it again replaces it", async () => {
    await set("again", "old", { delayMs: 60_000 });
    await set("again", "new", { delayMs: 100 });
    await until(() => firedFor("again").length > 0);
    expect(firedFor("again").map(({ text }) => text)).toEqual(["new"]);
    expect(await scheduled(bus, spec, ["test", "again"])).toBeUndefined();
  });

  test("E1: with an id, setting it again changes nothing, also after it fired", async () => {
    await set("id", "a", { delayMs: 50 }, { msgId: "id-1" });
    await set("id", "b", { delayMs: 50 }, { msgId: "id-1" });
    await until(() => firedFor("id").length > 0);
    await set("id", "c", { delayMs: 50 }, { msgId: "id-1" });
    expect(await scheduled(bus, spec, ["test", "id"])).toBeUndefined();
    expect(firedFor("id").map(({ text }) => text)).toEqual(["a"]);
  });

  test("E2: what was cancelled does not fire", async () => {
    await set("cancelled", "x", { delayMs: 300 });
    expect(await cancel(bus, spec, ["test", "cancelled"])).toBe(true);
    expect(await cancel(bus, spec, ["test", "cancelled"])).toBe(false);
    // A later timer has fired: the cancelled one would have, too.
    await set("witness", "x", { delayMs: 700 });
    await until(() => firedFor("witness").length === 1);
    expect(firedFor("cancelled")).toEqual([]);
  });

  test("E1: of several settings at once one remains", async () => {
    await Promise.all(Array.from({ length: 10 }, (_, i) => set("crowd", `${i}`, { delayMs: 800 })));
    const id = await scheduled(bus, spec, ["test", "crowd"]);
    await set("crowd-over", "x", { delayMs: 1_300 });
    await until(() => firedFor("crowd-over").length === 1);
    expect(firedFor("crowd").map(({ context }) => context.headers[TIMER_HEADER])).toEqual([id]);
  });

  test("E1, E2: replaced at the very moment it fires, the new timer is not lost", async () => {
    const count = 50;
    const ids = new Map<number, string>();
    await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const due = Date.now() + 400;
        await set(`moment${i}`, "old", { at: due });
        await until(() => Date.now() >= due - 10 + (i % 50));
        ids.set(i, (await set(`moment${i}`, "new", { delayMs: 600 })).id);
      }),
    );
    const news = (i: number) =>
      firedFor(`moment${i}`).filter(({ context }) => context.headers[TIMER_HEADER] === ids.get(i));
    await until(() => Array.from({ length: count }, (_, i) => news(i).length).every((times) => times === 1));
  });

  test("E2: cancelled at the very moment it fires, it is gone or it comes, and what comes carries its id", async () => {
    const count = 60;
    const ids = new Map<string, string>();
    const outcomes = await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const due = Date.now() + 400;
        const { id } = await set(`race${i}`, "x", { at: due });
        ids.set(`race${i}`, id);
        await until(() => Date.now() >= due - 15 + i);
        return cancel(bus, spec, ["test", `race${i}`]);
      }),
    );
    await set("race-over", "x", { delayMs: 500 });
    await until(() => firedFor("race-over").length === 1);
    const came = fired.filter(({ name }) => ids.has(name));
    expect(came.filter(({ name, context }) => context.headers[TIMER_HEADER] !== ids.get(name))).toEqual([]);
    expect(new Set(came.map(({ name }) => name)).size).toBe(came.length);
    // Not cancelled means that it came.
    const kept = outcomes.flatMap((gone, i) => (gone ? [] : [`race${i}`]));
    expect(kept.filter((name) => firedFor(name).length !== 1)).toEqual([]);
  });

  test("again and again: every so often and by cron, until cancelled", async () => {
    await set("every", "e", { everyMs: 1_000 });
    await set("cron", "c", { cron: "* * * * * *", timeZone: "Europe/Berlin" });
    await until(() => firedFor("every").length >= 2 && firedFor("cron").length >= 2);
    expect(await cancel(bus, spec, ["test", "every"])).toBe(true);
    expect(await cancel(bus, spec, ["test", "cron"])).toBe(true);
    const counts = [firedFor("every").length, firedFor("cron").length];
    await set("repeats-over", "x", { delayMs: 1_500 });
    await until(() => firedFor("repeats-over").length === 1);
    // At most the one that was on its way to us.
    expect(firedFor("every").length - (counts[0] ?? 0)).toBeLessThanOrEqual(1);
    expect(firedFor("cron").length - (counts[1] ?? 0)).toBeLessThanOrEqual(1);
  });

  test("E3: the stream's age limit does not take it", async () => {
    const brief: StreamSpec = {
      ...spec,
      name: "BRIEF",
      subjects: ["log.brief.>", "sched.brief.>"],
      maxAgeMs: 500,
      duplicateWindowMs: 500,
    };
    await ensureStreams(bus, [brief]);
    await schedule(bus, brief, { key: ["k"], when: { delayMs: 1_800 }, target: "log.brief.a", payload: "x" });
    await until(async () => (await bus.jsm.streams.getMessage("BRIEF", { last_by_subj: "log.brief.a" })) !== null);
  });

  test("what cannot be is refused", async () => {
    await expect(set("bad", "x", { cron: "nonsense" })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(set("bad", "x", { everyMs: 10 })).rejects.toMatchObject({
      code: "invalid_argument",
      field: "everyMs",
    });
    await expect(set("bad", "x", { at: NaN })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(set("bad", "x", { delayMs: 1 }, { target: "log.elsewhere" })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    const without = { ...spec, schedules: false };
    await expect(
      schedule(bus, without, { key: ["k"], when: { at: 0 }, target: "log.timers.x", payload: "" }),
    ).rejects.toMatchObject({
      code: "failed_precondition",
    });
  });

  verifies("crash-safe", "timers survive kill -9 of the server, also when they come due while it is dead", async () => {
    await set("dead", "x", { delayMs: 300 });
    await set("later", "x", { delayMs: 2_500 });
    await nats.server.kill();
    await until(() => !bus.connected);
    const down = Date.now();
    await until(() => Date.now() - down > 500);
    await nats.server.restart();
    await until(() => firedFor("dead").length === 1 && firedFor("later").length === 1);
    expect([firedFor("dead").length, firedFor("later").length]).toEqual([1, 1]);
  });
});
