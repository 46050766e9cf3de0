import { describe, expect, test } from "vitest";
import { BeamlineError } from "../contracts/errors.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import { consumeTestbed, settled, spec } from "./consume.testbed.ts";
import { publish } from "./publish.ts";
import { ensureStreams } from "./streams.ts";

const bed = consumeTestbed();

const deadLetters = async (durable: string) => {
  const { state } = await bed.bus.jsm.streams.info("DLQ", { subjects_filter: `dlq.WORK.${durable}` });
  return state.subjects?.[`dlq.WORK.${durable}`] ?? 0;
};

describe("handling", () => {
  test("C1: every message is handled once, with what its publisher said", async () => {
    const { seen, consumption, texts } = await bed.watch("plain", () => undefined, { concurrency: 8 });
    for (let i = 0; i < 100; i++) await bed.send("plain", `${i}`, { tenant_id: "t" });
    await until(() => seen.length >= 100);
    await settled(consumption);
    expect(new Set(texts()).size).toBe(100);
    expect(seen.length).toBe(100);
    expect(seen[0]?.context).toMatchObject({ subject: "log.work.plain.x", attempt: 1, deliveryCount: 1 });
    expect(seen[0]?.context.headers).toMatchObject({ tenant_id: "t", "Nats-Msg-Id": seen[0]?.context.msgId });
    expect(Math.abs(Date.now() - (seen[0]?.context.timestampMs ?? 0))).toBeLessThan(60_000);
  });

  test("C5: never more at once than there are slots", async () => {
    let now = 0;
    let most = 0;
    const { seen, consumption } = await bed.watch(
      "slots",
      async () => {
        most = Math.max(most, ++now);
        await new Promise(setImmediate);
        now--;
      },
      { concurrency: 3 },
    );
    await Promise.all(Array.from({ length: 60 }, (_, i) => bed.send("slots", `${i}`)));
    await until(() => seen.length === 60);
    await settled(consumption);
    expect(most).toBe(3);
  });

  test("C5: two replicas share the work", async () => {
    const one = await bed.watch("share", () => new Promise(setImmediate), { concurrency: 2 });
    const two = await bed.watch(
      "share",
      () => new Promise(setImmediate),
      { concurrency: 2 },
      await bed.nats.connect("two"),
    );
    await Promise.all(Array.from({ length: 80 }, (_, i) => bed.send("share", `${i}`)));
    await until(() => one.seen.length + two.seen.length === 80);
    await settled(one.consumption);
    expect(new Set([...one.texts(), ...two.texts()]).size).toBe(80);
    expect(Math.min(one.seen.length, two.seen.length)).toBeGreaterThan(0);
  });
});

describe("failures", () => {
  test("C2: retry comes again with backoff, as the same message, and only to this consumer", async () => {
    const bystander = await bed.watch("retry2", () => undefined, { filterSubjects: ["log.work.retry.>"] });
    const { seen, events, consumption } = await bed.watch("retry", ({ attempt }) => {
      if (attempt < 3) throw new BeamlineError("unavailable", "not yet");
    });
    const { seq } = await bed.send("retry", "a", { traceparent: "00-1-2-01" });
    await until(() => seen.length === 3);
    await settled(consumption);
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    for (const { context, text } of seen) {
      expect(text).toBe("a");
      expect(context).toMatchObject({ subject: "log.work.retry.x", msgId: "retry-a", streamSequence: seq });
      expect(context.headers).toEqual({ traceparent: "00-1-2-01", "Nats-Msg-Id": "retry-a" });
      expect(context.timestampMs).toBe(seen[0]?.context.timestampMs);
    }
    expect(events.filter(({ type }) => type === "retry").length).toBe(2);
    expect(bystander.seen.length).toBe(1);
  });

  test("C2: a waiting message holds up nothing behind it", async () => {
    const options = { concurrency: 1, maxAckPending: 1, backoffMs: [60_000] };
    const { seen, consumption } = await bed.watch(
      "aside",
      ({ text }) => {
        if (text === "bad") throw new BeamlineError("unavailable", "later");
      },
      options,
    );
    await bed.send("aside", "bad");
    await bed.send("aside", "good");
    await until(() => seen.length === 2);
    await settled(consumption);
  });

  test("C2: what no try can mend is a dead letter at once", async () => {
    const { seen, events } = await bed.watch("term", () => {
      throw new BeamlineError("invalid_argument", "bad field");
    });
    await bed.send("term", "a");
    await until(() => events.some(({ type }) => type === "dead"));
    expect(seen.length).toBe(1);
    expect(events).toMatchObject([{ type: "dead", reason: "validation_failed" }]);
    expect(await deadLetters("term")).toBe(1);
  });

  verifies("clear-failure", "C2: tries end after maxDeliver, in a dead letter with the reason", async () => {
    const { seen, events, consumption } = await bed.watch("tries", () => Promise.reject(new Error("a stranger")), {
      maxDeliver: 3,
    });
    await bed.send("tries", "a");
    await until(() => events.some(({ type }) => type === "dead"));
    await settled(consumption);
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    expect(events.at(-1)).toMatchObject({ type: "dead", reason: "maxdeliver_exhausted", error: { code: "internal" } });
    expect(await deadLetters("tries")).toBe(1);
  });

  test("C2: done means done, and a handler that throws at once is no different", async () => {
    const { seen, events, consumption } = await bed.watch("done", () => undefined, {
      handler: () => {
        throw new BeamlineError("already_exists", "an earlier try did it");
      },
    });
    await bed.send("done", "a");
    await until(() => events.length > 0);
    await settled(consumption);
    expect(events).toMatchObject([{ type: "done" }]);
    expect(seen.length).toBe(0);
  });

  test("C3: deliveries nobody answered count, and end in a dead letter", async () => {
    let deaths = 0;
    // Each process takes the message and is gone.
    for (; deaths < 2; deaths++) {
      const doomed = await bed.nats.connect("doomed");
      const { seen } = await bed.watch(
        "poison",
        () => new Promise(() => undefined),
        { ackWaitMs: 300, maxDeliver: 2 },
        doomed,
      );
      if (deaths === 0) await bed.send("poison", "a");
      await until(() => seen.length === 1);
      expect(seen[0]?.attempt).toBe(deaths + 1);
      await doomed.close();
    }
    const { seen, events, consumption } = await bed.watch("poison", () => undefined, { ackWaitMs: 300, maxDeliver: 2 });
    await until(() => events.some(({ type }) => type === "dead"));
    await settled(consumption);
    expect(seen.length).toBe(0);
    expect(events).toMatchObject([{ type: "dead", reason: "maxdeliver_exhausted" }]);
    expect(await deadLetters("poison")).toBe(1);
  });

  test("a stream without schedules retries too", async () => {
    const plain = { ...spec, name: "PLAIN", subjects: ["log.noschedules.>"], schedules: false };
    await ensureStreams(bed.bus, [plain]);
    const options = { stream: plain, filterSubjects: ["log.noschedules.>"] };
    const { seen } = await bed.watch(
      "noschedules",
      ({ attempt }) => {
        if (attempt < 2) throw new BeamlineError("unavailable", "not yet");
      },
      options,
    );
    await publish(bed.bus, "log.noschedules.a", "a");
    await until(() => seen.length === 2);
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2]);
  });

  test("an observer that throws decides nothing", async () => {
    const { seen, consumption } = await bed.watch("observer", () => undefined, {
      onEvent: () => {
        throw new Error("in the observer");
      },
    });
    await bed.send("observer", "a");
    await until(() => seen.length === 1);
    await settled(consumption);
  });
});

describe("leases", () => {
  test("C4: a handler slower than the ack wait keeps its message", async () => {
    let finish: () => void = () => undefined;
    const slow = new Promise<void>((resolve) => (finish = resolve));
    const started = performance.now();
    const { seen, consumption } = await bed.watch("slow", () => slow, { ackWaitMs: 300 });
    await bed.send("slow", "a");
    await until(() => seen.length > 0 && performance.now() - started > 1_200);
    finish();
    await settled(consumption);
    expect(seen.length).toBe(1);
  });

  test("C4: beyond maxWorkMs it is told to stop, and the try has failed", async () => {
    const { seen, events } = await bed.watch(
      "endless",
      ({ context, attempt }) => {
        if (attempt > 1) return undefined;
        return new Promise((_resolve, reject) =>
          context.signal.addEventListener("abort", () => reject(context.signal.reason)),
        );
      },
      { ackWaitMs: 150, maxWorkMs: 200 },
    );
    await bed.send("endless", "a");
    await until(() => events.some(({ type }) => type === "done"));
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2]);
    expect(events[0]).toMatchObject({ type: "retry", error: { code: "deadline_exceeded" } });
  });
});
describe("gathering", () => {
  test("C8: when the time is up all that is there is fetched and handled, and the next ones wait anew", async () => {
    const { consumption, texts } = await bed.watch("moments", () => undefined, { gatherMs: 1 });
    for (const text of ["a", "b"]) {
      await bed.send("moments", text);
      await settled(consumption);
    }
    expect(texts()).toEqual(["a", "b"]);
  });

  test.each([1, 4, 64])("C8, C5: a backlog is worked off, %i at a time at most", async (concurrency) => {
    const texts = Array.from({ length: 40 }, (_, index) => String(index));
    for (const text of texts) await bed.send(`backlog${concurrency}`, text);
    let [now, most] = [0, 0];
    const act = async (): Promise<void> => {
      most = Math.max(most, ++now);
      await bed.bus.flush();
      now--;
    };
    const watched = await bed.watch(`backlog${concurrency}`, act, { concurrency, gatherMs: 1 });
    await settled(watched.consumption);
    expect(watched.texts().toSorted()).toEqual(texts.toSorted());
    expect(most).toBeLessThanOrEqual(concurrency);
  });

  test("C8, G3: a window of unacknowledged messages that is full, so that nothing tells the end of a fetch, stops nothing", async () => {
    const texts = Array.from({ length: 8 }, (_, index) => String(index));
    for (const text of texts) await bed.send("full", text);
    const watched = await bed.watch("full", () => undefined, { gatherMs: 1, maxAckPending: 4 });
    await settled(watched.consumption);
    expect(watched.texts().toSorted()).toEqual(texts);
    expect(watched.events.filter(({ type }) => type === "trouble")).toEqual([]);
  });

  test("C8, C7: what waits when it stops is handled first", async () => {
    const { consumption, texts } = await bed.watch("leaving", () => undefined, { gatherMs: 600_000 });
    await bed.send("leaving", "a");
    await until(() => consumption.inFlight === 1, "one that waits");
    expect(texts()).toEqual([]);
    await consumption.stop(Date.now() + 60_000);
    expect(texts()).toEqual(["a"]);
  });
});
