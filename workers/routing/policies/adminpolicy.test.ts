import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AdminPolicy } from "../../../contracts/gen/beamline/flow/v1/flow.ts";
import { codecOf } from "../../../contracts/codec.ts";
import { fromAdmin, toAdmin } from "./adminpolicy.ts";
import { candidatesOf } from "./compile.ts";
import { readPolicy, type PolicyDocument } from "./policy.ts";

const full: PolicyDocument = {
  version: "1.0",
  providers: [
    { name: "openai", weight: 70, priority: 2, expected_latency_ms: 250, expected_cost: 0.001 },
    { name: "anthropic", weight: 30 },
  ],
  sticky: { enabled: true, session_key: "user_id", ttl: "10m" },
  fallbacks: [
    { when: { status: ["timeout", "5xx"] }, to: "anthropic", retry: 2, backoff: { strategy: "linear", base_ms: 50 } },
    { when: { "==": [{ var: "context.x" }, 1] }, to: "openai", retry: 0 },
    { when: {}, prefer: ["openai"], to: "anthropic" },
  ],
  fallback: { provider: "openai", conditions: ["all_providers_failed", "timeout"] },
  pre: [{ id: "normalise", mode: "required" }],
  circuit_breaker: { enabled: true, failure_threshold: 3 },
  rate_limit: { enabled: true, requests_per_second: 10 },
};

describe("A1: document, admin form, document", () => {
  test("everything survives, also what the admin form cannot say", () => {
    expect(fromAdmin(toAdmin("p", full), full)).toEqual(full);
  });

  test("over the wire as well", () => {
    const codec = codecOf(AdminPolicy);
    const admin = toAdmin("p", full);
    const wire = codec.fromJson(JSON.parse(JSON.stringify(codec.toJson(admin))));
    expect(wire).toEqual(admin);
    expect(AdminPolicy.decode(AdminPolicy.encode(admin).finish())).toEqual(admin);
    expect(fromAdmin(wire, full)).toEqual(full);
  });

  test("the legacy weights stay legacy weights", () => {
    const legacy: PolicyDocument = { version: "1.0", weights: { openai: 0.7, "openai:gpt-4o": 0.3 } };
    expect(fromAdmin(toAdmin("p", legacy), legacy)).toEqual(legacy);
  });

  test("a changed weight keeps the rest of the provider", () => {
    const admin = toAdmin("p", full);
    const changed = { ...admin, providers: admin.providers.map(({ id }) => ({ id, weight: 0.5 })) };
    expect(fromAdmin(changed, full).providers).toEqual([
      { name: "openai", weight: 50, priority: 2, expected_latency_ms: 250, expected_cost: 0.001 },
      { name: "anthropic", weight: 50 },
    ]);
  });

  test("sticky off keeps the session key for the day it is on again", () => {
    const off = fromAdmin({ ...toAdmin("p", full), sticky: false }, full);
    expect(off.sticky).toEqual({ enabled: false, session_key: "user_id", ttl: "10m" });
    expect(toAdmin("p", off).sticky).toBe(false);
  });
});

describe("the admin form", () => {
  test("says what the contract says", () => {
    expect(toAdmin("p", full)).toEqual({
      policy_id: "p",
      providers: [
        { id: "openai", weight: 0.7 },
        { id: "anthropic", weight: 0.3 },
      ],
      sticky: true,
      rules: [
        { match: "status:timeout|5xx", prefer: [], fallback: "anthropic" },
        { match: '{"==":[{"var":"context.x"},1]}', prefer: [], fallback: "openai" },
        { match: "", prefer: ["openai"], fallback: "anthropic" },
        { match: "status:all_providers_failed|timeout", prefer: [], fallback: "openai" },
      ],
    });
  });

  test.each<[string, Partial<AdminPolicy>, string]>([
    ["an empty policy_id", { policy_id: "" }, "policy.policy_id must not be empty"],
    ["a policy_id with a slash", { policy_id: "a/b" }, "policy.policy_id must be 1 to 255"],
    ["no providers", { providers: [] }, "policy.providers must name at least one provider"],
    [
      "a weight above 1",
      { providers: [{ id: "a", weight: 1.5 }] },
      "policy.providers[0].weight must be between 0 and 1",
    ],
    [
      "a weight below 0",
      { providers: [{ id: "a", weight: -0.1 }] },
      "policy.providers[0].weight must be between 0 and 1",
    ],
    [
      "a weight that is no number",
      { providers: [{ id: "a", weight: Number.NaN }] },
      "policy.providers[0].weight must be between 0 and 1",
    ],
    [
      "a provider twice",
      {
        providers: [
          { id: "a", weight: 1 },
          { id: "a", weight: 1 },
        ],
      },
      "policy.providers[1].id names a a second time",
    ],
    ["a provider without an id", { providers: [{ id: "", weight: 1 }] }, "policy.providers[0].id must not be empty"],
    [
      "a provider with spaces",
      { providers: [{ id: "a b", weight: 1 }] },
      'policy.providers[0].name "a b" is not a provider name',
    ],
    [
      "a rule that leads nowhere",
      { rules: [{ match: "a:b", prefer: [], fallback: "" }] },
      "policy.rules[0].fallback must name a provider",
    ],
    [
      "a rule nobody can read",
      { rules: [{ match: "ab", prefer: [], fallback: "x" }] },
      "policy.rules[0].match must read key:value1|value2",
    ],
    [
      "too many providers",
      { providers: Array.from({ length: 21 }, (_, i) => ({ id: `p${i}`, weight: 1 })) },
      "Policy quota exceeded. Maximum providers: 20",
    ],
    [
      "too many rules",
      { rules: Array.from({ length: 51 }, () => ({ match: "", prefer: [], fallback: "x" })) },
      "Policy quota exceeded. Maximum rules: 50",
    ],
  ])("%s is refused", (_, wrong, message) => {
    const right: AdminPolicy = { policy_id: "p", providers: [{ id: "a", weight: 1 }], sticky: false, rules: [] };
    expect(() => fromAdmin({ ...right, ...wrong })).toThrow(message);
  });
});

describe("A2: any admin form survives being stored", () => {
  const provider = fc.string({ unit: fc.constantFrom("a", "b", "c", ":", "-", ".", "4"), minLength: 1, maxLength: 12 });
  const value = fc.string({ unit: fc.constantFrom("a", "5", "x", "-", ":", "|", "\\"), maxLength: 6 });
  const when = fc.dictionary(
    fc.constantFrom("status", "region", "a:b"),
    fc.array(value, { minLength: 1, maxLength: 3 }),
    { maxKeys: 2, noNullPrototype: true },
  );
  const rule = fc.record({ when, prefer: fc.array(provider, { maxLength: 2 }), fallback: provider });
  const weight = fc.oneof(
    fc.integer({ min: 0, max: 100 }).map((n) => n / 100),
    fc.double({ min: 0, max: 1, noNaN: true }).map((n) => (Object.is(n, -0) ? 0 : n)),
  );
  const admin = fc.record({
    providers: fc.uniqueArray(fc.record({ id: provider, weight }), {
      selector: ({ id }) => id,
      minLength: 1,
      maxLength: 6,
    }),
    sticky: fc.boolean(),
    rules: fc.array(rule, { maxLength: 4 }),
  });

  test("weights, sticky and rules, exactly", () => {
    fc.assert(
      fc.property(admin, ({ providers, sticky, rules }) => {
        const stored = fromAdmin({
          policy_id: "p",
          providers,
          sticky,
          rules: rules.map(({ when: w, ...rest }) => ({ ...rest, match: matchOf(w) })),
        });
        const reread = readPolicy(JSON.parse(JSON.stringify(stored)));
        const shown = toAdmin("p", reread);
        expect(shown.providers).toEqual(providers);
        expect(shown.sticky).toBe(sticky);
        expect(shown.rules.map(({ prefer, fallback }) => ({ prefer, fallback }))).toEqual(
          rules.map(({ prefer, fallback }) => ({ prefer, fallback })),
        );
        expect(fromAdmin(shown, reread)).toEqual(reread);
        expect(toAdmin("p", fromAdmin(shown))).toEqual(shown);
      }),
      { numRuns: 300 },
    );
  });

  const matchOf = (given: Record<string, string[]>): string =>
    Object.entries(given)
      .map(([key, values]) => `${quoted(key)}:${values.map(quoted).join("|")}`)
      .join("|");
  const quoted = (text: string): string => text.replaceAll(/[\\|:]/g, (char) => `\\${char}`);
});

describe("weights of documents", () => {
  test.each<[string, Partial<PolicyDocument>, number[]]>([
    [
      "whole percents",
      {
        providers: [
          { name: "a", weight: 70 },
          { name: "b", weight: 30 },
        ],
      },
      [0.7, 0.3],
    ],
    [
      "fractions",
      {
        providers: [
          { name: "a", weight: 0.7 },
          { name: "b", weight: 0.3 },
        ],
      },
      [0.7, 0.3],
    ],
    [
      "fractions with a whole one",
      {
        providers: [
          { name: "a", weight: 1 },
          { name: "b", weight: 0.5 },
        ],
      },
      [1, 0.5],
    ],
    [
      "percents of one",
      {
        providers: [
          { name: "a", weight: 1 },
          { name: "b", weight: 1 },
        ],
      },
      [0.01, 0.01],
    ],
    ["legacy fractions", { weights: { a: 0.7, b: 1 } }, [0.7, 1]],
    ["legacy percents", { weights: { a: 70, b: 1 } }, [0.7, 0.01]],
  ])("%s", (_, document, expected) => {
    expect(candidatesOf({ version: "1.0", ...document }).map(({ weight }) => weight)).toEqual(expected);
  });
});
