import { assert, array, constantFrom, double, integer, property, record, string } from "fast-check";
import { describe, expect, test } from "vitest";
import { assemble, tiersOf, tokensOf, type Offer, type Tier } from "./context.ts";

const offers = (given: Partial<Record<Tier, readonly Offer[]>>): Map<Tier, readonly Offer[]> =>
  new Map(Object.entries(given) as [Tier, Offer[]][]);

describe("tiers", () => {
  test("none named means every one, long_term is longterm, unknown ones are skipped, each counts once", () => {
    expect(tiersOf([])).toEqual(["operational", "working", "longterm", "knowledge"]);
    expect(tiersOf(["long_term", "knowledge", "longterm", "nonsense"])).toEqual(["longterm", "knowledge"]);
    expect(tiersOf(["nonsense"])).toEqual([]);
  });
});

describe("a context", () => {
  test("tokens are a quarter of the UTF-8 bytes, rounded up", () => {
    expect([tokensOf(""), tokensOf("a"), tokensOf("abcd"), tokensOf("abcde"), tokensOf("é多")]).toEqual([
      0, 1, 1, 2, 2,
    ]);
  });

  test("a small budget keeps the best, whatever tier is asked first", () => {
    const { chunks } = assemble(
      offers({
        operational: [{ content: "x".repeat(40), relevance: 0.8 }],
        knowledge: [{ content: "y".repeat(40), relevance: 0.9 }],
      }),
      10,
    );
    expect(chunks.map(({ source }) => source)).toEqual(["knowledge"]);
  });

  test("a chunk too large is skipped, the next is tried", () => {
    const { chunks, total_tokens } = assemble(
      offers({
        longterm: [
          { content: "x".repeat(400), relevance: 1 },
          { content: "small", relevance: 0.3 },
        ],
      }),
      50,
    );
    expect(chunks.map(({ content }) => content)).toEqual(["small"]);
    expect(total_tokens).toBe(2);
  });

  test("equal content is taken once, from where it is most relevant", () => {
    const { chunks } = assemble(
      offers({ longterm: [{ content: "same", relevance: 0.5 }], knowledge: [{ content: " same\n", relevance: 0.9 }] }),
      0,
    );
    expect(chunks.map(({ source, relevance }) => [source, relevance])).toEqual([["knowledge", 0.9]]);
  });

  test("no tier crowds out the others: the tenth event gives way to a goal a little less relevant", () => {
    const events = Array.from({ length: 10 }, (_, n) => ({ content: `event ${n} ${"x".repeat(30)}`, relevance: 0.8 }));
    const { chunks } = assemble(
      offers({ operational: events, working: [{ content: `goal ${"y".repeat(30)}`, relevance: 0.7 }] }),
      50,
    );
    expect(chunks.map(({ source }) => source)).toContain("working");
  });

  test("the default budget is 4000 tokens, a negative one is nothing", () => {
    const many = Array.from({ length: 50 }, (_, n) => ({ content: `${n}`.padEnd(400, "x"), relevance: 0.5 }));
    expect(assemble(offers({ knowledge: many }), 0).total_tokens).toBe(4000);
    expect(assemble(offers({ knowledge: many }), -1)).toEqual({ chunks: [], total_tokens: 0 });
  });

  test("whatever is offered: within the budget, sorted, the same every time", () => {
    const offer = record({ content: string({ maxLength: 60 }), relevance: double({ min: 0, max: 1, noNaN: true }) });
    assert(
      property(
        array(array(offer, { maxLength: 12 }), { maxLength: 4 }),
        integer({ min: 1, max: 60 }),
        constantFrom(true, false),
        (lists, budget, turn) => {
          const names = tiersOf([]);
          const given = new Map(lists.map((list, at) => [names[at] ?? "knowledge", list] as const));
          const { chunks, total_tokens } = assemble(turn ? new Map([...given].toReversed()) : given, budget);
          expect(total_tokens).toBeLessThanOrEqual(budget);
          expect(total_tokens).toBe(chunks.reduce((sum, { tokens }) => sum + tokens, 0));
          const relevances = chunks.map(({ relevance }) => relevance);
          expect(relevances).toEqual(relevances.toSorted((a, b) => b - a));
          expect(new Set(chunks.map(({ content }) => content.trim())).size).toBe(chunks.length);
          expect(assemble(turn ? new Map([...given].toReversed()) : given, budget)).toEqual({ chunks, total_tokens });
        },
      ),
    );
  });
});
