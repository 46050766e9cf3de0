import { expect, test } from "vitest";
import { ManualClock } from "./clock.ts";
import { OpenError, Scope, ScopeClosedError } from "./lifecycle.ts";
import type { Deadline } from "./lifecycle.ts";

/** A scope on a clock that stands still, and the order in which things happened. */
function world(drainMs = 10_000) {
  const clock = new ManualClock(0);
  const events: string[] = [];
  const scope = new Scope({ clock, drainMs });
  const closes = (name: string) => () => {
    events.push(name);
  };
  return { clock, events, scope, closes };
}

const never = () => new Promise<never>(() => {});

test("L1: ready turns false before anything closes", async () => {
  const { scope, events } = world();
  scope.use("bus", {}, () => events.push(`bus while ${scope.health.phase}`));
  scope.draining.addEventListener("abort", () => events.push(`told while ${scope.health.phase}`));
  expect(scope.health.phase).toBe("starting");
  scope.ready();
  expect((await scope.health.ready()).ok).toBe(true);
  await scope.close();
  expect(events).toEqual(["told while draining", "bus while draining"]);
  expect(scope.health.phase).toBe("stopped");
  expect(scope.health.live()).toBe(false);
});

test("L2: what was opened last closes first, one at a time", async () => {
  const { scope, events, closes } = world();
  scope.use("telemetry", {}, closes("telemetry"));
  expect(await scope.open("bus", () => Promise.resolve("a bus"), closes("bus"))).toBe("a bus");
  scope.use("intake", {}, async () => {
    await Promise.resolve();
    events.push("intake");
  });
  expect(await scope.close()).toMatchObject({ ok: true, failures: [] });
  expect(events).toEqual(["intake", "bus", "telemetry"]);
});

test("L3: a close may take the time it needs, and is told how much there is", async () => {
  const { scope, clock, events, closes } = world(10_000);
  let told: Deadline | undefined;
  scope.use("bus", {}, closes("bus"));
  scope.use("intake", {}, async (_, deadline) => {
    told = deadline;
    await clock.sleep(9_000);
    events.push("intake");
  });
  const closing = scope.close();
  expect(told?.remainingMs()).toBe(9_500);
  await clock.advance(9_000);
  expect(await closing).toMatchObject({ ok: true, tookMs: 9_000 });
  expect(events).toEqual(["intake", "bus"]);
  expect(told?.remainingMs()).toBe(500);
});

test("L4: each close gets its turn, even when another one throws or hangs", async () => {
  const { scope, clock, events, closes } = world(10_000);
  let turn: Deadline | undefined;
  scope.use("telemetry", {}, closes("telemetry"));
  scope.use("slow", {}, async (_, deadline) => {
    turn = deadline;
    await never();
  });
  scope.use("broken", {}, () => {
    throw new Error("broken");
  });
  scope.use("hanging", {}, never);
  const closing = scope.close();
  await clock.advance(8_500);
  expect(turn?.remainingMs()).toBe(10_000 - 8_500 - 500);
  expect(turn?.signal.aborted).toBe(false);
  await clock.advance(1_500);
  const report = await closing;
  expect(turn?.signal.aborted).toBe(true);
  expect(events).toEqual(["telemetry"]);
  expect(report.ok).toBe(false);
  expect(report.failures).toMatchObject([
    { name: "hanging", reason: "late" },
    { name: "broken", reason: "threw", error: new Error("broken") },
    { name: "slow", reason: "late" },
  ]);
  expect(report.tookMs).toBeLessThanOrEqual(10_000);
  expect(clock.sleeping).toBe(0);
});

test("a failure while opening closes what was opened and names the resource", async () => {
  const { scope, events, closes } = world();
  scope.use("telemetry", {}, closes("telemetry"));
  await scope.open("bus", () => ({}), closes("bus"));
  const opening = scope.open("index", () => Promise.reject(new Error("refused")), closes("index"));
  await expect(opening).rejects.toThrow(OpenError);
  await expect(opening).rejects.toThrow("index could not be opened: refused");
  expect(events).toEqual(["bus", "telemetry"]);
});

test("what is being opened when the drain begins is told, awaited, and closed in its place", async () => {
  const { scope, events, closes } = world();
  scope.use("telemetry", {}, closes("telemetry"));
  const gate = Promise.withResolvers<object>();
  let told = false;
  const opening = scope.open(
    "bus",
    (signal) => {
      signal.addEventListener("abort", () => (told = true));
      return gate.promise;
    },
    closes("bus"),
  );
  const closing = scope.close();
  expect(told).toBe(true);
  gate.resolve({});
  await expect(opening).rejects.toThrow(ScopeClosedError);
  expect(await closing).toMatchObject({ ok: true });
  expect(events).toEqual(["bus", "telemetry"]);
  scope.ready();
  expect(scope.health.phase).toBe("stopped");
});

test("an opening that gives up because of the drain is no failure", async () => {
  const { scope } = world();
  const opening = scope.open(
    "bus",
    (signal) =>
      new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(new Error("given up")));
      }),
  );
  const closing = scope.close();
  await expect(opening).rejects.toThrow(ScopeClosedError);
  expect((await closing).ok).toBe(true);
});

test("nothing stays open that comes after the drain", async () => {
  const { scope, events, closes } = world();
  await scope.close();
  expect(() => scope.use("late", {}, closes("late"))).toThrow(ScopeClosedError);
  expect(events).toEqual(["late"]);
  await expect(scope.open("later", () => ({}), closes("later"))).rejects.toThrow(ScopeClosedError);
  expect(events).toEqual(["late"]);
});

test("closing again gives the same report; leaving a block closes", async () => {
  const { events, closes } = world();
  let seen: Scope | undefined;
  {
    await using scope = new Scope();
    seen = scope;
    scope.use("bus", {}, closes("bus"));
  }
  expect(events).toEqual(["bus"]);
  expect(await seen.close()).toBe(await seen.close());
});

test("a scope inside another closes in its place, passes failures on, and counts for readiness", async () => {
  const { scope, events, closes } = world();
  scope.use("bus", {}, closes("bus"));
  const inner = scope.child("routing");
  inner.use("store", {}, closes("store"));
  inner.use("broken", {}, () => Promise.reject(new Error("broken")));
  scope.ready();
  expect(await scope.health.ready()).toMatchObject({
    ok: false,
    parts: { routing: { ok: false, detail: "process: starting" } },
  });
  inner.ready();
  expect(await scope.health.ready()).toMatchObject({ ok: true, parts: { routing: { ok: true } } });
  const report = await scope.close();
  expect(events).toEqual(["store", "bus"]);
  expect(report.failures).toMatchObject([{ name: "routing", reason: "threw", error: new Error("not closed: broken") }]);
});

test("one inside another that hangs reports in time", async () => {
  const { scope, clock, events, closes } = world(10_000);
  scope.use("bus", {}, closes("bus"));
  scope.child("routing").use("hanging", {}, never);
  const closing = scope.close();
  await clock.advance(9_500);
  expect((await closing).failures).toMatchObject([{ name: "routing", error: new Error("not closed: hanging") }]);
  expect(events).toEqual(["bus"]);
});
