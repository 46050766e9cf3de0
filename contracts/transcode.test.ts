/** The short way from bytes to text and back never differs from the long way through messages. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { codecOf, opaque, type JsonObject } from "./codec.ts";
import { messages } from "./gen/index.ts";
import { transcoderOf } from "./transcode.ts";

const text = fc.string({ unit: "binary", maxLength: 200 });
const strings = fc.dictionary(
  fc.string({ minLength: 1, maxLength: 8 }).filter((key) => key !== "__proto__"),
  fc.string({ minLength: 1, maxLength: 300 }),
  { maxKeys: 5 },
);
const message = fc.record(
  {
    message_id: text,
    tenant_id: text,
    message_type: text,
    payload: text,
    metadata: strings,
    timestamp_ms: fc.maxSafeInteger(),
    span_id: text,
  },
  { requiredKeys: [] },
);
const samples: readonly (readonly [keyof typeof messages, fc.Arbitrary<object>])[] = [
  [
    "beamline.flow.v1.RouteRequest",
    fc.record({ message, policy_id: text, context: strings, idempotency_key: text }, { requiredKeys: [] }),
  ],
  [
    "beamline.flow.v1.RouteDecision",
    fc.record(
      {
        provider_id: text,
        priority: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        expected_latency_ms: fc.maxSafeInteger(),
        expected_cost: fc.double({ noNaN: true, noDefaultInfinity: true }),
        metadata: strings,
      },
      { requiredKeys: [] },
    ),
  ],
  [
    "aios.memory.SearchResults",
    fc.record(
      {
        results: fc.array(
          fc.record({
            content: text,
            metadata_json: text,
            relevance: fc.double({ noNaN: true, noDefaultInfinity: true }),
            collection: text,
            id: text,
          }),
        ),
      },
      { requiredKeys: [] },
    ),
  ],
  [
    "aios.memory.ContextRequest",
    fc.record({ task_description: text, max_tokens: fc.nat(), memory_tiers: fc.array(text) }, { requiredKeys: [] }),
  ],
];

test.each(samples)("%s: JSON to bytes and back", (name, arbitrary) => {
  const type = opaque(messages[name]);
  const codec = codecOf(type);
  const transcoder = transcoderOf(type);
  fc.assert(
    fc.property(arbitrary, (json) => {
      const long = type.encode(codec.fromJson(json)).finish();
      const bytes = transcoder.toBytes(JSON.stringify(json));
      expect(type.decode(bytes)).toEqual(type.decode(long));
      expect(JSON.parse(transcoder.toText(long))).toEqual(JSON.parse(JSON.stringify(codec.toJson(type.decode(long)))));
    }),
    { numRuns: 300 },
  );
});

/** The outcome of a way: what it gave, or the code and field of its refusal. */
function outcome(way: () => JsonObject): unknown {
  try {
    return way();
  } catch (error) {
    return { refused: (error as { code?: string }).code };
  }
}

test.each(samples)("%s: bytes that were tampered with are read or refused alike", (name, arbitrary) => {
  const type = opaque(messages[name]);
  const codec = codecOf(type);
  const transcoder = transcoderOf(type);
  const longWay = (bytes: Uint8Array): JsonObject => {
    let decoded: unknown;
    try {
      decoded = type.decode(bytes);
    } catch {
      throw Object.assign(new Error("undecodable"), { code: "invalid_argument" });
    }
    return JSON.parse(JSON.stringify(codec.toJson(decoded))) as JsonObject;
  };
  fc.assert(
    fc.property(
      arbitrary,
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.nat(),
      (json, changes, cut) => {
        const bytes = Buffer.from(type.encode(codec.fromJson(json)).finish());
        for (const [where, value] of changes) if (bytes.length > 0) bytes[where % bytes.length] = value;
        const tampered = cut % 3 === 0 ? bytes.subarray(0, cut % (bytes.length + 1)) : bytes;
        expect(outcome(() => JSON.parse(transcoder.toText(tampered)) as JsonObject)).toEqual(
          outcome(() => longWay(tampered)),
        );
      },
    ),
    { numRuns: 3_000 },
  );
});
