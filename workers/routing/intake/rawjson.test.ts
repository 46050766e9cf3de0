import * as fc from "fast-check";
import { expect, test } from "vitest";
import { sliceAt } from "./rawjson.ts";

test.each([
  ['{"a":{"b":[1, 2]}}', ["a", "b"], "[1, 2]"],
  [' { "x" : "}\\"," , "a" : 12345678901234567890 } ', ["a"], "12345678901234567890"],
  ['{"a":1,"a":{"b":"last"}}', ["a"], '{"b":"last"}'],
  ['{"\\u0061":true}', ["a"], "true"],
  ['{"a":{}}', ["a"], "{}"],
  ['{"a":1.50e+2}', ["a"], "1.50e+2"],
  ['{"a":1}', ["b"], undefined],
  ['{"a":1}', ["a", "b"], undefined],
  ["{}", ["a"], undefined],
  ["[1]", ["a"], undefined],
])("%s at %j", (text, path, expected) => {
  expect(sliceAt(text, path)).toBe(expected);
});

test("whatever stands there, however it is written", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), fc.constantFrom(undefined, 1, "\t"), (value, other, indent) => {
      const written = JSON.stringify(value);
      const text = JSON.stringify({ other, message: { first: other, payload: 0, last: other } }, null, indent).replace(
        /"payload": ?0/,
        () => `"payload": ${written}`,
      );
      expect(sliceAt(text, ["message", "payload"])).toBe(written);
    }),
  );
});
