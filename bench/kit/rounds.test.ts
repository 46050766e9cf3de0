import { availableParallelism } from "node:os";
import { describe, expect, test } from "vitest";
import type { Load, Sample, Side } from "../case.ts";
import { alternate, median, needs, quantile, rowOf } from "./rounds.ts";

const sampleOf = (perSecond: number, cpuUs: Record<string, number> = {}): Sample => ({
  count: perSecond,
  seconds: 1,
  cpuUs,
  others: 0,
});

describe("rounds", () => {
  test("median and quartiles lie between the nearest", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(quantile([0, 10, 20, 30, 40], 0.25)).toBe(10);
    expect(median([])).toBeNaN();
  });

  test("a call needs its busiest process, or everybody's share of the cores", () => {
    const cores = availableParallelism();
    expect(needs(sampleOf(1, { edge: 70, client: 5 }))).toBe(Math.max(70, 75 / cores));
    const even = Object.fromEntries(Array.from({ length: cores * 2 }, (_, i) => [`p${i}`, 10]));
    expect(needs(sampleOf(1, even))).toBe(20);
  });

  test("a ratio is the median over pairs, not of medians", () => {
    const side = (label: string): Side => ({ label, processes: {}, load: () => Promise.reject(new Error("not run")) });
    const rounds = [
      [sampleOf(50, { a: 20 }), sampleOf(100, { b: 10 })],
      [sampleOf(900, { a: 20 }), sampleOf(1000, { b: 10 })],
      [sampleOf(70, { a: 20 }), sampleOf(100, { b: 10 })],
    ];
    const row = rowOf({ measure: "a ÷ b", over: side("a"), under: side("b") }, rounds);
    expect(row.value).toBe(0.7);
    expect(row.byCpu).toBe(0.5);
    expect(row.pairs).toBe(3);
    expect(row.sides?.map(({ label, perSecond }) => [label, perSecond])).toEqual([
      ["a", 70],
      ["b", 100],
    ]);
  });

  test("who begins changes from round to round, and the warm-up is not counted", async () => {
    const order: string[] = [];
    const side = (label: string): Side => ({
      label,
      processes: { self: process.pid },
      load(): Promise<Load> {
        order.push(label);
        return Promise.resolve({ count: 1, seconds: 1 });
      },
    });
    const rounds = await alternate([side("a"), side("b")], 3, () => undefined);
    expect(rounds).toHaveLength(3);
    expect(order.slice(-6).join("")).toBe("abbaab");
  });
});
