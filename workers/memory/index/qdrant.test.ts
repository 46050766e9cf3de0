import { expect, test } from "vitest";
import { collectionName, sparse } from "./index.qdrant.ts";

test("a collection per model, of letters that Qdrant takes", () => {
  expect(collectionName("beamline_memory", "energetic-ai/embeddings-en@0.2")).toBe(
    "beamline_memory_energetic-ai-embeddings-en-0-2_08d19ef86afd",
  );
  for (const model of ["openai:text-embedding-3-small", "m".repeat(1_000), "模型/一", "a b\u0000c"])
    expect(collectionName("p", model)).toMatch(/^p_[a-z0-9-]{0,64}_[0-9a-f]{12}$/);
});

test("models whose names read alike have collections of their own", () => {
  const models = [
    "a-b",
    "a_b",
    "A-B",
    "a.b",
    "a b",
    "a--b",
    "-a-b",
    "模型",
    "模",
    `${"m".repeat(80)}1`,
    `${"m".repeat(80)}2`,
  ];
  expect(new Set(models.map((model) => collectionName("p", model))).size).toBe(models.length);
});

test("a sparse vector has a dimension per word and its count; the same word always the same dimension", () => {
  const { indices, values } = sparse(["disk full, disk"]);
  expect(values).toEqual([2, 1]);
  expect(sparse(["full"]).indices).toEqual([indices[1]]);
  expect(indices.every((index) => Number.isInteger(index) && index >= 0 && index < 2 ** 32)).toBe(true);
  expect(sparse(["++", ""])).toEqual({ indices: [], values: [] });
});
