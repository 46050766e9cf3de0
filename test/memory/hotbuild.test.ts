/** Building hot state while something empties it, and what is read again when Redis was away. */
import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { connectRedis, type HotState } from "../../workers/connect.redis.ts";
import { RedisHot } from "../../workers/memory/hot/hot.redis.ts";
import { HotBuilder } from "../../workers/memory/hot/hotbuild.ts";
import { MemoryLog, METRIC_STREAM } from "../../workers/memory/log.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

let world: World;
let redis: HotState;
let hot: RedisHot;
const stop = new AbortController();

/** A log on which something happens once, before the last part of a building is read. */
class Interrupted extends MemoryLog {
  meanwhile: (() => Promise<unknown>) | undefined;

  override async *read(options: Parameters<MemoryLog["read"]>[0]): ReturnType<MemoryLog["read"]> {
    const { meanwhile } = this;
    if (options.stream === METRIC_STREAM && meanwhile !== undefined) {
      this.meanwhile = undefined;
      await meanwhile();
    }
    yield* super.read(options);
  }
}

let log: Interrupted;

function builder(): HotBuilder {
  const ages = { ring: 100, criticalAgeMs: 0, eventAgeMs: 0, behindMs: 1 };
  const parts = { flush: () => Promise.resolve(), bury: () => Promise.resolve(), signal: stop.signal };
  return new HotBuilder(hot, log, systemClock, ages, parts);
}

const event = (n: number) => ({
  tenant: "t",
  at: systemClock.micros(),
  critical: false,
  entry: `{"id":"e${n}","timestamp":1}`,
});
const goal = {
  tenant: "t",
  kind: "goal",
  id: "g",
  by: "",
  task: "",
  trace: "",
  at: 1,
  born: 1,
  state: { id: "g" },
} as const;

async function whole(): Promise<void> {
  expect((await hot.peek("t", [["goal", "g"]]))[0]?.state).toEqual({ id: "g" });
  const shown = JSON.parse(await hot.events("t", -1, "", "")) as { id: string }[];
  expect(shown.map(({ id }) => id)).toEqual(["e2", "e1"]);
}

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await ensureStreams(world.bus, memoryWorker.streams ?? []);
  await ensureBuckets(world.bus, memoryWorker.buckets ?? []);
  await ensureObjects(world.bus, memoryWorker.objects ?? []);
  redis = await connectRedis(world.redis.url, "test");
  hot = new RedisHot(redis.redis, 100);
  log = new Interrupted(world.bus);
  await log.append(goal);
  for (const n of [1, 2]) await log.appendRecent("t", [event(n)]);
}, 60_000);

afterAll(async () => {
  stop.abort();
  await redis.close();
  await world[Symbol.asyncDispose]();
});

beforeEach(() => redis.redis.flushall());

verifies(
  "log-is-truth",
  "memory: a Redis flushed while hot state is built is built again, not shown half",
  async () => {
    log.meanwhile = () => redis.redis.flushall();
    await builder().build();
    expect(log.meanwhile).toBeUndefined();
    await whole();
  },
);

verifies("log-is-truth", "memory: two rebuilds at once, one emptying what the other has built", async () => {
  log.meanwhile = () => hot.clear();
  await Promise.all([builder().build(), builder().build()]);
  await whole();
});

verifies(
  "log-is-truth",
  "memory: the bookmark of ordinary events waits until what Redis lost has been read again",
  async () => {
    const one = builder();
    await one.build();
    const last = await hot.recent();
    expect(last).toBe(2);
    // Redis comes back with its state of a second ago: the last event is missing, and the bookmark is before it.
    await redis.redis.zremrangebyrank("beamline:memory:t:ring", -1, -1);
    await hot.setRecent(1);
    one.renew();
    await one.bookmark(2);
    expect(await hot.recent()).toBe(1);
    await one.projection().applied();
    await whole();
    await one.bookmark(7);
    expect(await hot.recent()).toBe(7);
  },
);

verifies(
  "log-is-truth",
  "memory: hot state of another log, whose end is beyond this one's, is built anew",
  async () => {
    await hot.load([{ ...goal, seq: 900, state: { id: "g", description: "of the other log" } }]);
    await redis.redis.set("beamline:memory:applied", 1_000);
    await builder().ensure();
    await whole();
    const [last, applied] = [(await log.bounds("MEMORY")).last, await hot.applied()];
    expect(applied).toBe(last);
    await builder().ensure(); // the own one stays as it is
    expect(await hot.applied()).toBe(last);
  },
);

verifies(
  "log-is-truth",
  "memory: of a metric that several workers log, the last to arrive wins, not the last to be logged",
  async () => {
    await log.setMetric("t", "load", { value: 2, timestamp: 2, at: 20 });
    await log.setMetric("t", "load", { value: 1, timestamp: 1, at: 10 }); // of a worker that was slower to log it
    await builder().build();
    expect(await hot.metrics("t", ["load"])).toEqual([{ value: 2, timestamp: 2 }]);
  },
);
