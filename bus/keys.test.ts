import { describe, expect, test } from "vitest";
import { array, assert, property, string } from "fast-check";
import { BeamlineError } from "../contracts/errors.ts";
import { keyOf, MAX_KEY_LENGTH, partsOf } from "./keys.ts";

describe("keys", () => {
  test("plain ids stay readable", () => {
    expect(keyOf("default", "gpt-4_policy")).toBe("default.gpt-4_policy");
  });

  test("everything else is escaped, and comes back", () => {
    expect(keyOf("acme inc.", "a.b", "")).toBe("acme=20inc=2E.a=2Eb.=");
    expect(partsOf("acme=20inc=2E.a=2Eb.=")).toEqual(["acme inc.", "a.b", ""]);
  });

  test("any parts come back, and no two lists share a key", () => {
    const parts = array(string({ unit: "grapheme", maxLength: 20 }), { minLength: 1, maxLength: 4 });
    assert(
      property(parts, parts, (one, other) => {
        expect(partsOf(keyOf(...one))).toEqual(one);
        expect(keyOf(...one)).toMatch(/^[-=\w]+(\.[-=\w]+)*$/);
        expect(keyOf(...one) === keyOf(...other)).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
    );
  });

  test("what a subject cannot hold is refused", () => {
    expect(() => keyOf("x".repeat(MAX_KEY_LENGTH + 1))).toThrow(BeamlineError);
    expect(() => keyOf("\ud800")).toThrow(/well-formed/);
  });
});
