import { describe, expect, test } from "vitest";
import { BeamlineError } from "../../../contracts/errors.ts";
import { decide } from "./decide.ts";
import type { CircuitState, Estimate, ProviderHealth } from "../ports.ts";
import { decidePorts, policy, seventyThirty } from "../testkit.ts";

const facts = (context: Record<string, unknown> = {}) => ({ tenant: "acme", context });

let revisions = 0;

/** Health as a test says it is. */
function health(
  estimates: Record<string, Partial<Estimate>>,
  circuits: Record<string, CircuitState> = {},
): ProviderHealth {
  return {
    revision: ++revisions,
    estimate: (_tenant, provider) => ({ latencyMs: undefined, cost: undefined, ...estimates[provider] }),
    circuit: (_tenant, provider) => circuits[provider] ?? "closed",
    admit: (_tenant, provider) => (circuits[provider] ?? "closed") !== "open",
  };
}

function thrownBy(run: () => unknown): BeamlineError {
  try {
    run();
  } catch (thrown) {
    return BeamlineError.from(thrown);
  }
  throw new Error("nothing was thrown");
}

describe("by weight", () => {
  test("70/30 over 100 calls, reason and priority", () => {
    const two = policy(seventyThirty);
    const found = Array.from({ length: 100 }, () => decide(two, facts(), decidePorts).decision);
    expect(found.filter(({ provider_id }) => provider_id === "openai")).toHaveLength(70);
    expect(new Set(found.map(({ reason, priority }) => `${reason} ${priority}`))).toEqual(new Set(["weighted 50"]));
  });

  test("tenants of a shared policy each get their share", () => {
    const shared = policy(seventyThirty, { tenant: "*" });
    const found: Record<string, string[]> = { a: [], b: [] };
    for (let i = 0; i < 200; i++) {
      const tenant = i % 2 === 0 ? "a" : "b";
      found[tenant]?.push(decide(shared, { tenant, context: {} }, decidePorts).decision.provider_id);
    }
    for (const list of Object.values(found)) expect(list.filter((one) => one === "openai")).toHaveLength(70);
  });

  test("words are made once per winner", () => {
    const two = policy(seventyThirty);
    const texts = Array.from({ length: 50 }, () => decide(two, facts({ user_id: Math.random() }), decidePorts));
    expect(new Set(texts).size).toBe(2);
  });

  test("the words change when what is known changes", () => {
    const one = policy({ providers: [{ name: "a", weight: 1 }] });
    const before = decide(one, facts(), decidePorts).decision;
    const after = decide(one, facts(), {
      ...decidePorts,
      health: health({ a: { latencyMs: 12.4, cost: 0.5 } }),
    }).decision;
    expect(before).toMatchObject({ expected_latency_ms: 500, expected_cost: 0.01 });
    expect(after).toMatchObject({ expected_latency_ms: 12, expected_cost: 0.5 });
  });

  test("all weights 0 and no fallback: nobody, and why", () => {
    const none = policy({
      providers: [
        { name: "a", weight: 0 },
        { name: "b", weight: 0 },
      ],
    });
    const error = thrownBy(() => decide(none, facts(), decidePorts));
    expect(error.code).toBe("decision_failed");
    expect(error.message).toBe("no provider available");
    expect(error.details["candidates"]).toEqual([
      { id: "a", weight: 0, lost: "weight is 0" },
      { id: "b", weight: 0, lost: "weight is 0" },
    ]);
  });

  test("fallbacks are asked only when nobody is chosen by weight", () => {
    const fallbacks = [{ when: {}, to: "spare", retry: 0 }];
    expect(
      decide(policy({ ...seventyThirty, fallbacks }), facts({ status: "timeout" }), decidePorts).decision.provider_id,
    ).toBe("openai");
    const { decision } = decide(policy({ providers: [{ name: "a", weight: 0 }], fallbacks }), facts(), decidePorts);
    expect(decision).toMatchObject({ provider_id: "spare", reason: "fallback", priority: 25 });
    expect(decision.metadata).toMatchObject({ fallback_applied: "true", retry_attempts_used: "0" });
  });

  test("the legacy fallback comes last, whatever the context says", () => {
    const last = policy({
      providers: [{ name: "a", weight: 0 }],
      fallback: { provider: "spare", conditions: ["timeout"] },
    });
    expect(decide(last, facts(), decidePorts).decision).toMatchObject({
      provider_id: "spare",
      reason: "fallback",
      priority: 25,
    });
    expect(decide(last, facts({ status: "timeout", current_provider: "a" }), decidePorts).decision).toMatchObject({
      provider_id: "a",
      reason: "retry",
      priority: 50,
    });
  });
});

describe("expectations", () => {
  const declared = policy({ providers: [{ name: "a", weight: 1, expected_latency_ms: 250, expected_cost: 0.001 }] });

  test.each([
    ["the policy's", {}, decidePorts, 250, 0.001],
    [
      "what was measured goes before",
      {},
      { ...decidePorts, health: health({ a: { latencyMs: 90.6, cost: 0.02 } }) },
      91,
      0.02,
    ],
    [
      "what the caller says goes before all",
      { expected_latency_ms: "850", expected_cost: 0.5 },
      { ...decidePorts, health: health({ a: { latencyMs: 1 } }) },
      850,
      0.5,
    ],
    [
      "what the caller says and is no figure is nothing",
      { expected_latency_ms: "soon", expected_cost: -1 },
      decidePorts,
      250,
      0.001,
    ],
  ])("%s", (_, context, ports, expected_latency_ms, expected_cost) => {
    expect(decide(declared, facts(context), ports).decision).toMatchObject({ expected_latency_ms, expected_cost });
  });

  test("a time beyond what the contract's number can hold is the largest it can", () => {
    const ports = { ...decidePorts, health: health({ a: { latencyMs: 1e300 } }) };
    expect(decide(declared, facts(), ports).decision.expected_latency_ms).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("without any: 500 ms and 0.01", () => {
    expect(decide(policy(seventyThirty), facts(), decidePorts).decision).toMatchObject({
      expected_latency_ms: 500,
      expected_cost: 0.01,
    });
  });
});

describe("constraints", () => {
  const two = () =>
    policy({
      providers: [
        { name: "slow", weight: 90, expected_latency_ms: 900, expected_cost: 0.001 },
        { name: "fast", weight: 10, expected_latency_ms: 100, expected_cost: 0.1 },
      ],
    });

  test.each([
    [{ max_latency_ms: 200 }, "fast", "expected latency 900 ms is over 200 ms"],
    [{ max_latency_ms: "200" }, "fast", "expected latency 900 ms is over 200 ms"],
    [{ max_cost: 0.01 }, "slow", "expected cost 0.1 is over 0.01"],
  ])("%j", (context, winner, lost) => {
    const { decision } = decide(two(), facts(context), decidePorts);
    expect(decision).toMatchObject({ provider_id: winner, reason: "weighted" });
    expect(decision.metadata["candidates"]).toContain(lost);
  });

  test("nobody within both", () => {
    const error = thrownBy(() => decide(two(), facts({ max_latency_ms: 200, max_cost: 0.01 }), decidePorts));
    expect(error.code).toBe("decision_failed");
  });

  test("nothing is known against a provider nobody measured", () => {
    expect(decide(policy(seventyThirty), facts({ max_latency_ms: 1 }), decidePorts).decision.provider_id).toBe(
      "openai",
    );
  });

  test("a limit that is none is refused by name", () => {
    const error = thrownBy(() => decide(policy(seventyThirty), facts({ max_cost: "cheap" }), decidePorts));
    expect(error).toMatchObject({
      code: "invalid_request",
      field: "max_cost",
      intakeErrorCode: "SCHEMA_VALIDATION_FAILED",
    });
  });
});

describe("by figures", () => {
  const three = () =>
    policy({
      defaults: { algorithm: "best_score" },
      providers: [
        { name: "slow", weight: 50, expected_latency_ms: 1000, expected_cost: 0.001 },
        { name: "dear", weight: 50, expected_latency_ms: 100, expected_cost: 0.01 },
        { name: "middle", weight: 50, expected_latency_ms: 200, expected_cost: 0.002 },
      ],
    });

  test.each([
    [{}, "middle"],
    [{ optimize: "latency" }, "dear"],
    [{ optimize: "cost" }, "slow"],
  ])("%j", (context, winner) => {
    const { decision } = decide(three(), facts(context), decidePorts);
    expect(decision).toMatchObject({ provider_id: winner, reason: "best_score", priority: 50 });
    expect(decision.metadata["algorithm"]).toBe("best_score");
    expect(decision.metadata["candidates"]).toMatch(/score [\d.]+ is not above/);
  });

  test("a round robin policy does so when the request asks", () => {
    const two = policy({
      providers: [
        { name: "a", weight: 90, expected_latency_ms: 900 },
        { name: "b", weight: 10, expected_latency_ms: 10 },
      ],
    });
    expect(decide(two, facts({ optimize: "latency" }), decidePorts).decision.provider_id).toBe("b");
  });
});

describe("prompt cache affinity", () => {
  const three = () =>
    policy({
      providers: [
        { name: "a", weight: 50 },
        { name: "b", weight: 25 },
        { name: "c", weight: 25 },
      ],
    });
  const home = (key: string, ports = decidePorts, p = three()) =>
    decide(p, facts({ prompt_cache_key: key }), ports).decision.provider_id;

  test("a key always goes to the same provider, on any worker", () => {
    for (let i = 0; i < 20; i++) expect(home(`k${i}`)).toBe(home(`k${i}`, decidePorts, three()));
  });

  test("keys spread by weight", () => {
    const found = Array.from({ length: 4_000 }, (_, i) => home(`key-${i}`));
    expect(found.filter((one) => one === "a").length / 4_000).toBeCloseTo(0.5, 1);
    expect(found.filter((one) => one === "b").length / 4_000).toBeCloseTo(0.25, 1);
  });

  test("when a provider cannot be used, its keys move and the others stay", () => {
    const broken = policy({ ...three().document, circuit_breaker: { enabled: true } });
    const ports = { ...decidePorts, health: health({}, { a: "open" }) };
    for (let i = 0; i < 200; i++) {
      const [before, after] = [home(`k${i}`), home(`k${i}`, ports, broken)];
      if (before === "a") expect(after).not.toBe("a");
      else expect(after).toBe(before);
    }
  });
});

describe("circuits", () => {
  const guarded = () =>
    policy({ ...seventyThirty, circuit_breaker: { enabled: true }, fallbacks: [{ when: {}, to: "spare", retry: 0 }] });
  const ports = (circuits: Record<string, CircuitState>) => ({ ...decidePorts, health: health({}, circuits) });

  test("a provider whose circuit is open is passed over", () => {
    const { decision } = decide(guarded(), facts(), ports({ openai: "open" }));
    expect(decision).toMatchObject({ provider_id: "anthropic", reason: "weighted" });
    expect(decision.metadata["candidates"]).toContain('"lost":"circuit open"');
  });

  test("all open: the rules", () => {
    expect(decide(guarded(), facts(), ports({ openai: "open", anthropic: "open" })).decision).toMatchObject({
      provider_id: "spare",
      reason: "fallback",
    });
  });

  test.each([
    [{ fallback_provider: "other" }, "other"],
    [{}, "spare"],
  ])("a selected provider with an open circuit is replaced at once: %j", (context, provider_id) => {
    const { decision } = decide(
      guarded(),
      facts({ selected_provider: "openai", ...context }),
      ports({ openai: "open" }),
    );
    expect(decision).toMatchObject({ provider_id, reason: "circuit_breaker_fallback", priority: 20 });
  });

  test("without a breaker in the policy circuits are not looked at", () => {
    expect(decide(policy(seventyThirty), facts(), ports({ openai: "open" })).decision.provider_id).toBe("openai");
  });
});

describe("the explanation", () => {
  test("detailed by default: the algorithm, the policy, why each lost, all as text", () => {
    const { metadata } = decide(policy(seventyThirty), facts(), decidePorts).decision;
    expect(metadata["algorithm"]).toBe("weighted_round_robin");
    expect(metadata["policy_id"]).toBe("default");
    expect(JSON.parse(metadata["candidates"] ?? "")).toEqual([
      { id: "openai", weight: 0.7, chosen: true },
      { id: "anthropic", weight: 0.3, lost: "not its turn" },
    ]);
    for (const value of Object.values(metadata)) expect(value).toBeTypeOf("string");
  });

  test("minimal: the algorithm", () => {
    expect(decide(policy(seventyThirty), facts({ detail_level: "minimal" }), decidePorts).decision.metadata).toEqual({
      algorithm: "weighted_round_robin",
    });
  });

  test("verbose: the steps", () => {
    const { metadata } = decide(policy(seventyThirty), facts({ detail_level: "verbose" }), decidePorts).decision;
    const explanation = JSON.parse(metadata["explanation"] ?? "") as { steps: string[] };
    expect(explanation).toMatchObject({
      reason: "weighted",
      provider_id: "openai",
      policy_id: "default",
      policy_version: "1.0",
      priority: 50,
      context: { tenant_id: "acme" },
    });
    expect(explanation.steps[0]).toBe("1. policy default of version 1.0 was found");
  });
});

test("D3: a dry decision takes no turn", () => {
  const two = policy({
    providers: [
      { name: "a", weight: 51 },
      { name: "b", weight: 49 },
    ],
  });
  for (let i = 0; i < 5; i++) expect(decide(two, facts(), decidePorts, { dry: true }).decision.provider_id).toBe("a");
  expect(decide(two, facts(), decidePorts).decision.provider_id).toBe("a");
  expect(decide(two, facts(), decidePorts).decision.provider_id).toBe("b");
});
