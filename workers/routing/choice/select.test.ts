import { describe, expect, test } from "vitest";
import { NOBODY, RoundRobin } from "./select.ts";

const candidate = (weight: number, priority = 0) => ({ weight, priority });

function counts(turns: RoundRobin, calls: number, size: number, usable?: readonly boolean[]): number[] {
  const found = Array.from({ length: size }, () => 0);
  for (let call = 0; call < calls; call++) {
    const at = turns.take(usable);
    if (at !== NOBODY) found[at] = (found[at] ?? 0) + 1;
  }
  return found;
}

describe("R1: everyone gets their share", () => {
  test("70/30 is exactly 70 and 30 of 100, over and over", () => {
    const turns = new RoundRobin([candidate(0.7), candidate(0.3)]);
    for (let round = 0; round < 50; round++) expect(counts(turns, 100, 2)).toEqual([70, 30]);
  });

  test("turns are spread evenly, not in runs", () => {
    const turns = new RoundRobin([candidate(0.5), candidate(0.1), candidate(0.1)]);
    expect(Array.from({ length: 7 }, () => turns.take())).toEqual([0, 0, 1, 0, 2, 0, 0]);
  });

  test("any weights: within one turn of the share after any number of turns", () => {
    const weights = [0.37, 0.21, 0.13, 0.29];
    const turns = new RoundRobin(weights.map((weight) => candidate(weight)));
    const found = [0, 0, 0, 0];
    for (let call = 1; call <= 1_000; call++) {
      const at = turns.take();
      found[at] = (found[at] ?? 0) + 1;
      for (const [i, weight] of weights.entries()) expect(Math.abs((found[i] ?? 0) - weight * call)).toBeLessThan(1.5);
    }
  });
});

describe("R2: weights are proportions", () => {
  test("30/40 over 10,000 calls is 42.9 % and 57.1 % within two points", () => {
    const [a = 0, b = 0] = counts(new RoundRobin([candidate(0.3), candidate(0.4)]), 10_000, 2);
    expect(Math.abs(a / 100 - 42.86)).toBeLessThan(2);
    expect(Math.abs(b / 100 - 57.14)).toBeLessThan(2);
    expect(a + b).toBe(10_000);
  });

  test.each([
    ["all weights 0", [0, 0]],
    ["no candidates", []],
  ])("nobody is chosen with %s", (_, weights) => {
    const turns = new RoundRobin(weights.map((weight) => candidate(weight)));
    expect(turns.take()).toBe(NOBODY);
    expect(turns.peek()).toBe(NOBODY);
  });

  test("a weight of 0 is never chosen", () => {
    expect(counts(new RoundRobin([candidate(0), candidate(1), candidate(0)]), 100, 3)).toEqual([0, 100, 0]);
  });

  test("very small weights count among themselves", () => {
    expect(counts(new RoundRobin([candidate(1e-15), candidate(3e-15)]), 100, 2)).toEqual([25, 75]);
  });
});

describe("R3: ties", () => {
  test("the one listed first goes first", () => {
    expect(new RoundRobin([candidate(0.5), candidate(0.5)]).take()).toBe(0);
  });

  test("the one of higher priority goes first, and the shares stay", () => {
    const turns = new RoundRobin([candidate(0.5, 1), candidate(0.5, 9)]);
    expect(turns.peek()).toBe(1);
    expect(counts(turns, 100, 2)).toEqual([50, 50]);
  });
});

describe("R4: turns can be given back", () => {
  test("a turn given back is as if it had not been taken", () => {
    const turns = new RoundRobin([candidate(0.7), candidate(0.3)]);
    for (let call = 0; call < 200; call++) {
      const before = turns.peek();
      const taken = turns.take();
      turns.giveBack(taken);
      expect(turns.peek()).toBe(before);
      turns.take();
    }
  });

  test("in any order", () => {
    const turns = new RoundRobin([candidate(0.7), candidate(0.3)]);
    const taken = Array.from({ length: 10 }, () => turns.take());
    for (const at of taken.toReversed()) turns.giveBack(at);
    expect(counts(turns, 100, 2)).toEqual([70, 30]);
  });
});

test("what cannot be used is passed over and the rest share by weight", () => {
  const turns = new RoundRobin([candidate(0.5), candidate(0.3), candidate(0.2)]);
  expect(counts(turns, 100, 3, [false, true, true])).toEqual([0, 60, 40]);
  expect(turns.take([false, false, false])).toBe(NOBODY);
});

test("peeking takes no turn", () => {
  const turns = new RoundRobin([candidate(0.6), candidate(0.4)]);
  for (let call = 0; call < 10; call++) expect(turns.peek()).toBe(0);
  expect(counts(turns, 10, 2)).toEqual([6, 4]);
});
