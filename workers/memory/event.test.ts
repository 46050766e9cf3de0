/** The short way of PushEvent says what the codec says, and an event's text is its identity. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { codecOf } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { Event } from "../../contracts/gen/aios/memory.ts";
import { entryOf, fitting, readArrivals, shownText, writeArrivals } from "./arrival.ts";
import { canonicalEvent, canonicalRequest } from "./event.ts";

const codec = codecOf(Event);
const outcome = (run: () => unknown): unknown => {
  try {
    return JSON.stringify(run());
  } catch (thrown) {
    const { code, message, field } = BeamlineError.from(thrown);
    return { code, message, field };
  }
};

const texts = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.constantFrom("", "a", "\ud800", '"', "\n", "{}", '{"a":1}', "nul"),
);
const odd = fc.constantFrom(null, true, false, 0, -0, 7, 1.5, 2 ** 60, "9007199254740993", "7", "x", {}, [], { a: 1 });
const field = fc.oneof(texts, odd, fc.integer());
const request = fc.record(
  { id: field, timestamp: field, category: field, source: field, data_json: field, critical: field, unknown: field },
  { requiredKeys: [] },
);

test("every request has the same event, or the same error, by the short way as by the codec", () => {
  fc.assert(
    fc.property(fc.oneof({ weight: 20, arbitrary: request }, odd), (json) => {
      const short = outcome(() => canonicalRequest(json));
      expect(short).toEqual(outcome(() => canonicalEvent(codec.fromJson(json))));
    }),
    { numRuns: 3_000 },
  );
});

test("E1: the order of the fields and what is unset make no other event", () => {
  const one = canonicalRequest({ critical: true, source: "s", id: "a", timestamp: "5", category: "", extra: 1 });
  expect(entryOf(one)).toBe('{"id":"a","timestamp":5,"source":"s","critical":true}');
});

test("E2: an event without a timestamp shows its arrival, and comes out of the log as it went in", () => {
  const entry = entryOf({ id: "a", category: '","timestamp":1' });
  const arrival = { tenant: "t", at: 1_700_000_000_123_456, critical: false, entry };
  expect(JSON.parse(shownText(arrival))).toEqual({ id: "a", category: '","timestamp":1', timestamp: 1_700_000_000 });
  expect(readArrivals("log.memory.recent.t", writeArrivals([arrival]))).toEqual([
    { ...arrival, text: shownText(arrival) },
  ]);
});

test("a message of the log takes as many events as are wanted, fewer when they are large, and always one", () => {
  const of = (...sizes: number[]) => sizes.map((size) => ({ entry: "x".repeat(size) }));
  expect(fitting(of(10, 10, 10), 2)).toBe(2);
  expect(fitting(of(10, 10, 10), 1_000)).toBe(3);
  expect(fitting(of(200_000, 62_144, 1), 1_000)).toBe(2);
  expect(fitting(of(5_000_000, 1), 1_000)).toBe(1);
  expect(fitting([], 1_000)).toBe(0);
});
