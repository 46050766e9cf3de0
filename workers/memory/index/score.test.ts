import { assert, double, property, string } from "fast-check";
import { expect, test } from "vitest";
import { cosine, keywordScore, relevance, unit, wordsOf } from "./score.ts";

test("words are lower case, without punctuation around them, each once; words that say nothing only when there are no others", () => {
  expect(wordsOf('  How do I restart "Nginx", nginx?  ')).toEqual(["restart", "nginx"]);
  expect(wordsOf("what is it")).toEqual(["what", "is", "it"]);
  expect(wordsOf("c++ (v1.2)")).toEqual(["c", "v1.2"]);
  expect(wordsOf(" \t\n")).toEqual([]);
  expect(wordsOf("多 ÄRGER")).toEqual(["多", "ärger"]);
  expect(wordsOf("disk\u0000full\u0007 now?")).toEqual(["disk", "full", "now"]);
});

test("of a query without end the first 200 words are looked for", () => {
  const words = Array.from({ length: 100_000 }, (_, n) => `word${n}`);
  expect(wordsOf(words.join(" "))).toEqual(words.slice(0, 200));
  // A run of punctuation inside a word is passed once, not once for each of its characters: that would take hours.
  expect(wordsOf(`--a${"-".repeat(3_000_000)}a`)).toEqual(["a"]);
});

test("the keyword score is the share of words found somewhere in the text; a query without words makes 0.2 of everything", () => {
  expect(keywordScore(["disk", "full"], "The DISK is fully used")).toBe(1);
  expect(keywordScore(["disk", "printer"], "a disk")).toBe(0.5);
  expect(relevance(0, keywordScore([], "anything"))).toBeCloseTo(0.2);
});

test("relevance is between 0 and 1, grows with either part, and words alone reach 0.4", () => {
  expect(relevance(0, 1)).toBeCloseTo(0.4);
  expect(relevance(0, 0.5)).toBeCloseTo(0.1);
  expect(relevance(1, 1)).toBe(1);
  expect(relevance(-1, 0)).toBe(0);
  const anything = double({ min: -1, max: 1, noNaN: true });
  assert(
    property(anything, double({ min: 0, max: 1, noNaN: true }), (meaning, words) => {
      expect(relevance(meaning, words)).toBeGreaterThanOrEqual(0);
      expect(relevance(meaning, words)).toBeLessThanOrEqual(1);
      expect(relevance(meaning, 1)).toBeGreaterThanOrEqual(relevance(meaning, words));
    }),
  );
});

test("any text can be scored", () => {
  assert(
    property(string(), string(), (query, text) => {
      expect(keywordScore(wordsOf(query), text)).toBeGreaterThanOrEqual(0);
    }),
  );
});

test("vectors of length 1", () => {
  expect(cosine(unit([3, 4]), unit([3, 4]))).toBeCloseTo(1);
  expect(cosine(unit([1, 0]), unit([0, 5]))).toBe(0);
  expect([...unit([0, 0])]).toEqual([0, 0]);
});
