import { describe, expect, test } from "vitest";
import { BeamlineError } from "../contracts/errors.ts";
import type { StreamSpec } from "../contracts/streams.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import { consumeTestbed, deliveryOf, settled, spec } from "./consume.testbed.ts";
import { publish } from "./publish.ts";
import { originOf, park, retryPrefix } from "./retry.ts";
import { ensureStreams } from "./streams.ts";

const bed = consumeTestbed();

describe("handing over", () => {
  test("R1, R2: a process killed between parking and acknowledging doubles nothing", async () => {
    const name = "between";
    await bed.send(name, "a");
    const options = { ackWaitMs: 500, maxDeliver: 4 };
    // What a worker does on a failure, up to the point where it is killed.
    const doomed = await bed.nats.connect("doomed");
    const first = await bed.watch(name, () => new Promise(() => undefined), options, doomed);
    await until(() => first.seen.length === 1);
    const delivery = deliveryOf(first.seen[0]);
    await park(doomed, spec, name, delivery, originOf(delivery), 100);
    await park(doomed, spec, name, delivery, originOf(delivery), 100);
    await doomed.close();

    const { seen, consumption } = await bed.watch(name, () => undefined, options);
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
    await ensureStreams(bed.bus, [queue]);
    const options = { stream: queue, filterSubjects: ["log.queue.>"], ackWaitMs: 1_000 };
    await publish(bed.bus, "log.queue.a", "a");
    const doomed = await bed.nats.connect("doomed");
    const first = await bed.watch("queue", () => new Promise(() => undefined), options, doomed);
    await until(() => first.seen.length === 1);
    const delivery = deliveryOf(first.seen[0]);
    await park(doomed, queue, "queue", delivery, originOf(delivery), 10);
    await doomed.close();
    const { seen, consumption } = await bed.watch("queue", () => undefined, options);
    await until(() => seen.length > 0);
    await settled(consumption);
    expect(seen.length).toBe(1);
    expect((await bed.bus.jsm.streams.info("QUEUE")).state.messages).toBe(0);
  });

  test("a parked copy survives the stream's own age limit", async () => {
    const brief: StreamSpec = {
      ...spec,
      name: "BRIEF",
      maxAgeMs: 1_000,
      duplicateWindowMs: 1_000,
      subjects: ["log.brief.>", "retry.brief.>", "sched.brief.>"],
    };
    await ensureStreams(bed.bus, [brief]);
    const { seen } = await bed.watch(
      "brief",
      ({ attempt }) => {
        if (attempt === 1) throw new BeamlineError("unavailable", "later");
      },
      { stream: brief, filterSubjects: ["log.brief.>"], backoffMs: [2_500] },
    );
    await publish(bed.bus, "log.brief.a", "a");
    await until(() => seen.length === 2);
  });

  test("the same message delivered twice is handled twice under one identity, for the handler to recognise", async () => {
    const { seen } = await bed.watch("twice", (one) => {
      if (one.context.deliveryCount === 1) deliveryOf(one).nak();
    });
    await bed.send("twice", "a");
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
    await ensureStreams(bed.bus, [queue]);
    const { consumption, texts } = await bed.watch("queue2", () => undefined, {
      stream: queue,
      filterSubjects: ["log.queue2.>"],
    });
    await publish(bed.bus, "log.queue2.a", "before");
    await until(() => texts().length === 1);
    await settled(consumption);
    await bed.bus.jsm.consumers.delete("QUEUE2", "queue2");
    await publish(bed.bus, "log.queue2.a", "after");
    await until(() => texts().length === 2);
    expect(texts()).toEqual(["before", "after"]);
  });

  test("C6: a deleted consumer is made again where it was", async () => {
    const { seen, events, consumption, texts } = await bed.watch("deleted", () => undefined);
    await bed.send("deleted", "before");
    await until(() => seen.length === 1);
    await settled(consumption); // It now knows how far it was.
    await bed.bus.jsm.consumers.delete("WORK", "deleted");
    await bed.send("deleted", "after");
    await until(() => seen.length >= 2);
    expect(texts()).toEqual(["before", "after"]);
    expect(events.map(({ type }) => type)).toContain("recovered");
  });

  test("a changed configuration is taken over; another kind of consumer is refused", async () => {
    const first = await bed.watch("changed", () => undefined);
    await first.consumption.stop(0);
    await bed.watch("changed", () => undefined, { ackWaitMs: 7_000 });
    const { config } = await bed.bus.jsm.consumers.info("WORK", "changed");
    expect(config.ack_wait).toBe(7_000_000_000);
    expect(config.max_deliver).toBe(-1);
    expect(config.filter_subjects).toContain(`${retryPrefix(spec, "changed")}.*`);
    await expect(bed.watch("x", () => undefined, { stream: { ...spec, name: "NOWHERE" } })).rejects.toMatchObject({
      code: "not_found",
    });
  });

  test("C7: stopping finishes what can finish and hands back the rest", async () => {
    let finish: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (finish = resolve));
    let aborted: unknown;
    const { seen, consumption } = await bed.watch(
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
    for (const text of ["quick", "stuck", "never-started"]) await bed.send("stopping", text);
    await until(() => seen.length === 2);
    const stopped = consumption.stop(Date.now() + 200);
    finish();
    await stopped;
    expect(aborted).toMatchObject({ code: "unavailable" });
    expect(seen.length).toBe(2);

    const next = await bed.watch("stopping", () => undefined, { ackWaitMs: 60_000 });
    await until(() => next.seen.length === 2);
    await settled(next.consumption);
    expect(next.texts().sort()).toEqual(["never-started", "stuck"]);
  });

  verifies("acked-is-durable", "C6: NATS killed and restarted in the middle loses nothing", async () => {
    const count = 300;
    for (let i = 0; i < count; i++) await bed.send("restart", `${i}`);
    const one = await bed.watch("restart", () => new Promise(setImmediate), { concurrency: 4, ackWaitMs: 1_000 });
    const two = await bed.watch(
      "restart",
      ({ attempt, text }) => {
        if (attempt === 1 && text.endsWith("7")) throw new BeamlineError("unavailable", "once more");
      },
      { concurrency: 4, ackWaitMs: 1_000 },
      await bed.nats.connect("two"),
    );
    await until(() => one.seen.length + two.seen.length > 50);
    await bed.nats.server.kill();
    await bed.nats.server.restart();
    await until(() => bed.bus.connected);
    const handled = () => new Set([...one.texts(), ...two.texts()]);
    await until(() => handled().size === count, "all messages", 30_000);
    await settled(one.consumption);
    await bed.send("restart", "afterwards");
    await until(() => handled().has("afterwards"));
  });
});
