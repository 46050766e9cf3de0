import { expect, test } from "vitest";
import { ManualClock } from "./clock.ts";
import { createIds, createSeededRandom, createSystemRandom, systemIds } from "./ids.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("ids have the form, version and variant of RFC 9562", () => {
  expect(UUID.exec(systemIds.v4())?.[1]).toBe("4");
  expect(UUID.exec(systemIds.v7())?.[1]).toBe("7");
});

test("v7 carries the time in its first 48 bits", () => {
  const clock = new ManualClock(0x0123_4567_89ab);
  expect(createIds(clock, createSeededRandom(1)).v7()).toMatch(/^01234567-89ab-7/);
});

test("v7 sorts by making: within a millisecond, past its counter, and when the clock is set back", async () => {
  const clock = new ManualClock(1_000_000);
  const ids = createIds(clock, createSeededRandom(1));
  const made = Array.from({ length: 10_000 }, () => ids.v7());
  await clock.advance(-500);
  made.push(...Array.from({ length: 10 }, () => ids.v7()));
  await clock.advance(5_000);
  made.push(ids.v7());
  expect(new Set(made).size).toBe(made.length);
  expect([...made].sort()).toEqual(made);
});

test("the same seed gives the same ids and bytes", () => {
  const make = (seed: number) => createIds(new ManualClock(0), createSeededRandom(seed));
  expect(make(7).v4()).toBe(make(7).v4());
  expect(make(7).v4()).not.toBe(make(8).v4());
  const random = createSeededRandom(3);
  const floats = Array.from({ length: 1_000 }, () => random.float());
  expect(floats.every((value) => value >= 0 && value < 1)).toBe(true);
  expect(floats.reduce((sum, value) => sum + value) / 1_000).toBeCloseTo(0.5, 1);
});

test("system bytes are fresh each time, also across blocks and beyond one", () => {
  const random = createSystemRandom();
  const seen = new Set(Array.from({ length: 2_000 }, () => Buffer.from(random.bytes(16)).toString("hex")));
  expect(seen.size).toBe(2_000);
  expect(random.bytes(10_000)).toHaveLength(10_000);
});
