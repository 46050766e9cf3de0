import { expect, test, vi } from "vitest";
import { createSystemClock, isoMicros, ManualClock } from "./clock.ts";

test("micros follow the wall clock, also when it is set", () => {
  vi.useFakeTimers({ toFake: ["Date", "performance"], now: 1_000_000 });
  try {
    const clock = createSystemClock();
    expect(clock.micros()).toBe(1_000_000_000);
    vi.advanceTimersByTime(1);
    expect(clock.micros()).toBe(1_000_001_000);
    vi.setSystemTime(9_000_000);
    expect(clock.micros()).toBe(9_000_000_000);
  } finally {
    vi.useRealTimers();
  }
});

test("microseconds have an ISO form of six digits", () => {
  expect(isoMicros(Date.UTC(2026, 10, 20, 9, 30) * 1000 + 7)).toBe("2026-11-20T09:30:00.000007Z");
  expect(isoMicros(Date.UTC(2026, 10, 20, 9, 30, 0, 123) * 1000 + 456)).toBe("2026-11-20T09:30:00.123456Z");
});

test("a manual clock wakes sleepers in order, each with the time it asked for", async () => {
  const clock = new ManualClock(0);
  const woken: [string, number][] = [];
  const sleeper = async (name: string, ms: number) => {
    await clock.sleep(ms);
    woken.push([name, clock.now()]);
  };
  const all = [sleeper("late", 20), sleeper("early", 10), sleeper("never", 1_000)];
  expect(clock.sleeping).toBe(3);
  await clock.advance(30);
  expect(woken).toEqual([
    ["early", 10],
    ["late", 20],
  ]);
  expect(clock.now()).toBe(30);
  await clock.advance(970);
  await Promise.all(all);
});

test("sleep ends with the signal's reason", async () => {
  for (const clock of [new ManualClock(), createSystemClock()]) {
    const abort = new AbortController();
    const sleeping = clock.sleep(60_000, abort.signal);
    abort.abort(new Error("stopped"));
    await expect(sleeping).rejects.toThrow("stopped");
    await expect(clock.sleep(60_000, abort.signal)).rejects.toThrow("stopped");
  }
});
