/** Calls of a worker thread. */
import { afterAll, expect } from "vitest";
import { Thread } from "../../workers/memory/index/thread.ts";
import { verifies } from "../kit/verifies.ts";

const thread = new Thread(new URL("thread.worker.ts", import.meta.url), "the thread");
afterAll(() => thread.close());

verifies(
  "clear-failure",
  "memory: a thread that has more to do than it can does only what is still wanted",
  async () => {
    const until = new Int32Array(new SharedArrayBuffer(4));
    const held = thread.call("hold", until);
    const stop = new AbortController();
    const given = expect(thread.call("note", "given up", stop.signal)).rejects.toMatchObject({ code: "cancelled" });
    const wanted = thread.call("note", "wanted");
    stop.abort();
    await given;
    Atomics.store(until, 0, 1);
    Atomics.notify(until, 0);
    await Promise.all([held, wanted]);
    expect(await thread.call("noted", undefined)).toEqual(["wanted"]);
  },
);

verifies(
  "crash-safe",
  "memory: a thread that dies fails what it was doing, and the next call starts another",
  async () => {
    await thread.call("note", "before");
    const waiting = expect(thread.call("noted", undefined, AbortSignal.timeout(60_000)));
    const dying = expect(thread.call("die", undefined)).rejects.toMatchObject({ code: "unavailable" });
    const behind = expect(thread.call("note", "behind it")).rejects.toMatchObject({ code: "unavailable" });
    await waiting.resolves.toContain("before");
    await Promise.all([dying, behind]);
    expect(await thread.call("noted", undefined)).toEqual([]);
  },
);
