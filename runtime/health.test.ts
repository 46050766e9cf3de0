import { expect, test } from "vitest";
import { ManualClock } from "./clock.ts";
import { createHealth } from "./health.ts";

test("ready only while serving, and only when every part is", async () => {
  const health = createHealth();
  expect(await health.ready()).toEqual({ ok: false, parts: { process: { ok: false, detail: "starting" } } });
  health.phase = "serving";
  expect(await health.ready()).toEqual({ ok: true, parts: { process: { ok: true } } });
  let connected = true;
  health.add("bus", () => connected);
  health.add("index", () => Promise.resolve({ ok: true, detail: "embedded" }));
  expect(await health.ready()).toEqual({
    ok: true,
    parts: { process: { ok: true }, bus: { ok: true }, index: { ok: true, detail: "embedded" } },
  });
  connected = false;
  expect((await health.ready()).ok).toBe(false);
  connected = true;
  health.phase = "draining";
  expect((await health.ready()).ok).toBe(false);
  expect(health.live()).toBe(true);
});

test("a check that throws or hangs is a part that is not ready", async () => {
  const clock = new ManualClock();
  const health = createHealth({ timeoutMs: 50, clock });
  health.phase = "serving";
  health.add("throws", () => {
    throw new Error("connection refused");
  });
  health.add("leaks", () => Promise.reject(new Error("password hunter2 is wrong")));
  health.add("hangs", () => new Promise<never>(() => {}));
  const asked = health.ready();
  await clock.advance(50);
  expect((await asked).parts).toEqual({
    process: { ok: true },
    throws: { ok: false, detail: "connection refused" },
    leaks: { ok: false, detail: "[REDACTED]" },
    hangs: { ok: false, detail: "no answer within 50 ms" },
  });
});

test("many who ask at a time ask the parts once", async () => {
  const health = createHealth();
  health.phase = "serving";
  let asked = 0;
  const remove = health.add("bus", () => ++asked > 0);
  await Promise.all([health.ready(), health.ready(), health.ready()]);
  expect(asked).toBe(1);
  await health.ready();
  expect(asked).toBe(2);
  remove();
  expect(await health.ready()).toEqual({ ok: true, parts: { process: { ok: true } } });
});
