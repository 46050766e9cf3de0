/**
 * The usage worker: what becomes of assignments after they were published. It meters results, counts acknowledgements, notices lost workers by
 * deadline, keeps the totals, tells the health of providers, and raises alerts (BeamLine, execution contract; usage event; alerts).
 *
 * Opened in this order, closed in reverse: hot state, totals, the watchman, then the three consumers.
 */
import { consume, type ConsumeOptions, type ConsumerEvent, type MessageHandler } from "../../bus/consume.ts";
import { asking } from "../../bus/apierror.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import { buckets, streams, type StreamSpec } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemIds } from "../../runtime/ids.ts";
import { bool, durationMs, int, list, optional } from "../../runtime/setting.ts";
import { assignSettings, assignSubjects, EXEC_DURABLE, keepAssignSubjects } from "../assignsubjects.ts";
import { connectRedis } from "../connect.redis.ts";
import { defineWorker } from "../module.ts";
import { ackHandler } from "./acks.ts";
import { busAlerts } from "./alerts.ts";
import { busCancels } from "./cancels.ts";
import { deadlineHandler, TIMER_SUBJECTS } from "./deadlines.ts";
import { usageEndpoints } from "./endpoints.ts";
import { HealthBook } from "./health.ts";
import { Metering } from "./metering.ts";
import { usageMeasures } from "./measures.ts";
import { resultHandler } from "./results.ts";
import { redisSeen } from "./seen.redis.ts";
import { tenantCheck } from "./tenants.ts";
import { TotalsStore } from "./totals.redis.ts";
import { Totals } from "./totals.ts";
import { Watchman } from "./watchman.ts";

export const usageSettings = {
  ...assignSettings,
  BEAMLINE_USAGE_PUBLISH: bool(true, "Whether results are metered on beamline.usage.v1.metered."),
  BEAMLINE_USAGE_CONCURRENCY: int(64, "Results one usage worker handles at a time.", { min: 1, max: 1024 }),
  BEAMLINE_RESULT_TENANTS: list(
    optional,
    "Tenants whose results and acknowledgements are taken; those that may route when not given.",
  ),
  BEAMLINE_ROUTER_TENANTS: list(optional, "Tenants that may route; all when not given."),
  BEAMLINE_RESULT_MAX_DELIVER: int(10, "Tries before a result is a dead letter.", { min: 1, max: 100 }),
  BEAMLINE_EXEC_GRACE_MS: durationMs(
    2_000,
    "Time beyond its deadline before an assignment without a result counts as lost.",
    { min: 0, max: 600_000 },
  ),
  BEAMLINE_ALERT_EVERY_MS: durationMs(30_000, "How often dead letters, lag and workers are looked at.", {
    min: 100,
    max: 3_600_000,
  }),
  BEAMLINE_ALERT_DLQ_GROWTH: int(10, "New dead letters between two looks that raise an alert.", { min: 1 }),
  BEAMLINE_ALERT_LAG: int(1_000, "Messages a consumer may be behind before an alert is raised.", { min: 1 }),
} as const;

/** Silence after which an execution worker counts as lost: three of its beats, milliseconds. */
const SILENCE_MS = 15_000;

/** Assignments that are watched before they get a timer, at a time. */
const GUARDED = 2_048;

/**
 * How long messages wait for one another, milliseconds. Nobody waits for a usage event, but many wait for the next assignment: metering one by one
 * took more of the machine, and of the server, than executing.
 */
const GATHER_MS = 50;

/** Redelivery of results and acknowledgements (BeamLine, consumers). */
const BACKOFF_MS = [1_000, 2_000, 4_000];

export const usageWorker = defineWorker({
  name: "usage",
  settings: usageSettings,
  streams: [streams.exec, streams.execAcks, streams.usage, streams.alerts, streams.deadLetters],
  buckets: [buckets.execCancelled, buckets.providerHealth],

  async open(scope, { config, bus, log, metrics }) {
    const now = (): number => systemClock.now();
    const measures = usageMeasures(metrics);
    const hot = await scope.open(
      "redis",
      () => connectRedis(config.REDIS_URL, "usage"),
      (one) => one.close(),
    );
    scope.health.add("redis", () => hot.ping());
    const { created } = await asking("look at the usage stream", () => bus.jsm.streams.info(streams.usage.name));
    const totals = new Totals(bus, new TotalsStore(hot.redis, String(Date.parse(created))), log);
    totals.start();
    scope.use("totals", totals, (one) => one.stop());

    const seen = redisSeen(hot.redis, (error) => log.debug("hot state does not answer", { error }));
    const alerts = busAlerts(bus, log, () => systemIds.v4(), now);
    const metering = new Metering(bus, seen, measures, config.BEAMLINE_USAGE_PUBLISH);
    const health = scope.use("provider health", new HealthBook(bus, { log, alerts }), (book) => book.flush());
    const cancels = busCancels(bus);
    const checkTenant = tenantCheck(config.BEAMLINE_RESULT_TENANTS ?? config.BEAMLINE_ROUTER_TENANTS);
    const subjects = assignSubjects(config.BEAMLINE_EXEC_SUBJECTS);
    await keepAssignSubjects(bus, subjects, config.BEAMLINE_STREAM_REPLICAS);
    const watchman = new Watchman(bus, alerts, measures, {
      everyMs: config.BEAMLINE_ALERT_EVERY_MS,
      dlqGrowth: config.BEAMLINE_ALERT_DLQ_GROWTH,
      lag: config.BEAMLINE_ALERT_LAG,
      silenceMs: SILENCE_MS,
      assignments: subjects.map(({ subject, durable }) => [durable(EXEC_DURABLE), subject] as const),
      now,
    });
    watchman.start();
    scope.use("watchman", watchman, (one) => one.stop());

    const onEvent = (subject: string) => (event: ConsumerEvent) => {
      if (event.type === "done") measures.router_jetstream_ack_total.with({ subject }).add();
      if (event.type === "retry")
        measures.router_jetstream_redelivery_total.with({ subject, reason: event.error.code }).add();
      if (event.type === "dead") {
        measures.router_dlq_total.with({ subject, reason: event.reason }).add();
        if (event.reason === "maxdeliver_exhausted")
          measures.router_jetstream_maxdeliver_exhausted_total.with({ subject }).add();
        log.error("a message is a dead letter", { subject, reason: event.reason, error: event.error });
      }
      if (event.type === "trouble" || event.type === "undecided")
        log.warn("a consumer is in trouble", { subject, error: event.error });
    };
    const start = (
      name: string,
      options: Omit<ConsumeOptions, "stream" | "backoffMs" | "durable"> & { readonly stream?: StreamSpec },
    ): Promise<unknown> => {
      const labels = { subject: options.filterSubjects?.[0] ?? "", consumer: name };
      const delivered = measures.router_jetstream_delivered_messages_total.with(labels);
      const redelivered = measures.router_jetstream_redelivered_messages_total.with(labels);
      const handler: MessageHandler = (message, context) => {
        delivered.add();
        if (context.deliveryCount > 1) redelivered.add();
        return options.handler(message, context);
      };
      return scope.open(
        name,
        () =>
          consume(bus, {
            stream: streams.exec,
            durable: name,
            concurrency: config.BEAMLINE_USAGE_CONCURRENCY,
            backoffMs: BACKOFF_MS,
            gatherMs: GATHER_MS,
            ...options,
            handler,
          }),
        (one, deadline) => one.stop(Date.now() + deadline.remainingMs()),
      );
    };
    await start("router-results", {
      filterSubjects: [execSubject.result],
      maxDeliver: config.BEAMLINE_RESULT_MAX_DELIVER,
      handler: resultHandler({ metering, health, checkTenant, measures, log }),
      onEvent: onEvent(execSubject.result),
    });
    await start("router-acks", {
      stream: streams.execAcks,
      filterSubjects: [execSubject.ack],
      maxDeliver: 4,
      handler: ackHandler({ seen, checkTenant, measures }),
      onEvent: onEvent(execSubject.ack),
    });
    const onDeadline = deadlineHandler({
      bus,
      metering,
      seen,
      cancels,
      alerts,
      measures,
      log,
      graceMs: config.BEAMLINE_EXEC_GRACE_MS,
      now,
      pause: (ms: number, signal: AbortSignal) => systemClock.sleep(ms, signal),
    });
    for (const { subject, durable } of subjects)
      await start(durable("router-deadlines"), {
        filterSubjects: subject === execSubject.assign ? [subject, TIMER_SUBJECTS] : [subject],
        maxDeliver: 10,
        concurrency: GUARDED,
        ackWaitMs: 10_000,
        handler: onDeadline,
        onEvent: onEvent(subject),
      });
    return usageEndpoints({ totals, cancels, metering, now });
  },
});
