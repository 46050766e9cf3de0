/** The small pure parts: expressions, Merkle roots, tokens, reducers, identities. */
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { canonicalJson, type Json } from "../../contracts/openwop/json.ts";
import { reduce } from "../../contracts/openwop/reducers.ts";
import { evaluate, fill, holds, regexOf } from "./engine/expressions.ts";
import { logicalInvocationId } from "./engine/invocations.ts";
import { NO_PEAKS, rootOf, withLeaf } from "./audit/merkle.ts";
import { conform, schemaOf } from "./engine/schemas.ts";
import { Tokens } from "./tokens.ts";

describe("expressions", () => {
  const scope = { variables: { count: 2, tags: ["a"] }, output: { approved: true, text: "abc" } };
  test("compute over variables and outputs", () => {
    expect(evaluate("variables.count + 1 > 2 && output.approved", scope)).toBe(true);
    expect(evaluate("variables.tags.map(t, t + '!')", scope)).toEqual(["a!"]);
  });
  test("reach nothing else, and say what is wrong", () => {
    expect(() => evaluate("process.exit(1)", scope)).toThrow(/cannot be computed/);
    expect(() => evaluate("1 +", scope)).toThrow(/is not an expression/);
    expect(() => evaluate("constructor.constructor('return 1')()", scope)).toThrow();
  });
  test("conditions of every kind", () => {
    expect(holds({ type: "contains", left: "output.text", right: "b" }, scope)).toBe(true);
    expect(holds({ type: "contains", left: "variables.tags", right: "a" }, scope)).toBe(true);
    expect(holds({ type: "notEquals", left: "approved", right: false }, scope)).toBe(true);
    expect(holds({ type: "regex", left: "output.text", right: "^a.c$" }, scope)).toBe(true);
    expect(() => regexOf("(a+)+$", "right")).toThrow(/for ever/);
  });
  test("stop what would take for ever, in a second and saying so", () => {
    const text = "a".repeat(64);
    const list = Array.from({ length: 300 }, (_, at) => at);
    const inside = (depth: number): string => (depth === 0 ? "1" : `inputs.list.map(x${depth}, ${inside(depth - 1)})`);
    for (const right of ["((a+))+$", "(a|a)*$", "(a|aa)+$"])
      expect(() => holds({ type: "regex", left: "inputs.text", right }, { inputs: { text: `${text}!` } })).toThrow(
        /condition.right takes longer/,
      );
    expect(() => evaluate('inputs.text.matches("(a|a)*$")', { inputs: { text: `${text}!` } })).toThrow(/longer/);
    expect(() => evaluate(`${inside(5)}.size()`, { inputs: { list } })).toThrow(/longer/);
    const pattern = { properties: { text: { pattern: "^(a|a)*$" } } };
    expect(() => conform(pattern, { text: `${text}!` }, "resumeValue")).toThrow(/resumeValue takes longer/);
    expect(evaluate("inputs.list.map(x, x + 1).filter(x, x > 299).size()", { inputs: { list } })).toBe(1);
  }, 60_000);
  test("refuse values that grow without end", () => {
    const twice = ".map(a, a + a)".repeat(24);
    expect(() => evaluate(`["abcd"]${twice}`, {})).toThrow(/comes to more than/);
    const inputs = { text: "x".repeat(1024 * 1024) };
    expect(() => fill("{{inputs.text}} ".repeat(10), { inputs })).toThrow(/comes to more than/);
    expect(() => fill(Array(10).fill("{{inputs}}"), { inputs })).toThrow(/comes to more than/);
    expect(fill("{{inputs.text}} ", { inputs })).toHaveLength(1024 * 1024 + 1);
  });
  test("numbers are numbers, with a fraction or without; moments and bytes have a form in JSON", () => {
    const inputs = { price: 1.5, count: 2 };
    expect(evaluate("inputs.price + 1", { inputs })).toBe(2.5);
    expect(evaluate("inputs.price * inputs.count - 1 / inputs.price", { inputs })).toBeCloseTo(3 - 1 / 1.5);
    expect(evaluate("7 / 2", {})).toBe(3);
    expect(evaluate('timestamp("2026-01-01T00:00:00Z")', {})).toBe("2026-01-01T00:00:00.000Z");
    expect(evaluate('[duration("1.5s")]', {})).toEqual([1_500]);
    expect(evaluate('b"abc"', {})).toBe("YWJj");
  });
  test("a schema is compiled once, whatever object it comes in", () => {
    const schema = (): object => ({ type: "object", properties: { a: { type: "string" } } });
    expect(schemaOf(schema() as Json, "x")).toBe(schemaOf(schema() as Json, "x"));
    expect(() => conform(schema() as Json, { a: 1 }, "resumeValue")).toThrow("resumeValue.a must be string");
    expect(() => schemaOf({ type: "nothing" }, "channels.c.schema")).toThrow(/channels.c.schema is not a JSON Schema/);
  });
  test("templates fill paths, run nothing, and keep types where they stand alone", () => {
    expect(
      fill(
        { a: "{{variables.count}}", b: "n={{ variables.count }}", c: "{{constructor}}", d: ["{{output.approved}}"] },
        scope,
      ),
    ).toEqual({ a: 2, b: "n=2", c: undefined, d: [true] });
  });
});

describe("Merkle roots (RFC 6962)", () => {
  const leafHash = (text: string): Buffer =>
    createHash("sha256")
      .update(Buffer.concat([Buffer.from([0]), Buffer.from(text)]))
      .digest();
  const tree = (leaves: readonly string[]): Buffer => {
    if (leaves.length === 1) return leafHash(leaves[0] ?? "");
    let split = 1;
    while (split * 2 < leaves.length) split *= 2;
    return createHash("sha256")
      .update(Buffer.concat([Buffer.from([1]), tree(leaves.slice(0, split)), tree(leaves.slice(split))]))
      .digest();
  };
  test("agree with the definition for every length", () => {
    let peaks = NO_PEAKS;
    const leaves: string[] = [];
    for (let count = 1; count <= 70; count++) {
      leaves.push(`leaf ${count}`);
      peaks = withLeaf(peaks, `leaf ${count}`);
      expect(rootOf(peaks), `of ${count} leaves`).toBe(tree(leaves).toString("hex"));
    }
  });
});

describe("tokens", () => {
  const payload = {
    tenant: "t",
    runId: "r",
    nodeId: "n",
    interruptId: "i",
    expiresAt: 1_000,
    intent: "resolve" as const,
  };
  const old = new Tokens([{ id: "k1", secret: "a-secret-of-some-length" }]);
  const rotated = new Tokens([
    { id: "k2", secret: "another-secret-of-length" },
    { id: "k1", secret: "a-secret-of-some-length" },
  ]);
  test("survive a rotation while both secrets are known", () => {
    expect(rotated.open(old.sign(payload), 0)).toMatchObject(payload);
    expect(() => old.open(rotated.sign(payload), 0)).toThrow(expect.objectContaining({ code: "interrupt_not_found" }));
  });
  test("are refused when expired, forged or malformed", () => {
    const token = old.sign(payload);
    expect(() => old.open(token, 1_000)).toThrow(expect.objectContaining({ code: "interrupt_expired" }));
    expect(() => old.open(`${token.slice(0, -2)}xx`, 0)).toThrow(
      expect.objectContaining({ code: "interrupt_not_found" }),
    );
    for (const bad of ["", "a", "a.b.c", "%%.%%", `${Buffer.from("[]").toString("base64url")}.x`])
      expect(() => old.open(bad, 0)).toThrow(expect.objectContaining({ code: "validation_error" }));
  });
});

describe("reducers", () => {
  const at = (ms: number): string => new Date(ms).toISOString();
  test("fold in order", () => {
    expect(reduce({ reducer: "append", maxSize: 2 }, [1, 2], 3, at(0))).toEqual([2, 3]);
    expect(reduce({ reducer: "merge" }, { a: 1 }, { b: 2 }, at(0))).toEqual({ a: 1, b: 2 });
    expect(reduce({ reducer: "counter" }, 2, 3, at(0))).toBe(5);
    expect(reduce({ reducer: "votes" }, [{ userId: "a", v: 1 }], { userId: "a", v: 2 }, at(0))).toEqual([
      { userId: "a", v: 2 },
    ]);
    expect(reduce({ reducer: "message" }, [{ messageId: "1" }], { messageId: "1" }, at(0))).toHaveLength(1);
    expect(reduce({ reducer: "append", ttlMs: 10 }, [{ value: "old", _ts: 0 }], "new", at(100))).toEqual([
      { value: "new", _ts: 100 },
    ]);
  });
});

test("identities and canonical JSON are those the contract publishes", () => {
  const text = ["openwop:activity:v2", "t", "r", "n", "0", "p"].join("\0");
  expect(logicalInvocationId("t", "r", "n", 0, "p")).toBe(createHash("sha256").update(text).digest("base64url"));
  expect(canonicalJson({ b: [1, null], a: "ü" })).toBe('{"a":"ü","b":[1,null]}');
});
