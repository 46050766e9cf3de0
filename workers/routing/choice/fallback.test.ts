import { describe, expect, test } from "vitest";
import { backoffMs, chooseFallback } from "./fallback.ts";
import { policy } from "../testkit.ts";

const rules = (...fallbacks: object[]) => policy({ providers: [{ name: "a", weight: 0 }], fallbacks }).rules;
const ports = { usable: () => true, random: () => 0 };
const choose = (
  list: ReturnType<typeof rules>,
  context: Record<string, unknown>,
  usable: (provider: string) => boolean = () => true,
) => chooseFallback(list, { tenant: "acme", context }, { ...ports, usable });

describe("F1: the first rule that has something to offer", () => {
  test("in order", () => {
    const list = rules({ when: { status: ["5xx"] }, to: "x", retry: 0 }, { when: {}, to: "y", retry: 0 });
    expect(choose(list, { status: "5xx" })?.provider).toBe("x");
    expect(choose(list, { status: "timeout" })?.provider).toBe("y");
    expect(choose(list, {})?.provider).toBe("y");
  });

  test("none", () => {
    expect(choose(rules({ when: { status: ["5xx"] }, to: "x", retry: 0 }), {})).toBeUndefined();
    expect(choose([], {})).toBeUndefined();
  });
});

describe("F2: tries on the current provider", () => {
  const list = rules({
    when: { status: ["timeout"] },
    to: "y",
    retry: 2,
    backoff: { strategy: "exponential", base_ms: 100, jitter: false },
  });
  const id = list[0]?.id ?? "";

  test.each([
    ["the first", {}, "retry", "a", { retry_attempt: "1", retry_max: "2", backoff_ms: "100", backoff_applied: "true" }],
    [
      "the second, counted by the rule's own key",
      { [`retry_attempts_${id}`]: 1 },
      "retry",
      "a",
      { retry_attempt: "2", backoff_ms: "200" },
    ],
    ["the second, counted as text", { [`retry_attempts_${id}`]: "1" }, "retry", "a", { retry_attempt: "2" }],
    [
      "the second, told by the last decision's metadata",
      { fallback_rule_id: id, retry_attempt: "1" },
      "retry",
      "a",
      { retry_attempt: "2" },
    ],
    [
      "another rule's tries do not count",
      { fallback_rule_id: "other", retry_attempt: "2" },
      "retry",
      "a",
      { retry_attempt: "1" },
    ],
    [
      "used up",
      { [`retry_attempts_${id}`]: 2 },
      "fallback",
      "y",
      { retry_attempts_used: "2", retry_max: "2", fallback_applied: "true" },
    ],
  ])("%s", (_, context, reason, provider, metadata) => {
    const choice = choose(list, { status: "timeout", current_provider: "a", ...context });
    expect(choice).toMatchObject({ reason, provider });
    expect(choice?.metadata).toMatchObject({ fallback_rule_id: id, ...metadata });
  });

  test("with nobody to try again the rule is passed over", () => {
    expect(choose(list, { status: "timeout" })).toBeUndefined();
    expect(choose([...list, ...rules({ when: {}, to: "z", retry: 0 })], { status: "timeout" })?.provider).toBe("z");
  });

  test("a provider that cannot be used is not tried again", () => {
    expect(choose(list, { status: "timeout", current_provider: "a" }, (provider) => provider !== "a")).toMatchObject({
      reason: "fallback",
      provider: "y",
    });
  });

  test("retry 0 goes on at once", () => {
    expect(choose(rules({ when: {}, to: "y", retry: 0 }), { current_provider: "a" })).toMatchObject({
      reason: "fallback",
      provider: "y",
    });
  });
});

describe("F3: what is tried in place", () => {
  const list = rules({ when: {}, prefer: ["p", "q"], to: "r", retry: 0 });

  test.each([
    [[], "p"],
    [["p"], "q"],
    [["p", "q"], "r"],
    [["p", "q", "r"], undefined],
  ])("without %j", (broken, provider) => {
    expect(choose(list, {}, (one) => !broken.includes(one))?.provider).toBe(provider);
  });
});

describe("backoff", () => {
  const config = { strategy: "exponential", base_ms: 100, max_ms: 5_000, jitter: false } as const;

  test.each([
    ["exponential", [100, 200, 400, 800, 1600, 3200, 5000, 5000]],
    ["linear", [100, 200, 300, 400, 500, 600, 700, 800]],
    ["fixed", [100, 100, 100, 100, 100, 100, 100, 100]],
  ] as const)("%s", (strategy, expected) => {
    expect(expected.map((_, at) => backoffMs({ ...config, strategy }, at + 1, () => 0))).toEqual(expected);
  });

  test("jitter adds less than a tenth, below the cap", () => {
    expect(backoffMs({ ...config, jitter: true }, 1, () => 0)).toBe(100);
    expect(backoffMs({ ...config, jitter: true }, 1, () => 0.999)).toBe(109);
    expect(backoffMs({ ...config, jitter: true, max_ms: 105 }, 1, () => 0.999)).toBe(105);
  });
});

test("a rule's id is the same for the same rule and another for another", () => {
  const one = rules({ when: { a: ["b"] }, to: "x" })[0]?.id;
  expect(rules({ when: {}, to: "z" }, { when: { a: ["b"] }, to: "x", retry: 1 })[1]?.id).toBe(one);
  expect(rules({ when: { a: ["c"] }, to: "x" })[0]?.id).not.toBe(one);
});
