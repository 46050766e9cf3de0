import { expect, test } from "vitest";
import type { RunState } from "../../contracts/openwop/state.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { RunCache } from "./runcache.ts";

const held = (variables: Record<string, unknown>, streamSeq = 1) => ({
  state: { variables, nodes: new Map([["a", { outputs: {} }]]) } as unknown as RunState,
  streamSeq,
});

verifies("crash-safe", "states of many large runs take no more memory than a worker can spare", () => {
  const cache = new RunCache(1_000_000);
  for (let run = 0; run < 50; run++) cache.put(`r${run}`, held({ text: "x".repeat(100_000) }));
  expect(cache.size).toBe(9);
  expect([cache.get("r40"), cache.get("r41")]).toEqual([undefined, expect.anything()]);
  // One that grows beyond all of it is kept alone, and weighed anew when it shrinks.
  const growing = held({ values: ["small"] });
  cache.put("growing", growing);
  expect(cache.size).toBe(10);
  growing.state.variables["values"] = Array.from({ length: 100_000 }, (_, at) => at);
  growing.streamSeq++;
  cache.put("growing", growing);
  expect([cache.size, cache.get("growing")]).toEqual([1, growing]);
  growing.state.variables["values"] = [];
  growing.streamSeq++;
  cache.put("growing", growing);
  cache.put("other", held({}));
  expect(cache.size).toBe(2);
});

test("the least recently used goes first; two thousand are kept", () => {
  const cache = new RunCache();
  for (let run = 0; run < 2_000; run++) cache.put(`r${run}`, held({}));
  const [first] = [cache.get("r0")];
  if (first !== undefined) cache.put("r0", first);
  cache.put("new", held({}));
  expect([cache.size, cache.get("r1")]).toEqual([2_000, undefined]);
  expect(cache.get("r0")).toBe(first);
  cache.delete("r0");
  cache.delete("nobody");
  expect(cache.size).toBe(1_999);
});
