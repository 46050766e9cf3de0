import { describe, expect, test } from "vitest";
import { observe, type ProviderHealth } from "../../../contracts/execution/health.ts";
import { policy, singleProvider } from "../testkit.ts";
import { HealthBook, outcomesBetween } from "./health.ts";

const breaker = (more: object = {}) => {
  const { breaker: found } = policy({
    ...singleProvider,
    circuit_breaker: { enabled: true, failure_threshold: 3, ...more },
  });
  if (found === undefined) throw new Error("no breaker");
  return found;
};

/** Records as usage workers write them: one after each batch of results. */
function records(...batches: readonly string[]): ProviderHealth[] {
  let health: ProviderHealth | undefined;
  return batches.map((batch) => {
    for (const letter of batch) {
      const outcome = letter === "F" ? "failure" : "success";
      health = observe(health, "acme", "openai", {
        outcome,
        latency_ms: 100,
        cost: 0.01,
        error_code: "",
        at_ms: 1_000,
      });
    }
    if (health === undefined) throw new Error("an empty batch");
    return health;
  });
}

const letters = (outcomes: readonly boolean[]): string => outcomes.map((failed) => (failed ? "F" : "S")).join("");

describe("what happened between two records", () => {
  test.each([
    [["S"], ["S"]],
    [["FFF"], ["FFF"]],
    [["SSF"], ["SSF"]],
    [["FSFS"], ["FSFS"]],
    [["FFSS"], ["FFSS"]],
    [
      ["S", "F", "FS"],
      ["S", "F", "FS"],
    ],
    [["SFSFSFF"], ["SFSFSFF"]],
  ])("%j", (batches, expected) => {
    const found = records(...batches).map((record, at, all) => letters(outcomesBetween(all[at - 1], record)));
    const sorted = (texts: readonly string[]): string[] => texts.map((text) => text.split("").sort().join(""));
    expect(sorted(found)).toEqual(sorted(expected));
    // The run a batch ends with is never lost: it is what opens or closes a circuit.
    for (const [at, text] of found.entries()) expect(text.at(-1)).toBe(expected[at]?.at(-1));
  });

  test("a record that was made anew counts from its beginning", () => {
    const [before] = records("SSSSS");
    const [anew] = records("FF");
    if (before === undefined || anew === undefined) throw new Error("no records");
    expect(letters(outcomesBetween(before, anew))).toBe("FF");
  });
});

describe("the book", () => {
  test("failures in a row open, interleaved ones do not", () => {
    const book = new HealthBook({ now: () => 1_000 });
    const settings = breaker({ error_rate_threshold: 1 });
    expect(book.circuit("acme", "openai", settings)).toBe("closed");
    for (const record of records("FSFSF")) book.take(record);
    expect(book.circuit("acme", "openai", settings)).toBe("closed");
    const other = new HealthBook({ now: () => 1_000 });
    other.circuit("acme", "openai", settings);
    for (const record of records("S", "F", "F", "F")) other.take(record);
    expect(other.circuit("acme", "openai", settings)).toBe("open");
  });

  test("a worker that starts while a provider is down knows it, one that starts long after does not care", () => {
    const down = records("FFFF");
    for (const [now, state] of [
      [2_000, "open"],
      [1_000_000, "closed"],
    ] as const) {
      const book = new HealthBook({ now: () => now });
      for (const record of down) book.take(record);
      expect(book.circuit("acme", "openai", breaker({ timeout_ms: 60_000 }))).toBe(state);
    }
  });

  test("averages of the record are the estimate, and a change is told by the revision", () => {
    const book = new HealthBook({ now: () => 1_000 });
    const before = book.revision;
    for (const record of records("S")) book.take(record);
    expect(book.estimate("acme", "openai")).toEqual({ latencyMs: 100, cost: 0.01 });
    expect(book.revision).toBeGreaterThan(before);
    expect(book.estimate("other", "openai")).toBeUndefined();
  });
});
