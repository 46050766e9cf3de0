import { expect, test, vi } from "vitest";
import { Gathering } from "./gathering.ts";

/** A gathering of four slots over a pull that notes what it is asked for. */
function made(): { gathering: Gathering; asked: string[]; comes: () => Promise<void>; done: (count: number) => void } {
  const asked: string[] = [];
  const pull = {
    asked: 0,
    ask(batch: number, when: "now" | "later" = "later") {
      asked.push(`${batch} ${when}`);
      pull.asked += batch;
    },
  };
  let taken = 0;
  const gathering = new Gathering({ ms: 50, slots: 4, pull, free: () => 4 - taken - pull.asked });
  return {
    gathering,
    asked,
    comes() {
      pull.asked--;
      taken++;
      return gathering.arrived();
    },
    done(count) {
      taken -= count;
      gathering.refill();
    },
  };
}

/** Whether a moment is over. */
async function over(moment: Promise<void>): Promise<boolean> {
  let settled = false;
  void moment.then(() => (settled = true));
  await Promise.resolve();
  await Promise.resolve();
  return settled;
}

test("G1: one is asked for at rest; a moment after it came, all that is there", async () => {
  vi.useFakeTimers();
  const { gathering, asked, comes } = made();
  gathering.refill();
  gathering.refill();
  expect(asked).toEqual(["1 later"]);
  const first = comes();
  gathering.refill();
  vi.advanceTimersByTime(49);
  expect(asked).toEqual(["1 later"]);
  vi.advanceTimersByTime(1);
  expect(asked).toEqual(["1 later", "3 now"]);
  const second = comes();
  expect(await over(first)).toBe(false);
  gathering.end(); // the server says that there were no more
  expect([await over(first), await over(second)]).toEqual([true, true]);
  vi.advanceTimersByTime(1_000);
  expect(asked).toHaveLength(2);
  vi.useRealTimers();
});

test("G2: after a fetch that was filled the next one waits for a quarter of the slots, and for no moment", async () => {
  vi.useFakeTimers();
  const { gathering, asked, comes, done } = made();
  gathering.refill();
  const first = comes();
  vi.advanceTimersByTime(50);
  const rest = [comes(), comes(), comes()];
  expect(await Promise.all([first, ...rest].map(over))).toEqual([true, true, true, true]);
  done(2);
  expect(asked).toEqual(["1 later", "3 now", "2 now"]);
  const next = comes();
  vi.advanceTimersByTime(1_000);
  expect(asked).toHaveLength(3);
  gathering.end();
  expect(await over(next)).toBe(true);
  vi.useRealTimers();
});

test("G3: a fetch whose end is never told holds nothing up for longer than a second", async () => {
  vi.useFakeTimers();
  const { gathering, comes } = made();
  gathering.refill();
  const first = comes();
  vi.advanceTimersByTime(50);
  const second = comes();
  vi.advanceTimersByTime(999);
  expect([await over(first), await over(second)]).toEqual([false, false]);
  vi.advanceTimersByTime(1);
  expect([await over(first), await over(second)]).toEqual([true, true]);
  vi.useRealTimers();
});
