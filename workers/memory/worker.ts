/**
 * The memory worker: all of aios.memory.MemoryService, in three tiers with the log as the truth.
 *
 * Opened downwards: hot state, the log, the index; then the tails that keep both projections up to the log; then the lifecycle. Closed upwards.
 */
import { join } from "node:path";
import { connectRedis } from "../connect.redis.ts";
import { defineWorker } from "../module.ts";
import { endpointsOf } from "../../bus/endpoint.ts";
import { MemoryServiceDefinition } from "../../contracts/gen/aios/memory.ts";
import { buckets, objects, streams } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemIds } from "../../runtime/ids.ts";
import { Archive } from "./archive.ts";
import { Behind } from "./hot/behind.ts";
import { bury } from "./bury.ts";
import { memoryHandlers } from "./handlers.ts";
import { Host } from "./host.ts";
import { RedisHot } from "./hot/hot.redis.ts";
import { HOT_STATE, HotBuilder } from "./hot/hotbuild.ts";
import { Lifecycle } from "./lifecycle.ts";
import { MemoryLog } from "./log.ts";
import { LongTerm } from "./longterm.ts";
import { withTexts } from "./texts.ts";
import { observe } from "./observe.ts";
import { Operational } from "./operational.ts";
import { archiveProjection, rebuildEndpoint } from "./rebuild.ts";
import { memorySettings } from "./settings.ts";
import { relog } from "./hot/relog.ts";
import { openShelf } from "./index/shelf.ts";
import { follow, type TailParts } from "./tail.ts";
import { Working } from "./working.ts";

export const memoryWorker = defineWorker({
  name: "memory",
  settings: memorySettings,
  streams: [streams.memory, streams.memoryRecent, streams.deadLetters],
  buckets: [buckets.memoryMetrics],
  objects: [objects.memories, objects.memoriesRecent, objects.payloads],

  async open(scope, { config, bus, caller, log: logger, metrics }) {
    const clock = systemClock;
    const redis = await scope.open(
      "redis",
      () => connectRedis(config.REDIS_URL, "memory"),
      (r) => r.close(),
    );
    scope.health.add("redis", () => redis.ping());
    const log = new MemoryLog(bus);
    const redisHot = new RedisHot(redis.redis, config.BEAMLINE_MEMORY_EVENTS);
    const behind = scope.use(
      "events to be logged",
      new Behind(log, clock, logger, {
        everyMs: config.BEAMLINE_MEMORY_BEHIND_MS,
        onLogged: (seq) => builder.bookmark(seq),
      }),
      (b, deadline) => b.close(deadline.signal),
    );
    const ages = {
      ring: config.BEAMLINE_MEMORY_EVENTS,
      criticalAgeMs: config.BEAMLINE_MEMORY_CRITICAL_AGE_MS,
      eventAgeMs: config.BEAMLINE_MEMORY_EVENT_AGE_MS,
      goalAgeMs: config.BEAMLINE_MEMORY_GOAL_AGE_MS,
      decisionAgeMs: config.BEAMLINE_MEMORY_DECISION_AGE_MS,
      toolCallAgeMs: config.BEAMLINE_MEMORY_TOOL_CALL_AGE_MS,
      patterns: config.BEAMLINE_MEMORY_PATTERNS,
      behindMs: config.BEAMLINE_MEMORY_BEHIND_MS,
    };
    const stop = new AbortController();
    const tailParts: TailParts = {
      log,
      clock,
      logger,
      bury: (projection, entry, error) => bury(bus, projection, entry, error, clock.now()),
    };
    const builder: HotBuilder = new HotBuilder(redisHot, log, clock, ages, {
      flush: () => behind.flush(),
      bury: (entry, error) => tailParts.bury(HOT_STATE, entry, error),
      signal: stop.signal,
    });
    await scope.open("hot state", () => builder.ensure());
    await relog(redisHot, log, behind).catch((error: unknown) =>
      logger.warn("what a killed worker had not logged stays in Redis alone", { error }),
    );
    redisHot.onReturn(() => builder.renew());
    const hot = builder.guarded();

    const open = () => openShelf({ config, clock, directory: join(config.BEAMLINE_DATA_DIR, "memory") });
    const archive = new Archive(open, clock, logger, { indexWaitMs: config.BEAMLINE_MEMORY_INDEX_WAIT_MS });
    // An embedded index that another worker holds is a mistake of the deployment: told now. One that cannot be reached is waited for.
    if (config.QDRANT_URL === undefined && config.EMBEDDINGS_URL === undefined)
      await scope.open("index", () => archive.shelf());
    scope.use("archive", archive, (a) => a.close());

    const tails = [
      follow(builder.projection(), tailParts, stop.signal),
      follow(archiveProjection(archive, tailParts), tailParts, stop.signal),
    ];

    const working = new Working(hot, log, clock);
    const longTerm = new LongTerm(archive, log, clock);
    const lifecycle = new Lifecycle({ hot: redisHot, log, working, longTerm, clock, logger }, ages);
    tails.push(lifecycle.run(config.BEAMLINE_MEMORY_SWEEP_MS, systemIds.v4(), stop.signal));
    scope.use("tails", stop, async () => {
      stop.abort();
      await Promise.all([...tails, builder.settled()]);
    });

    observe(metrics, behind, archive);
    const operational = new Operational({ hot, log, behind, clock, ids: systemIds });
    const host = new Host(hot, caller, clock, config.BEAMLINE_DATA_DIR);
    const handlers = memoryHandlers({ operational, working, longTerm, archive, host, logger, clock });
    return [
      ...withTexts(endpointsOf(MemoryServiceDefinition, handlers), operational),
      rebuildEndpoint({ redisHot, builder, archive }),
    ];
  },
});
