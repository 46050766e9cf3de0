import { expect, test } from "vitest";
import { costOf, familyPrice, loadPrices, priceOf } from "./prices.ts";

const table = loadPrices();

test("the name without its release counts, then the family, then nothing", () => {
  expect(priceOf(table, "openai", "gpt-4o-mini-2024-07-18")).toMatchObject({ input: 150_000, output: 600_000 });
  expect(priceOf(table, "openai", "gpt-4o-2024-08-06")).toMatchObject({ input: 2_500_000 });
  expect(priceOf(table, "openai", "gpt-5-pro")).toMatchObject({ output: 120_000_000 });
  expect(priceOf(table, "claude", "claude-3-5-haiku-latest")).toMatchObject({ input: 800_000 });
  expect(priceOf(table, "claude", "claude-3-5-haiku@20241022")).toMatchObject({ input: 800_000 });
  expect(priceOf(table, "claude", "claude-opus-4-5-20251101")).toMatchObject({ input: 5_000_000 });
  // A later model is not an earlier one because its name begins alike.
  expect(priceOf(table, "claude", "claude-opus-4-99")).toEqual(familyPrice(table, "claude"));
  expect(priceOf(table, "claude", "claude-next")).toMatchObject({ input: 3_000_000, output: 15_000_000 });
  expect(priceOf(table, "local", "llama")).toBeUndefined();
});

test("costs are whole micro-dollars, half up; a mere sum of tokens is split half and half", () => {
  const claude = familyPrice(table, "claude");
  expect(costOf(claude, { input: undefined, output: undefined, total: 2_000 })).toBe(18_000);
  expect(costOf(claude, { input: undefined, output: undefined, total: 2_001 })).toBe(18_000);
  expect(costOf({ input: 500_000, output: 0 }, { input: 1, output: 0 })).toBe(1);
  expect(costOf({ input: 499_999, output: 0 }, { input: 1, output: 0 })).toBe(0);
  expect(costOf(undefined, { input: 5, output: 5 })).toBe(0);
});
