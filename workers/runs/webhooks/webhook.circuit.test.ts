import { expect, test } from "vitest";
import {
  afterFailure,
  afterSuccess,
  CLOSED,
  FAIL_AFTER,
  probing,
  REST_MS,
  standing,
  type Circuit,
} from "./webhook.circuit.ts";

const DAY = 24 * 60 * 60_000;
const start = Date.UTC(2026, 10, 1);

const failing = (circuit: Circuit, times: number, now: number): Circuit =>
  Array.from({ length: times }).reduce<Circuit>((before) => afterFailure(before, now), circuit);

test("three failures change nothing, the fourth rests an hour, then one may try", () => {
  expect(standing(failing(CLOSED, 3, start), start)).toBe("go");
  const open = failing(CLOSED, 4, start);
  expect([standing(open, start), standing(open, start + REST_MS - 1)]).toEqual(["rests", "rests"]);
  expect(standing(open, start + REST_MS)).toBe("probe");
  const tried = probing(open, start + REST_MS);
  expect(standing(tried, start + REST_MS)).toBe("rests");
  const again = afterFailure(tried, start + REST_MS);
  expect([standing(again, start + 2 * REST_MS - 1), standing(again, start + 2 * REST_MS)]).toEqual(["rests", "probe"]);
  expect(standing(afterSuccess(tried), start + REST_MS)).toBe("go");
});

test("a success between failures starts the count anew", () => {
  const mended = afterSuccess(failing(CLOSED, 3, start));
  expect(standing(failing(mended, 3, start), start)).toBe("go");
});

test("a hundred failures within a week fail it, also around the turn of a week, and not when they are older", () => {
  const almost = failing(CLOSED, FAIL_AFTER - 1, start);
  expect(almost.state).toBe("active");
  expect(standing(afterFailure(almost, start + 6 * DAY), start + 400 * DAY)).toBe("failed");
  expect(afterFailure(almost, start + 7 * DAY).state).toBe("active");
  expect(afterFailure(afterSuccess(almost), start + DAY).state).toBe("failed");
});
