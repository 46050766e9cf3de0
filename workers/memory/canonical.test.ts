/** A text that is kept as it came is the one the long way would have made of it. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { entryOf } from "./arrival.ts";
import { canonicalKind } from "./canonical.ts";
import { canonicalRequest } from "./event.ts";

/** What is kept of a text the long way, undefined when it is refused. */
function longWay(text: string): string | undefined {
  try {
    return entryOf(canonicalRequest(JSON.parse(text)));
  } catch {
    return undefined;
  }
}

const word = fc.oneof(
  fc.string({ unit: "binary", minLength: 1 }),
  fc.constantFrom("a", "tool_result", 'with "quotes"', "back\\slash", "line\nbreak", "\u0000", "\ud800", "ü", "😀"),
);
/** Some of it is JSON. */
const oddJson = [
  ..."0 -0 01 1. .5 1e5 1E+5 1e - +1 1.5e-10 nul nulls [] [1,] [,1] {} {a:1} {,} [[[]]] ] }".split(" "),
  ...'true | false|[1 ,2]|[1 2]|{"a":1,}|{"a" : 1}|{"a"}|{"a":}|\t1|\u000b1|\u00a01|\ufeff1| |'.split("|"),
  ...String.raw`" "a "\n" "\x" "\u00e9" "\u00g9" "\u12" "\/" "" "\uD83D" '1'`.split(" "),
  '"a\nb"',
];
const json = fc.oneof(
  fc.json(),
  fc.json().map((text) => JSON.stringify(JSON.parse(text), undefined, 2)),
  fc.constantFrom(...oddJson, "[".repeat(500), "[".repeat(63) + "]".repeat(63), "[".repeat(500) + "]".repeat(500)),
);
const event = fc.record(
  {
    id: word,
    timestamp: fc.oneof(fc.integer(), fc.integer({ min: 1, max: 2_000_000_000 }), fc.constantFrom(2 ** 53, 1.5, 1e300)),
    category: fc.oneof(word, fc.constant("")),
    source: word,
    data_json: json,
    critical: fc.boolean(),
  },
  { requiredKeys: ["id", "timestamp"] },
);
/** A text with one character taken out, put in, or changed. */
const damaged = fc
  .tuple(event, fc.nat(), fc.constantFrom("", "\\", '"', " ", "0", "}", ",", "\u0001", "\\u0041"), fc.boolean())
  .map(([one, place, piece, instead]) => {
    const text = JSON.stringify(one);
    const at = place % text.length;
    return text.slice(0, at) + piece + text.slice(instead ? at + 1 : at);
  });

test("a text told to be canonical is what the long way makes of it", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        event.map((one) => JSON.stringify(one)),
        damaged,
      ),
      (text) => {
        const kind = canonicalKind(text);
        if (kind === undefined) return;
        expect(longWay(text)).toBe(text);
        expect(kind).toBe((JSON.parse(text) as { critical?: boolean }).critical === true ? "critical" : "ordinary");
      },
    ),
    { numRuns: 20_000 },
  );
});

test("the usual events are told to be canonical", () => {
  const data = JSON.stringify({
    tool: "net.ping",
    ok: true,
    n: [1, -2.5e3, null],
    note: 'says "hi"\n\u00e9',
    deep: { a: [{}] },
  });
  const usual = {
    id: "0193",
    timestamp: 1_735_689_600,
    category: "tool_result",
    source: "agent \\ 1",
    data_json: data,
  };
  expect(canonicalKind(JSON.stringify(usual))).toBe("ordinary");
  expect(canonicalKind(JSON.stringify({ ...usual, critical: true }))).toBe("critical");
  expect(canonicalKind('{"id":"a","timestamp":7}')).toBe("ordinary");
  expect(canonicalKind(JSON.stringify({ id: "a", timestamp: 7, data_json: " [1 , 2]\n" }))).toBe("ordinary");
});

test("what the long way writes in another way, or refuses, is not told to be canonical", () => {
  const strange = [
    '{"id":"","timestamp":7}',
    '{"id":"a","timestamp":0}',
    '{"id":"a","timestamp":07}',
    '{"id":"a","timestamp":-7}',
    '{"id":"a"}',
    '{"id":"a","timestamp":7,"category":""}',
    '{"id":"a","timestamp":7,"critical":false}',
    '{"id":"a","timestamp":7,"source":"s","category":"c"}',
    '{"id":"a","timestamp":7,"id":"b"}',
    '{"id":"a","timestamp":7,"data_json":"{"}',
    '{"id":"a","timestamp":7,"data_json":""}',
    '{"id":"\\u0061","timestamp":7}',
    '{"id":"a/","timestamp":7} ',
    '{"id":"a\\/","timestamp":7}',
    '{"id":"a","timestamp":7',
    "",
  ];
  expect(strange.map(canonicalKind)).toEqual(strange.map(() => undefined));
});
