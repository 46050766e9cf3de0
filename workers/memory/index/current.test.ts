/** When an index of one's own has what the log has. */
import { beforeEach, expect, test } from "vitest";
import { ManualClock } from "../../../runtime/clock.ts";
import { Current } from "./current.ts";
import type { Ahead } from "../log.ts";

const never = new AbortController().signal;
let clock: ManualClock;
let current: Current;
let said: Ahead | Error;
let asked: number;

beforeEach(() => {
  clock = new ManualClock(0);
  current = new Current(clock);
  said = { pending: 0, sent: { consumer: "c1", count: 0 } };
  asked = 0;
});

function begin(after = 0): void {
  current.begin(after, () => {
    asked++;
    return said instanceof Error ? Promise.reject(said) : Promise.resolve(said);
  });
}

const sent = (count: number, pending = 0, consumer = "c1"): Ahead => ({ pending, sent: { consumer, count } });

/** Whether it has resolved by now, everything that is under way being done. */
async function isThere(waiting: Promise<void>): Promise<boolean> {
  let there = false;
  void waiting.then(() => (there = true));
  await new Promise((resolve) => setImmediate(resolve));
  return there;
}

test("nothing sent is nothing to wait for", async () => {
  begin(7);
  await current.reached(never);
});

test("U1: a record that has come is waited for until the tail has passed it", async () => {
  begin();
  said = sent(2);
  current.arrived(3, { consumer: "c1", count: 1 });
  current.arrived(9, { consumer: "c1", count: 2 });
  const waiting = current.reached(never);
  expect(await isThere(waiting)).toBe(false);
  current.passed(3);
  expect(await isThere(waiting)).toBe(false);
  current.passed(9);
  await waiting;
});

test("U1: what a call has put in needs no tail, whether it did so before the record came or after", async () => {
  begin();
  said = sent(2);
  current.put(3);
  current.arrived(3, { consumer: "c1", count: 1 });
  current.arrived(9, { consumer: "c1", count: 2 });
  const waiting = current.reached(never);
  expect(await isThere(waiting)).toBe(false);
  current.put(9);
  await waiting;
});

test("what the server has still to send, or has sent and has not come, is waited for", async () => {
  begin();
  said = sent(0, 1);
  const waiting = current.reached(never);
  expect(await isThere(waiting)).toBe(false);
  said = sent(1);
  await clock.advance(1_000);
  expect(await isThere(waiting)).toBe(false);
  current.arrived(5, { consumer: "c1", count: 1 });
  current.passed(5);
  await waiting;
});

test("what came from a consumer that is gone says nothing of the one that took its place", async () => {
  begin();
  current.arrived(5, { consumer: "c1", count: 4 });
  current.passed(5);
  said = sent(1, 0, "c2");
  const waiting = current.reached(never);
  expect(await isThere(waiting)).toBe(false);
  current.arrived(6, { consumer: "c2", count: 1 });
  current.passed(6);
  await waiting;
});

test("what comes later is not waited for", async () => {
  begin();
  said = sent(1);
  current.arrived(5, { consumer: "c1", count: 1 });
  const waiting = current.reached(never);
  expect(await isThere(waiting)).toBe(false);
  current.arrived(6, { consumer: "c1", count: 2 });
  current.passed(5);
  await waiting;
});

test("no answer is asked for again; a signal ends the waiting", async () => {
  const before = current.reached(never);
  expect(await isThere(before)).toBe(false);
  said = new Error("no consumer");
  begin();
  await clock.advance(1_000);
  expect(await isThere(before)).toBe(false);
  said = sent(0);
  await clock.advance(1_000);
  await before;
  said = sent(0, 3);
  const stop = new AbortController();
  const waiting = current.reached(stop.signal);
  expect(await isThere(waiting)).toBe(false);
  stop.abort();
  await waiting;
});

test("U2: those that come while the server is asked share the next question", async () => {
  begin();
  await Promise.all(Array.from({ length: 50 }, () => current.reached(never)));
  expect(asked).toBe(2);
});
