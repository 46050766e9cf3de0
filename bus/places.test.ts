import { expect, test } from "vitest";
import { Places } from "./places.ts";

const named = (name: string): { name: string } => ({ name });

test("a place is given again once it is free, and frees only for who has it", () => {
  const places = new Places<{ name: string }>();
  const [a, b, c] = [named("a"), named("b"), named("c")];
  const first = places.add(a);
  const second = places.add(b);
  expect(second).not.toBe(first);
  places.remove(first, a);
  expect([places.size, places.at(first)]).toEqual([1, undefined]);
  expect(places.add(c)).toBe(first);
  places.remove(first, a);
  expect([places.at(first), places.size]).toEqual([c, 2]);
  places.remove(first, c);
  places.remove(first, c);
  expect([places.size, places.add(a), places.add(c)]).toEqual([1, first, second + 1]);
});

test("all that are there are gone through, also while they leave and others come", () => {
  const places = new Places<{ name: string }>();
  const place = new Map(["a", "b", "c"].map((name) => named(name)).map((one) => [one, places.add(one)]));
  const seen: string[] = [];
  for (const one of places) {
    seen.push(one.name);
    places.remove(place.get(one) ?? -1, one);
    if (seen.length < 10) places.add(named("late"));
  }
  expect(seen).toEqual(["a", "b", "c"]);
  expect(places.size).toBe(3);
});
