/** Every message of every contract has its golden file, and the file says what its name promises. */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { messages } from "../../contracts/gen/index.ts";

const folder = fileURLToPath(new URL(".", import.meta.url));
const descriptors = readFileSync(new URL("../../contracts/gen/descriptors.binpb", import.meta.url));
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const names = Object.keys(messages);

type Case = { readonly name: string; readonly json: object; readonly proto_hex: string };

function casesOf(type: string): Map<string, Case> {
  const descriptor = registry.getMessage(type);
  if (descriptor === undefined) throw new Error(`no descriptor for ${type}`);
  const inPackage = type.slice(descriptor.file.proto.package.length + 1);
  const file = readFileSync(`${folder}${descriptor.file.proto.package}/${inPackage}.json`, "utf8");
  const { cases } = JSON.parse(file) as { cases: readonly Case[] };
  return new Map(cases.map((one) => [one.name, one]));
}

test("there is one golden file per message and none besides", () => {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".json") && path.includes("/"))
    .map((path) => path.replace("/", ".").replace(/\.json$/, ""));
  expect(names.length).toBeGreaterThan(100);
  expect(files.sort()).toEqual([...names].sort());
});

test.each(names)("%s: full sets every field, empty sets none", (type) => {
  const cases = casesOf(type);
  const fields = registry.getMessage(type)?.fields.map(({ name }) => name);
  expect(Object.keys(cases.get("full")?.json ?? {})).toEqual(fields);
  expect(cases.get("empty")).toEqual({ name: "empty", json: {}, proto_hex: "" });
});

test("every rejected input names a message that exists", () => {
  const file = readFileSync(`${folder}rejects.json`, "utf8");
  const { cases } = JSON.parse(file) as { cases: readonly { type: string }[] };
  expect(cases.length).toBeGreaterThan(50);
  for (const { type } of cases) expect(names).toContain(type);
});
