import { expect, test } from "vitest";
import { Limiter } from "./limiter.ts";

test("a window per endpoint and caller; the narrowest limit is told, and the next window begins anew", () => {
  let now = 600_000;
  const limiter = new Limiter(60, () => now);
  const limits = [
    { endpoint: "decide", max: 2 },
    { endpoint: "global", max: 3 },
  ];
  expect(limiter.take("a", limits)).toMatchObject({
    endpoint: "decide",
    remaining: 1,
    exceeded: false,
    resetSeconds: 660,
  });
  expect(limiter.take("a", limits)).toMatchObject({ endpoint: "decide", remaining: 0, exceeded: false });
  now += 59_000;
  expect(limiter.take("a", limits)).toMatchObject({ endpoint: "decide", exceeded: true, retryAfterSeconds: 1 });
  expect(limiter.take("b", limits)).toMatchObject({ exceeded: false });
  expect(limiter.take("a", [{ endpoint: "global", max: 3 }])).toMatchObject({ endpoint: "global", exceeded: true });
  now += 1_000;
  expect(limiter.take("a", limits)).toMatchObject({ exceeded: false, remaining: 1 });
});

test("a limit of 0 is none", () => {
  expect(new Limiter(60, () => 0).take("a", [{ endpoint: "decide", max: 0 }])).toBeUndefined();
});
