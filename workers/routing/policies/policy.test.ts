import { describe, expect, test } from "vitest";
import { complexityOf } from "../extensions/complexity.ts";
import { readPolicy, type PolicyDocument } from "./policy.ts";
import { policy } from "../testkit.ts";

const right = { version: "1.0", providers: [{ name: "openai", weight: 70 }] };
const extension = (id: string) => ({ id });

describe("a document that may be stored", () => {
  test.each<[string, object]>([
    ["the least", right],
    ["legacy weights", { version: "1.0", weights: { openai: 0.7, anthropic: 0.3 } }],
    ["all weights 0", { version: "1.0", providers: [{ name: "a", weight: 0 }] }],
    [
      "names as samples have them",
      {
        version: "2.1",
        providers: [
          { name: "openai:gpt-4o", weight: 1 },
          { name: "meta-llama/Llama-3.1", weight: 1 },
        ],
      },
    ],
    [
      "everything",
      {
        ...right,
        fallbacks: [
          {
            when: { status: ["timeout"] },
            to: "b",
            retry: 0,
            backoff: { strategy: "fixed", base_ms: 0, max_ms: 60_000, jitter: false },
          },
        ],
        fallback: { provider: "c", conditions: ["x"] },
        sticky: { enabled: false, session_key: "s", ttl: "10m", ttl_seconds: 86_400 },
        pre: [{ id: "a", mode: "required", config: {}, timeout_ms: 10, retry: 3, when: {} }],
        validators: [{ id: "v", on_fail: "warn" }],
        post: [{ id: "p", mode: "optional" }],
        circuit_breaker: {
          enabled: true,
          failure_threshold: 1,
          success_threshold: 10,
          timeout_ms: 300_000,
          half_open_max_calls: 1,
          error_rate_threshold: 1,
          error_rate_window_seconds: 3_600,
        },
        rate_limit: { enabled: true, requests_per_second: 1_000_000, burst: 1 },
        timeout_ms: 5_000,
        health_check: {},
        defaults: { algorithm: "best_score" },
        escalate_on: ["x"],
        metadata: { owner: "me" },
      },
    ],
  ])("%s", (_, document) => {
    expect(readPolicy(document)).toBe(document);
  });

  test.each<[object | string | null, string]>([
    ["text", "policy must be an object"],
    [null, "policy must be an object"],
    [{ providers: [] }, "version is missing"],
    [{ ...right, version: "1" }, "version must look like 1.0"],
    [{ ...right, version: 1 }, "version must be non-empty text"],
    [{ version: "1.0" }, "providers is missing: a policy needs providers or weights"],
    [{ ...right, extra: 1 }, "extra is not part of a policy document"],
    [{ version: "1.0", providers: {} }, "providers must be an array"],
    [{ version: "1.0", providers: [] }, "providers must name at least one provider"],
    [{ version: "1.0", providers: [{ weight: 1 }] }, "providers[0].name is missing"],
    [{ version: "1.0", providers: [{ name: "a" }] }, "providers[0].weight is missing"],
    [{ version: "1.0", providers: [{ name: "a", weight: "70" }] }, "providers[0].weight must be a number"],
    [{ version: "1.0", providers: [{ name: "a", weight: 101 }] }, "providers[0].weight must be between 0 and 100"],
    [
      { version: "1.0", providers: [{ name: "a", weight: 33.3 }] },
      "providers[0].weight must be a whole number from 0 to 100 or a fraction from 0 to 1",
    ],
    [
      {
        version: "1.0",
        providers: [
          { name: "a", weight: 1 },
          { name: "a", weight: 1 },
        ],
      },
      "providers[1].name names a a second time",
    ],
    [{ version: "1.0", weights: {} }, "weights must name at least one provider"],
    [{ version: "1.0", weights: { a: -1 } }, "weights.a must be between 0 and 100"],
    [{ ...right, fallbacks: [{ when: {} }] }, "fallbacks[0].to is missing"],
    [{ ...right, fallbacks: [{ when: { a: [] }, to: "b" }] }, "fallbacks[0].when.a must name at least one value"],
    [{ ...right, fallbacks: [{ to: "b", retry: 11 }] }, "fallbacks[0].retry must be between 0 and 10"],
    [{ ...right, fallbacks: [{ to: "b", retry: 1.5 }] }, "fallbacks[0].retry must be a whole number"],
    [
      { ...right, fallbacks: [{ to: "b", backoff: { strategy: "slow" } }] },
      "fallbacks[0].backoff.strategy must be one of exponential, linear, fixed",
    ],
    [
      { ...right, fallbacks: [{ to: "b", backoff: { max_ms: 60_001 } }] },
      "fallbacks[0].backoff.max_ms must be between 0 and 60000",
    ],
    [{ ...right, fallback: {} }, "fallback.provider is missing"],
    [{ ...right, fallback: { provider: "a", conditions: [1] } }, "fallback.conditions[0] must be non-empty text"],
    [{ ...right, sticky: { enabled: "yes" } }, "sticky.enabled must be true or false"],
    [{ ...right, sticky: { session_key: "" } }, "sticky.session_key must be non-empty text"],
    [{ ...right, sticky: { ttl_seconds: 86_401 } }, "sticky.ttl_seconds must be between 1 and 86400"],
    [
      { ...right, circuit_breaker: { failure_threshold: 0 } },
      "circuit_breaker.failure_threshold must be between 1 and 100",
    ],
    [
      { ...right, circuit_breaker: { error_rate_threshold: 2 } },
      "circuit_breaker.error_rate_threshold must be between 0 and 1",
    ],
    [{ ...right, rate_limit: { burst: 0 } }, "rate_limit.burst must be between 1 and 1000000"],
    [{ ...right, pre: [{}] }, "pre[0].id is missing"],
    [{ ...right, pre: [{ id: "a", mode: "block" }] }, "pre[0].mode must be one of required, optional"],
    [
      { ...right, validators: [{ id: "a", on_fail: "stop" }] },
      "validators[0].on_fail must be one of block, warn, ignore",
    ],
    [{ ...right, post: [{ id: "a", timeout_ms: 5_001 }] }, "post[0].timeout_ms must be between 10 and 5000"],
    [{ ...right, pre: ["a", "b", "c", "d", "e", "f"].map(extension) }, "pre must have at most 5 extensions"],
    [
      {
        ...right,
        pre: ["a", "b", "c", "d"].map(extension),
        validators: ["a", "b", "c", "d"].map(extension),
        post: ["a", "b", "c"].map(extension),
      },
      "at most 10 extensions together",
    ],
    [
      { ...right, defaults: { algorithm: "random" } },
      "defaults.algorithm must be one of weighted_round_robin, best_score",
    ],
    [
      { version: "1.0", providers: Array.from({ length: 21 }, (_, i) => ({ name: `p${i}`, weight: 1 })) },
      "Policy quota exceeded. Maximum providers: 20",
    ],
  ])("%j is refused", (document, message) => {
    expect(() => readPolicy(document)).toThrow(message);
  });

  test("the path is put before every field", () => {
    expect(() => readPolicy({ version: "1.0", providers: [{}] }, "policy.")).toThrow(
      "policy.providers[0].name is missing",
    );
  });
});

test("a policy with extensions, a breaker or another algorithm does not choose by turns alone", () => {
  for (const more of [
    { pre: [{ id: "a" }] },
    { circuit_breaker: { enabled: true } },
    { defaults: { algorithm: "best_score" } },
    { defaults: { affinity_key: "user" } },
  ])
    expect(policy({ ...right, ...more }).byTurns).toBe(false);
  for (const more of [
    {},
    { sticky: { enabled: true } },
    { rate_limit: { enabled: true } },
    { circuit_breaker: { enabled: false } },
  ])
    expect(policy({ ...right, ...more }).byTurns).toBe(true);
});

describe("complexity", () => {
  const of = (pre: number, validators: number, post: number) => {
    const items = (count: number) => Array.from({ length: count }, (_, i) => ({ id: `e${i}` }));
    return complexityOf({
      ...(right as PolicyDocument),
      pre: items(pre),
      validators: items(validators),
      post: items(post),
    });
  };

  test.each([
    [0, 0, 0, 0, "low", 0],
    [1, 0, 0, 15, "low", 30],
    [1, 1, 0, 30, "medium", 60],
    [2, 1, 1, 60, "high", 120],
    [3, 0, 0, 50, "medium", 90],
    [3, 1, 1, 74, "high", 150],
    [3, 3, 3, 100, "very_high", 270],
    [5, 5, 0, 100, "very_high", 300],
  ])("%i pre, %i validators, %i post", (pre, validators, post, score, level, latency) => {
    const found = of(pre, validators, post);
    expect(found).toMatchObject({
      total_extensions: pre + validators + post,
      complexity_score: score,
      complexity_level: level,
      estimated_latency_ms: BigInt(latency),
    });
  });

  test("warnings name what is too much", () => {
    expect(of(1, 1, 1).warnings).toEqual([]);
    const { warnings, recommendations } = of(3, 2, 1);
    expect(warnings).toEqual([
      "The pipeline has 6 extensions, more than the recommended 4.",
      "The pipeline has 3 pre-processors, more than the recommended 2.",
      "It is estimated to take 180 ms, more than the target of 150 ms.",
    ]);
    expect(recommendations).toEqual(["Reduce extensions to 4 or fewer.", "Reduce pre-processors to 2 or fewer."]);
  });
});
