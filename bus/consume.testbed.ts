/** A server, a stream, and consumers of it that keep what they saw: what the tests of bus/consume share. One per test file. */
import { afterAll, beforeAll } from "vitest";
import { objects, streams } from "../contracts/streams.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import type { Bus } from "./connect.ts";
import { consume, type ConsumeOptions, type ConsumerEvent, type Consumption, type MessageContext } from "./consume.ts";
import type { Delivery } from "./delivery.ts";
import { publish, type Stored } from "./publish.ts";
import { ensureObjects, ensureStreams } from "./streams.ts";
import { testStream } from "./streams.testbed.ts";

export const spec = testStream("WORK", ["log.work.>", "retry.work.>", "sched.work.>"]);

export interface Seen {
  readonly text: string;
  readonly attempt: number;
  readonly context: MessageContext;
}

export interface Watched {
  readonly seen: readonly Seen[];
  readonly events: readonly ConsumerEvent[];
  readonly consumption: Consumption;
  readonly texts: () => string[];
}

export interface Testbed {
  readonly nats: TestNats;
  readonly bus: Bus;
  /** A consumer of `log.work.<name>.>` that keeps what it saw. `act` may throw or wait. */
  watch(name: string, act: (seen: Seen) => unknown, options?: Partial<ConsumeOptions>, on?: Bus): Promise<Watched>;
  /** One message for `watch`. */
  send(name: string, text: string, headers?: Record<string, string>): Promise<Stored>;
}

/** Starts with the file and ends with it; use it inside tests only. */
export function consumeTestbed(): Testbed {
  let nats: TestNats | undefined;
  let bus: Bus | undefined;
  const running: Consumption[] = [];
  beforeAll(async () => {
    nats = await startTestNats();
    bus = await nats.connect();
    await ensureStreams(bus, [spec, streams.deadLetters]);
    await ensureObjects(bus, [objects.payloads]);
  });
  afterAll(async () => {
    await Promise.all(running.map((one) => one.stop(0)));
    await nats?.stop();
  });
  const started = <T>(one: T | undefined): T => {
    if (one === undefined) throw new Error("the testbed is not up");
    return one;
  };
  return {
    get nats() {
      return started(nats);
    },
    get bus() {
      return started(bus);
    },
    async watch(name, act, options = {}, on = started(bus)) {
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
    },
    send: (name, text, headers = {}) =>
      publish(started(bus), `log.work.${name}.x`, text, { msgId: `${name}-${text}`, headers }),
  };
}

/** What a handler does not see. */
export function deliveryOf(seen: Seen | undefined): Delivery {
  if (seen === undefined) throw new Error("nothing was seen");
  return (seen.context as unknown as { readonly delivery: Delivery }).delivery;
}

/** Everything the consumer got is acknowledged and nothing waits. */
export function settled(consumption: Consumption): Promise<unknown> {
  return until(async () => {
    const { pending, ackPending } = await consumption.lag();
    return pending === 0 && ackPending === 0 && consumption.inFlight === 0;
  }, "an empty consumer");
}
