import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { orAborted } from "./aborted.ts";

test("waiting ends with the work or with the signal, and leaves no listener on it", async () => {
  const stop = new AbortController();
  expect(await orAborted(stop.signal, Promise.resolve(7))).toBe(7);
  await expect(orAborted(stop.signal, Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(getEventListeners(stop.signal, "abort")).toEqual([]);
  const late = Promise.withResolvers<never>();
  const never = orAborted(stop.signal, late.promise);
  stop.abort(new Error("enough"));
  await expect(never).rejects.toThrow("enough");
  await expect(orAborted(stop.signal, late.promise)).rejects.toThrow("enough");
  late.reject(new Error("nobody waits for it any more"));
});
