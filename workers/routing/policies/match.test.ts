import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compileWhen, type Facts } from "./match.ts";
import { parseWhen, printWhen } from "./matchtext.ts";

const facts = (context: Record<string, unknown>): Facts => ({ tenant: "acme", context });
const matches = (when: unknown, context: Record<string, unknown>): boolean => compileWhen(when, "when")(facts(context));

describe("when", () => {
  test.each<[string, unknown, Record<string, unknown>, boolean]>([
    ["M1 nothing matches always", undefined, {}, true],
    ["M1 {} matches always", {}, { status: "x" }, true],
    ["M1 all keys must match", { status: ["timeout"], region: ["eu"] }, { status: "timeout", region: "eu" }, true],
    [
      "M1 one key that does not is enough",
      { status: ["timeout"], region: ["eu"] },
      { status: "timeout", region: "us" },
      false,
    ],
    ["M2 one of the values", { status: ["timeout", "5xx"] }, { status: "5xx" }, true],
    ["M2 none of the values", { status: ["timeout", "5xx"] }, { status: "4xx" }, false],
    ["M2 a single value", { status: "timeout" }, { status: "timeout" }, true],
    ["M3 number in the rule, text in the context", { code: [500, 502] }, { code: "502" }, true],
    ["M3 text in the rule, number in the context", { code: ["502"] }, { code: 502 }, true],
    ["M3 truth values", { cached: [true] }, { cached: "true" }, true],
    ["M4 a missing key", { status: ["timeout"] }, {}, false],
    ["M4 a key that is null", { status: ["null"] }, { status: null }, false],
    ["M4 names of Object.prototype are no facts", { constructor: ["x"], toString: "x" }, {}, false],
    ["M5 ==", { "==": [{ var: "context.x" }, 1] }, { x: 1 }, true],
    ["M5 == across text and number", { "==": [{ var: "context.x" }, 1] }, { x: "1.0" }, true],
    ["M5 == of something else", { "==": [{ var: "context.x" }, 1] }, { x: 2 }, false],
    ["M5 !=", { "!=": [{ var: "context.x" }, "a"] }, { x: "b" }, true],
    ["M4 != of a missing key", { "!=": [{ var: "context.x" }, "a"] }, {}, false],
    ["M5 >", { ">": [{ var: "context.n" }, 10] }, { n: "11" }, true],
    ["M5 > of equals", { ">": [{ var: "context.n" }, 10] }, { n: 10 }, false],
    ["M5 <", { "<": [{ var: "context.n" }, 10] }, { n: 9.5 }, true],
    ["M5 >=", { ">=": [{ var: "context.n" }, 10] }, { n: 10 }, true],
    ["M5 <=", { "<=": [{ var: "context.n" }, 10] }, { n: "10" }, true],
    ["M5 > of a text", { ">": [{ var: "context.n" }, 10] }, { n: "many" }, false],
    ["M5 in a list", { in: [{ var: "context.x" }, ["a", "b"]] }, { x: "b" }, true],
    ["M5 in a text", { in: ["err", { var: "context.x" }] }, { x: "an error" }, true],
    ["M5 nested", { "==": [{ var: "context.user.tier" }, "gold"] }, { user: { tier: "gold" } }, true],
    ["M5 a dotted key", { "==": [{ var: "context.user.tier" }, "gold"] }, { "user.tier": "gold" }, true],
    ["M5 both forms together", { status: "x", ">": [{ var: "context.n" }, 1] }, { status: "x", n: 2 }, true],
    ["the tenant is a fact", { tenant_id: ["acme"] }, {}, true],
    ["the tenant is the call's, not the context's", { tenant_id: ["evil"] }, { tenant_id: "evil" }, false],
  ])("%s", (_, when, context, expected) => {
    expect(matches(when, context)).toBe(expected);
  });

  test.each<[unknown, string]>([
    ["text", "when must be an object"],
    [[], "when must be an object"],
    [{ status: [] }, "when.status must name at least one value"],
    [{ status: [{}] }, "when.status[0] must be text, a number, true or false"],
    [{ status: null }, "when.status must be text, a number, true or false"],
    [{ "==": 1 }, "when.== must be an array of two operands"],
    [{ "==": [1] }, "when.== must be an array of two operands"],
    [{ in: [{ var: 3 }, ["a"]] }, "when.in[0].var must name a context key"],
    [{ in: [{ var: "x" }, [{}]] }, "when.in[1][0] must be text, a number, true or false"],
  ])("%j is refused", (when, message) => {
    expect(() => compileWhen(when, "when")).toThrow(message);
  });
});

describe("the textual form", () => {
  test.each<[string, Record<string, unknown>]>([
    ["", {}],
    ["status:timeout|5xx", { status: ["timeout", "5xx"] }],
    ["status:timeout|5xx|region:eu", { status: ["timeout", "5xx"], region: ["eu"] }],
    ["current_provider:openai\\:gpt-4o|other", { current_provider: ["openai:gpt-4o", "other"] }],
    ['{"==":[{"var":"context.x"},1]}', { "==": [{ var: "context.x" }, 1] }],
    ["status:", { status: [""] }],
  ])("%j", (text, when) => {
    expect(parseWhen(text, "match")).toEqual(when);
    expect(printWhen(when)).toBe(text);
  });

  test("a first value may have a colon without a backslash", () => {
    expect(parseWhen("current_provider:openai:gpt-4o", "match")).toEqual({ current_provider: ["openai:gpt-4o"] });
  });

  test.each([
    ["timeout", "match must read key:value1|value2"],
    [":timeout", "match must not have an empty key"],
    ["a:1|a:2", "match must not name the key a twice"],
    ["{oops", "match must read key:value1|value2, or be a JSON object"],
  ])("%j is refused", (text, message) => {
    expect(() => parseWhen(text, "match")).toThrow(message);
  });

  test("printing and reading gives back every when of lists of texts", () => {
    const word = fc.string({ unit: fc.constantFrom("a", "b", "\\", "|", ":", "{", "}", " ", "é") });
    const key = word.filter((text) => text !== "");
    const when = fc.dictionary(key, fc.array(word, { minLength: 1, maxLength: 3 }), {
      maxKeys: 3,
      noNullPrototype: true,
    });
    fc.assert(
      fc.property(when, (given) => {
        expect(parseWhen(printWhen(given), "match")).toEqual(given);
      }),
    );
  });
});
