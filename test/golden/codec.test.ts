/** The JSON codec against the golden files: both directions for every message of every contract, and what must be refused. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { codecOf, opaque, type JsonObject } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { transcoderOf } from "../../contracts/transcode.ts";
import { messages } from "../../contracts/gen/index.ts";

interface Case {
  readonly name: string;
  readonly json: JsonObject;
  readonly proto_hex: string;
}

interface Reject {
  readonly name: string;
  readonly type: keyof typeof messages;
  readonly direction: "from_json" | "from_proto";
  readonly input: unknown;
  readonly expect: { readonly error_field?: string; readonly json?: JsonObject };
}

const folder = fileURLToPath(new URL(".", import.meta.url));
const read = (path: string): { cases: never[] } =>
  JSON.parse(readFileSync(folder + path, "utf8")) as { cases: never[] };

function goldenOf(fullName: string): readonly Case[] {
  const split = fullName.search(/\.[A-Z]/);
  return read(`${fullName.slice(0, split)}/${fullName.slice(split + 1)}.json`).cases;
}

describe.each(Object.keys(messages) as (keyof typeof messages)[])("%s", (fullName) => {
  const type = opaque(messages[fullName]);
  const codec = codecOf(type);
  const transcoder = transcoderOf(type);
  test.each(goldenOf(fullName))("$name", ({ json, proto_hex }) => {
    expect(codec.toJson(type.decode(Buffer.from(proto_hex, "hex")))).toEqual(json);
    const wire = JSON.parse(JSON.stringify(json)) as unknown;
    expect(Buffer.from(type.encode(codec.fromJson(wire)).finish()).toString("hex")).toBe(proto_hex);
    expect(JSON.parse(transcoder.toText(Buffer.from(proto_hex, "hex")))).toEqual(json);
    expect(transcoder.toBytes(JSON.stringify(json)).toString("hex")).toBe(proto_hex);
  });
});

describe("rejects", () => {
  const rejects: readonly Reject[] = read("rejects.json").cases;
  test("there are some", () => expect(rejects.length).toBeGreaterThan(100));
  test.each(rejects)("$type $name", ({ type: fullName, direction, input, expect: expected }) => {
    const type = opaque(messages[fullName]);
    const codec = codecOf(type);
    const transcoder = transcoderOf(type);
    const bytes = (): Buffer => Buffer.from(input as string, "hex");
    const ways: readonly (() => unknown)[] =
      direction === "from_json"
        ? [
            () => codec.toJson(codec.fromJson(input)),
            () => JSON.parse(transcoder.toText(transcoder.toBytes(textOf(input)))),
          ]
        : [() => codec.toJson(type.decode(bytes())), () => JSON.parse(transcoder.toText(bytes()))];
    for (const way of ways) {
      if (expected.json !== undefined) expect(way()).toEqual(expected.json);
      else expect(refusal(way)).toEqual({ code: "invalid_argument", field: expected.error_field });
    }
  });
});

/** The text of an input; JSON has no infinity, but a number too large for a double reads as one. */
function textOf(input: unknown): string {
  return JSON.stringify(input, (_key, value: unknown) => (value === Infinity ? "\u0000infinity" : value)).replaceAll(
    '"\\u0000infinity"',
    "1e999",
  );
}

function refusal(way: () => unknown): { code: string; field: string } | undefined {
  try {
    way();
    return undefined;
  } catch (thrown) {
    if (!(thrown instanceof BeamlineError)) throw thrown;
    return { code: thrown.code, field: thrown.field ?? "" };
  }
}
