import { expect, test } from "vitest";
import { ManualClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import type { MemoryLog } from "./log.ts";
import { follow, type Projection } from "./tail.ts";

test("a projection that is renewed is begun anew at once, however long the pause after its failures has become", async () => {
  const clock = new ManualClock();
  const stop = new AbortController();
  let renew = new AbortController();
  let tried = 0;
  const projection: Projection = {
    name: "a projection",
    subjects: [],
    renewed: () => renew.signal,
    applied: () => {
      tried++;
      return Promise.reject(new Error("away"));
    },
    build: () => Promise.resolve(),
    empty: () => Promise.resolve(),
    apply: () => Promise.resolve(),
    setApplied: () => Promise.resolve(),
    report: () => undefined,
  };
  const log = {} as MemoryLog; // is not reached: the projection cannot be asked where it is
  const parts = { log, clock, logger: silentLogger, bury: () => Promise.resolve() };
  const running = follow(projection, parts, stop.signal);
  const asleep = async (): Promise<void> => {
    while (clock.sleeping === 0) await new Promise((resolve) => setImmediate(resolve));
  };
  for (const pause of [100, 200, 400, 800, 1_600, 3_200, 5_000]) {
    await asleep();
    await clock.advance(pause);
  }
  await asleep();
  expect(tried).toBe(8);
  const old = renew;
  renew = new AbortController();
  old.abort();
  while (tried < 9) await new Promise((resolve) => setImmediate(resolve));
  await asleep();
  await clock.advance(100);
  while (tried < 10) await new Promise((resolve) => setImmediate(resolve));
  stop.abort();
  await running;
});
