import { expect, test } from "vitest";
import type { BenchCase, Row } from "../case.ts";
import { resultOf, tableOf } from "./report.ts";

const one: BenchCase = { name: "x", title: "t", target: 0.7, aim: 0.85, run: () => Promise.resolve([]) };
const row = (change: Partial<Row>): Row => ({ measure: "m", value: 0.8, pairs: 8, ...change });

test("a row without limits of its own is held to those of its case; null takes none", () => {
  const { rows } = resultOf(one, [row({}), row({ target: null }), row({ target: 2, better: "lower" })], {});
  expect(rows.map(({ target, aim, better }) => [target, aim, better])).toEqual([
    [0.7, 0.85, "higher"],
    [null, null, "higher"],
    [2, null, "lower"],
  ]);
});

test("the table says what was reached", () => {
  const verdicts = (change: Partial<Row>): string | undefined =>
    /\| (\w*) +\|$/m.exec(tableOf(resultOf(one, [row(change)], {})).split("\n")[6] ?? "")?.[1];
  expect(verdicts({ value: 0.8 })).toBe("target");
  expect(verdicts({ value: 0.9 })).toBe("aim");
  expect(verdicts({ value: 0.6 })).toBe("no");
  expect(verdicts({ value: 1.2, target: 2, aim: 1.3, better: "lower" })).toBe("aim");
  expect(verdicts({ value: 2.2, target: 2, aim: 1.3, better: "lower" })).toBe("no");
});

test("a measurement that gave nothing is no result, and few pairs are marked", () => {
  expect(() => resultOf(one, [row({ value: Number.NaN })], {})).toThrow("nothing was measured");
  expect(tableOf(resultOf(one, [row({ pairs: 2 })], {}))).toContain("not a result");
});
