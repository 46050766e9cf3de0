import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { collectionName, orAborted, sparse } from "./index.qdrant.ts";

test("a collection per model, of letters that Qdrant takes", () => {
  expect(collectionName("beamline_memory", "energetic-ai/embeddings-en@0.2")).toBe(
    "beamline_memory_energetic-ai-embeddings-en-0-2",
  );
  expect(collectionName("p", "openai:text-embedding-3-small")).toBe("p_openai-text-embedding-3-small");
});

test("a sparse vector has a dimension per word and its count; the same word always the same dimension", () => {
  const { indices, values } = sparse(["disk full, disk"]);
  expect(values).toEqual([2, 1]);
  expect(sparse(["full"]).indices).toEqual([indices[1]]);
  expect(indices.every((index) => Number.isInteger(index) && index >= 0 && index < 2 ** 32)).toBe(true);
  expect(sparse(["++", ""])).toEqual({ indices: [], values: [] });
});

test("waiting ends with the work or with the signal, and leaves no listener on it", async () => {
  const stop = new AbortController();
  expect(await orAborted(Promise.resolve(7), stop.signal)).toBe(7);
  await expect(orAborted(Promise.reject(new Error("no")), stop.signal)).rejects.toThrow("no");
  expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  const never = orAborted(new Promise(() => undefined), stop.signal);
  stop.abort(new Error("enough"));
  await expect(never).rejects.toThrow("enough");
});
