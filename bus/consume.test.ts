import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BeamlineError } from "../contracts/errors.ts";
import { objects, streams, type StreamSpec } from "../contracts/streams.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import type { Bus } from "./connect.ts";
import { consume, type ConsumeOptions, type ConsumerEvent, type Consumption, type MessageContext } from "./consume.ts";
import type { Delivery } from "./delivery.ts";
import { publish } from "./publish.ts";
import { originOf, park, retryPrefix } from "./retry.ts";
import { ensureObjects, ensureStreams } from "./streams.ts";

let nats: TestNats;
let bus: Bus;
const spec: StreamSpec = {
  name: "WORK",
  purpose: "a test",
  subjects: ["log.work.>", "retry.work.>", "sched.work.>"],
  retention: "limits",
  maxAgeMs: 0,
  maxBytes: -1,
  duplicateWindowMs: 120_000,
  schedules: true,
  atomic: true,
};
const running: Consumption[] = [];
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
  await ensureStreams(bus, [spec, streams.deadLetters]);
  await ensureObjects(bus, [objects.payloads]);
});
afterAll(async () => {
  await Promise.all(running.map((one) => one.stop(0)));
  await nats.stop();
});

interface Seen {
  readonly text: string;
  readonly attempt: number;
  readonly context: MessageContext;
}

/** A consumer of `log.work.<name>.>` that keeps what it saw. `act` may throw or wait. */
async function watch(name: string, act: (seen: Seen) => unknown, options: Partial<ConsumeOptions> = {}, on: Bus = bus) {
  const seen: Seen[] = [];
  const events: ConsumerEvent[] = [];
  const consumption = await consume(on, {
    stream: spec,
    durable: name,
    filterSubjects: [`log.work.${name}.>`],
    backoffMs: [50],
    onEvent: (event) => events.push(event),
    handler: async (payload, context) => {
      const one = { text: Buffer.from(payload).toString(), attempt: context.attempt, context };
      seen.push(one);
      await act(one);
    },
    ...options,
  });
  running.push(consumption);
  return { seen, events, consumption, texts: () => seen.map(({ text }) => text) };
}

/** What a handler does not see. */
function deliveryOf(seen: Seen | undefined): Delivery {
  if (seen === undefined) throw new Error("nothing was seen");
  return (seen.context as unknown as { readonly delivery: Delivery }).delivery;
}

const send = (name: string, text: string, headers: Record<string, string> = {}) =>
  publish(bus, `log.work.${name}.x`, text, { msgId: `${name}-${text}`, headers });

/** Everything the consumer got is acknowledged and nothing waits. */
const settled = (consumption: Consumption) =>
  until(async () => {
    const { pending, ackPending } = await consumption.lag();
    return pending === 0 && ackPending === 0 && consumption.inFlight === 0;
  }, "an empty consumer");

const deadLetters = async (durable: string) => {
  const { state } = await bus.jsm.streams.info("DLQ", { subjects_filter: `dlq.WORK.${durable}` });
  return state.subjects?.[`dlq.WORK.${durable}`] ?? 0;
};

describe("handling", () => {
  test("C1: every message is handled once, with what its publisher said", async () => {
    const { seen, consumption, texts } = await watch("plain", () => undefined, { concurrency: 8 });
    for (let i = 0; i < 100; i++) await send("plain", `${i}`, { tenant_id: "t" });
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
    const { seen, consumption } = await watch(
      "slots",
      async () => {
        most = Math.max(most, ++now);
        await new Promise(setImmediate);
        now--;
      },
      { concurrency: 3 },
    );
    await Promise.all(Array.from({ length: 60 }, (_, i) => send("slots", `${i}`)));
    await until(() => seen.length === 60);
    await settled(consumption);
    expect(most).toBe(3);
  });

  test("C5: two replicas share the work", async () => {
    const one = await watch("share", () => new Promise(setImmediate), { concurrency: 2 });
    const two = await watch("share", () => new Promise(setImmediate), { concurrency: 2 }, await nats.connect("two"));
    await Promise.all(Array.from({ length: 80 }, (_, i) => send("share", `${i}`)));
    await until(() => one.seen.length + two.seen.length === 80);
    await settled(one.consumption);
    expect(new Set([...one.texts(), ...two.texts()]).size).toBe(80);
    expect(Math.min(one.seen.length, two.seen.length)).toBeGreaterThan(0);
  });
});

describe("failures", () => {
  test("C2: retry comes again with backoff, as the same message, and only to this consumer", async () => {
    const bystander = await watch("retry2", () => undefined, { filterSubjects: ["log.work.retry.>"] });
    const { seen, events, consumption } = await watch("retry", ({ attempt }) => {
      if (attempt < 3) throw new BeamlineError("unavailable", "not yet");
    });
    const { seq } = await send("retry", "a", { traceparent: "00-1-2-01" });
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
    const { seen, consumption } = await watch(
      "aside",
      ({ text }) => {
        if (text === "bad") throw new BeamlineError("unavailable", "later");
      },
      options,
    );
    await send("aside", "bad");
    await send("aside", "good");
    await until(() => seen.length === 2);
    await settled(consumption);
  });

  test("C2: what no try can mend is a dead letter at once", async () => {
    const { seen, events } = await watch("term", () => {
      throw new BeamlineError("invalid_argument", "bad field");
    });
    await send("term", "a");
    await until(() => events.some(({ type }) => type === "dead"));
    expect(seen.length).toBe(1);
    expect(events).toMatchObject([{ type: "dead", reason: "validation_failed" }]);
    expect(await deadLetters("term")).toBe(1);
  });

  verifies("clear-failure", "C2: tries end after maxDeliver, in a dead letter with the reason", async () => {
    const { seen, events, consumption } = await watch("tries", () => Promise.reject(new Error("a stranger")), {
      maxDeliver: 3,
    });
    await send("tries", "a");
    await until(() => events.some(({ type }) => type === "dead"));
    await settled(consumption);
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    expect(events.at(-1)).toMatchObject({ type: "dead", reason: "maxdeliver_exhausted", error: { code: "internal" } });
    expect(await deadLetters("tries")).toBe(1);
  });

  test("C2: done means done, and a handler that throws at once is no different", async () => {
    const { seen, events, consumption } = await watch("done", () => undefined, {
      handler: () => {
        throw new BeamlineError("already_exists", "an earlier try did it");
      },
    });
    await send("done", "a");
    await until(() => events.length > 0);
    await settled(consumption);
    expect(events).toMatchObject([{ type: "done" }]);
    expect(seen.length).toBe(0);
  });

  test("C3: deliveries nobody answered count, and end in a dead letter", async () => {
    let deaths = 0;
    // Each process takes the message and is gone.
    for (; deaths < 2; deaths++) {
      const doomed = await nats.connect("doomed");
      const { seen } = await watch(
        "poison",
        () => new Promise(() => undefined),
        { ackWaitMs: 300, maxDeliver: 2 },
        doomed,
      );
      if (deaths === 0) await send("poison", "a");
      await until(() => seen.length === 1);
      expect(seen[0]?.attempt).toBe(deaths + 1);
      await doomed.close();
    }
    const { seen, events, consumption } = await watch("poison", () => undefined, { ackWaitMs: 300, maxDeliver: 2 });
    await until(() => events.some(({ type }) => type === "dead"));
    await settled(consumption);
    expect(seen.length).toBe(0);
    expect(events).toMatchObject([{ type: "dead", reason: "maxdeliver_exhausted" }]);
    expect(await deadLetters("poison")).toBe(1);
  });

  test("a stream without schedules retries too", async () => {
    const plain = { ...spec, name: "PLAIN", subjects: ["log.noschedules.>"], schedules: false };
    await ensureStreams(bus, [plain]);
    const options = { stream: plain, filterSubjects: ["log.noschedules.>"] };
    const { seen } = await watch(
      "noschedules",
      ({ attempt }) => {
        if (attempt < 2) throw new BeamlineError("unavailable", "not yet");
      },
      options,
    );
    await publish(bus, "log.noschedules.a", "a");
    await until(() => seen.length === 2);
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2]);
  });

  test("an observer that throws decides nothing", async () => {
    const { seen, consumption } = await watch("observer", () => undefined, {
      onEvent: () => {
        throw new Error("in the observer");
      },
    });
    await send("observer", "a");
    await until(() => seen.length === 1);
    await settled(consumption);
  });
});

describe("leases", () => {
  test("C4: a handler slower than the ack wait keeps its message", async () => {
    let finish: () => void = () => undefined;
    const slow = new Promise<void>((resolve) => (finish = resolve));
    const started = performance.now();
    const { seen, consumption } = await watch("slow", () => slow, { ackWaitMs: 300 });
    await send("slow", "a");
    await until(() => seen.length > 0 && performance.now() - started > 1_200);
    finish();
    await settled(consumption);
    expect(seen.length).toBe(1);
  });

  test("C4: beyond maxWorkMs it is told to stop, and the try has failed", async () => {
    const { seen, events } = await watch(
      "endless",
      ({ context, attempt }) => {
        if (attempt > 1) return undefined;
        return new Promise((_resolve, reject) =>
          context.signal.addEventListener("abort", () => reject(context.signal.reason)),
        );
      },
      { ackWaitMs: 150, maxWorkMs: 200 },
    );
    await send("endless", "a");
    await until(() => events.some(({ type }) => type === "done"));
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2]);
    expect(events[0]).toMatchObject({ type: "retry", error: { code: "deadline_exceeded" } });
  });
});

describe("handing over", () => {
  test("R1, R2: a process killed between parking and acknowledging doubles nothing", async () => {
    const name = "between";
    await send(name, "a");
    const options = { ackWaitMs: 500, maxDeliver: 4 };
    // What a worker does on a failure, up to the point where it is killed.
    const doomed = await nats.connect("doomed");
    const first = await watch(name, () => new Promise(() => undefined), options, doomed);
    await until(() => first.seen.length === 1);
    const delivery = deliveryOf(first.seen[0]);
    await park(doomed, spec, name, delivery, originOf(delivery), 100);
    await park(doomed, spec, name, delivery, originOf(delivery), 100);
    await doomed.close();

    const { seen, consumption } = await watch(name, () => undefined, options);
    await until(() => seen.length > 0);
    await settled(consumption);
    expect(seen.map(({ text, attempt }) => [text, attempt])).toEqual([["a", 2]]);
  });

  test("R1: the same on a work queue, where what was handled is gone", async () => {
    const queue: StreamSpec = {
      ...spec,
      name: "QUEUE",
      retention: "workqueue",
      subjects: ["log.queue.>", "retry.queue.>", "sched.queue.>"],
    };
    await ensureStreams(bus, [queue]);
    const options = { stream: queue, filterSubjects: ["log.queue.>"], ackWaitMs: 1_000 };
    await publish(bus, "log.queue.a", "a");
    const doomed = await nats.connect("doomed");
    const first = await watch("queue", () => new Promise(() => undefined), options, doomed);
    await until(() => first.seen.length === 1);
    const delivery = deliveryOf(first.seen[0]);
    await park(doomed, queue, "queue", delivery, originOf(delivery), 10);
    await doomed.close();
    const { seen, consumption } = await watch("queue", () => undefined, options);
    await until(() => seen.length > 0);
    await settled(consumption);
    expect(seen.length).toBe(1);
    expect((await bus.jsm.streams.info("QUEUE")).state.messages).toBe(0);
  });

  test("a parked copy survives the stream's own age limit", async () => {
    const brief: StreamSpec = {
      ...spec,
      name: "BRIEF",
      maxAgeMs: 1_000,
      duplicateWindowMs: 1_000,
      subjects: ["log.brief.>", "retry.brief.>", "sched.brief.>"],
    };
    await ensureStreams(bus, [brief]);
    const { seen } = await watch(
      "brief",
      ({ attempt }) => {
        if (attempt === 1) throw new BeamlineError("unavailable", "later");
      },
      { stream: brief, filterSubjects: ["log.brief.>"], backoffMs: [2_500] },
    );
    await publish(bus, "log.brief.a", "a");
    await until(() => seen.length === 2);
  });

  test("the same message delivered twice is handled twice under one identity, for the handler to recognise", async () => {
    const { seen } = await watch("twice", (one) => {
      if (one.context.deliveryCount === 1) deliveryOf(one).nak();
    });
    await send("twice", "a");
    await until(() => seen.length === 2);
    const [one, two] = seen;
    expect([two?.context.msgId, two?.context.streamSequence]).toEqual([
      one?.context.msgId,
      one?.context.streamSequence,
    ]);
    expect(two?.context.deliveryCount).toBe(2);
  });
});

describe("recovery and stopping", () => {
  test("C6: a deleted consumer of a work queue is made again", async () => {
    const queue: StreamSpec = {
      ...spec,
      name: "QUEUE2",
      retention: "workqueue",
      subjects: ["log.queue2.>", "retry.queue2.>", "sched.queue2.>"],
    };
    await ensureStreams(bus, [queue]);
    const { consumption, texts } = await watch("queue2", () => undefined, {
      stream: queue,
      filterSubjects: ["log.queue2.>"],
    });
    await publish(bus, "log.queue2.a", "before");
    await until(() => texts().length === 1);
    await settled(consumption);
    await bus.jsm.consumers.delete("QUEUE2", "queue2");
    await publish(bus, "log.queue2.a", "after");
    await until(() => texts().length === 2);
    expect(texts()).toEqual(["before", "after"]);
  });

  test("C6: a deleted consumer is made again where it was", async () => {
    const { seen, events, consumption, texts } = await watch("deleted", () => undefined);
    await send("deleted", "before");
    await until(() => seen.length === 1);
    await settled(consumption); // It now knows how far it was.
    await bus.jsm.consumers.delete("WORK", "deleted");
    await send("deleted", "after");
    await until(() => seen.length >= 2);
    expect(texts()).toEqual(["before", "after"]);
    expect(events.map(({ type }) => type)).toContain("recovered");
  });

  test("a changed configuration is taken over; another kind of consumer is refused", async () => {
    const first = await watch("changed", () => undefined);
    await first.consumption.stop(0);
    await watch("changed", () => undefined, { ackWaitMs: 7_000 });
    const { config } = await bus.jsm.consumers.info("WORK", "changed");
    expect(config.ack_wait).toBe(7_000_000_000);
    expect(config.max_deliver).toBe(-1);
    expect(config.filter_subjects).toContain(`${retryPrefix(spec, "changed")}.*`);
    await expect(watch("x", () => undefined, { stream: { ...spec, name: "NOWHERE" } })).rejects.toMatchObject({
      code: "not_found",
    });
  });

  test("C7: stopping finishes what can finish and hands back the rest", async () => {
    let finish: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (finish = resolve));
    let aborted: unknown;
    const { seen, consumption } = await watch(
      "stopping",
      ({ text, context }) => {
        if (text === "quick") return gate;
        return new Promise((_resolve, reject) => {
          context.signal.addEventListener("abort", () => {
            aborted = context.signal.reason;
            reject(aborted);
          });
        });
      },
      { concurrency: 2, ackWaitMs: 60_000 },
    );
    for (const text of ["quick", "stuck", "never-started"]) await send("stopping", text);
    await until(() => seen.length === 2);
    const stopped = consumption.stop(Date.now() + 200);
    finish();
    await stopped;
    expect(aborted).toMatchObject({ code: "unavailable" });
    expect(seen.length).toBe(2);

    const next = await watch("stopping", () => undefined, { ackWaitMs: 60_000 });
    await until(() => next.seen.length === 2);
    await settled(next.consumption);
    expect(next.texts().sort()).toEqual(["never-started", "stuck"]);
  });

  verifies("acked-is-durable", "C6: NATS killed and restarted in the middle loses nothing", async () => {
    const count = 300;
    for (let i = 0; i < count; i++) await send("restart", `${i}`);
    const one = await watch("restart", () => new Promise(setImmediate), { concurrency: 4, ackWaitMs: 1_000 });
    const two = await watch(
      "restart",
      ({ attempt, text }) => {
        if (attempt === 1 && text.endsWith("7")) throw new BeamlineError("unavailable", "once more");
      },
      { concurrency: 4, ackWaitMs: 1_000 },
      await nats.connect("two"),
    );
    await until(() => one.seen.length + two.seen.length > 50);
    await nats.server.kill();
    await nats.server.restart();
    await until(() => bus.connected);
    const handled = () => new Set([...one.texts(), ...two.texts()]);
    await until(() => handled().size === count, "all messages", 30_000);
    await settled(one.consumption);
    await send("restart", "afterwards");
    await until(() => handled().has("afterwards"));
  });
});
