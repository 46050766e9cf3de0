/** The runs worker: durable workflow runs, the service `openwop.v1.Engine` and its REST twins. Read this first. */
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { parseJson } from "../../bus/call.ts";
import { consume } from "../../bus/consume.ts";
import { endpointsOf } from "../../bus/endpoint.ts";
import { partOf, tokenOf } from "../../bus/keys.ts";
import { ObjectStore } from "../../bus/objects.ts";
import { schedule } from "../../bus/schedule.ts";
import { EngineDefinition } from "../../contracts/gen/openwop/v1/openwop.ts";
import { ENGINE_VERSION } from "../../contracts/openwop/engineversion.ts";
import { numberOr, objectOr } from "../../contracts/openwop/json.ts";
import { nudgeSubject, parseEntry } from "../../contracts/openwop/log.ts";
import { TEST_KEY_PREFIX } from "../../contracts/openwop/testkeys.ts";
import { buckets, objects, streams } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createEgress } from "../../runtime/egress.ts";
import { systemIds } from "../../runtime/ids.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { VERSION } from "../../runtime/version.ts";
import { connectRedis } from "../connect.redis.ts";
import { defineWorker } from "../module.ts";
import { Artifacts } from "./artifacts.ts";
import { asking } from "./asking.ts";
import { Audit } from "./audit/audit.ts";
import { customNodeType } from "./engine/custom.ts";
import { Definitions, SHARED_TENANT, type Current } from "./definitions.ts";
import { Engine, type Wake } from "./engine/engine.ts";
import { fixtures } from "./fixtures.ts";
import { engineHandlers } from "./handlers.ts";
import { Idempotency, type IdempotencyRecord } from "./idempotency.ts";
import { Invocations, type Invocation } from "./engine/invocations.ts";
import { redisLease } from "./engine/lease.redis.ts";
import { RunLog } from "./log.ts";
import { RunMetrics } from "./metrics.ts";
import { childPorts } from "./engine/childruns.ts";
import { bury } from "./engine/deadrun.ts";
import { nodeTypes } from "./nodes/index.ts";
import { cancelChildren } from "./operations/control.ts";
import type { Host, RunsPorts } from "./ports.ts";
import { Records } from "./records.ts";
import { restEndpoints } from "./rest.ts";
import { loadWorkflowFiles } from "./seed.ts";
import { sharedSecrets } from "./secrets.ts";
import { runsSettings } from "./settings.ts";
import { Tokens } from "./tokens.ts";
import { Webhooks } from "./webhooks/webhooks.ts";
import type { WorkflowDefinition } from "../../contracts/openwop/workflow.ts";

const RETENTION_DAYS = 90;
/** Longest time a run sleeps in one go, milliseconds. */
const LONGEST_SLEEP_MS = 30 * 24 * 60 * 60_000;
const SHORT_WAITS = 64;
const WORKFLOWS_CHANGED = "beamline.runs.v1.workflows_changed";

export const runsWorker = defineWorker({
  name: "runs",
  settings: { ...workerSettings, ...runsSettings },
  streams: [streams.runs, streams.runHooks, streams.runAudit, streams.deadLetters],
  buckets: [
    buckets.workflowVersions,
    buckets.workflows,
    buckets.runIdempotency,
    buckets.runInvocations,
    buckets.runWebhooks,
    buckets.runScopes,
    buckets.runSecrets,
  ],
  objects: [objects.runArtifacts],
  async open(scope, { config, bus, caller, log: logger, metrics: registry }) {
    const clock = systemClock;
    const ids = systemIds;
    const workerId = `${hostname()}-${process.pid}-${randomBytes(4).toString("hex")}`;
    const metrics = new RunMetrics(registry);
    const hot = await scope.open(
      "hot state",
      () => connectRedis(config.REDIS_URL, "runs"),
      (h) => h.close(),
    );
    const limits = {
      maxNodeExecutions: config.OPENWOP_MAX_NODE_EXECUTIONS,
      maxRunDurationMs: config.OPENWOP_MAX_RUN_MS,
      maxLoopIterations: config.OPENWOP_MAX_LOOP_ITERATIONS,
    };
    const host: Host = {
      engineVersion: ENGINE_VERSION,
      version: VERSION,
      grpcEndpoint: config.OPENWOP_GRPC_ENDPOINT,
      fixtures: config.OPENWOP_FIXTURES ? fixtures.map(({ id }) => id) : [],
      testKeyPrefix: TEST_KEY_PREFIX,
      inflightCap: config.OPENWOP_INFLIGHT_CAP,
      retentionDays: RETENTION_DAYS,
      idempotencyMs: config.OPENWOP_IDEMPOTENCY_MS,
      production: config.OPENWOP_PRODUCTION,
    };
    const log = new RunLog(bus, clock, ids);
    const definitions = new Definitions(
      new Records<WorkflowDefinition>(bus, buckets.workflowVersions),
      new Records<Current>(bus, buckets.workflows),
      // Said before the answer goes out, on the same connection: whoever has the answer asks workers that have heard it.
      () => bus.send(WORKFLOWS_CHANGED, ""),
    );
    scope.use(
      "workflow news",
      bus.subscribe(WORKFLOWS_CHANGED, () => definitions.forget()),
      (subscription) => subscription.unsubscribe(),
    );
    const secrets = await sharedSecrets(new Records(bus, buckets.runSecrets), config.OPENWOP_TOKEN_SECRETS);
    const egress = scope.use("egress", createEgress({ allow: config.OPENWOP_EGRESS_ALLOW }), (e) => e.close());
    // What webhooks may reach on test hosts is not for the nodes of workflows.
    const hookEgress = config.OPENWOP_INSECURE_WEBHOOKS
      ? scope.use(
          "webhook egress",
          createEgress({ allow: ["127.0.0.1", "::1", "localhost", ...config.OPENWOP_EGRESS_ALLOW] }),
          (e) => e.close(),
        )
      : egress;
    const artifacts = new Artifacts(bus, await ObjectStore.open(bus, objects.runArtifacts));
    const invocations = new Invocations(
      new Records<Invocation>(bus, buckets.runInvocations),
      workerId,
      clock,
      (provider, status, ms) => {
        metrics.activity(provider, status, ms);
        if (logger.enabled("debug"))
          logger.debug("outside called", { metricKind: "openwop.activity.invoked", provider, status, ms });
      },
    );
    const lease = scope.use(
      "leases",
      redisLease(hot.redis, bus, workerId, config.OPENWOP_LEASE_MS, (tenant, runId) => engine.poke(tenant, runId)),
      (l) => l.stop(),
    );
    const audit = await scope.open(
      "audit",
      () => Audit.open(bus, secrets.audit, clock),
      (a) => a.stop(),
    );
    const webhooks = await scope.open(
      "webhooks",
      () => Webhooks.open({ bus, log, egress: hookEgress, clock, logger, insecure: config.OPENWOP_INSECURE_WEBHOOKS }),
      (w, deadline) => w.stop(Date.now() + deadline.remainingMs()),
    );
    const outside = {
      egress,
      clock,
      artifacts,
      ...asking(caller),
      tokens: (provider: string, input: number, output: number, usd: number) =>
        metrics.tokens(provider, input, output, usd),
    };
    const children = childPorts(() => ports);
    const types = nodeTypes(children, outside);
    const ports: RunsPorts = {
      bus,
      log,
      definitions,
      idempotency: new Idempotency(
        new Records<IdempotencyRecord>(bus, buckets.runIdempotency),
        workerId,
        clock,
        ids,
        config.OPENWOP_IDEMPOTENCY_MS,
      ),
      invocations,
      tokens: new Tokens(secrets.tokens),
      audit,
      webhooks,
      artifacts,
      scopes: new Records(bus, buckets.runScopes),
      nodeTypes: types,
      metrics,
      clock,
      ids,
      logger,
      limits,
      host,
      poke: (tenant, runId) => lease.pokeOwner(tenant, runId),
    };
    const engine: Engine = new Engine({
      log,
      definitions,
      lease,
      clock,
      ids,
      logger,
      nodeTypes: types,
      customType: customNodeType(outside),
      capabilities: new Set<string>(),
      invocations,
      limits,
      metrics,
      shortWaits: places(SHORT_WAITS),
      async wakeAt({ record: { runId, owner } }, dueMs) {
        const target = nudgeSubject(tokenOf(owner.tenant), tokenOf(runId));
        // The server's clock has an end, and fires at once what lies beyond it: the run looks, and sleeps on.
        const due = Math.min(dueMs, clock.now() + LONGEST_SLEEP_MS);
        await schedule(bus, streams.runs, {
          key: ["run", owner.tenant, runId],
          when: { at: due },
          target,
          payload: JSON.stringify({ due }),
        });
      },
      cancelChildren: (tenant, runId) => cancelChildren(ports, tenant, runId),
    });
    if (config.OPENWOP_FIXTURES)
      for (const definition of fixtures)
        await definitions.register(SHARED_TENANT, definition, new Date(clock.now()).toISOString());
    await loadWorkflowFiles(config.OPENWOP_WORKFLOWS, definitions, types, clock);
    const intake = await scope.open(
      "run intake",
      () =>
        consume(bus, {
          stream: streams.runs,
          durable: "engine",
          filterSubjects: ["log.runs.*.*.wake", "log.run_nudge.>"],
          concurrency: config.OPENWOP_RUN_CONCURRENCY,
          ackWaitMs: config.OPENWOP_LEASE_MS,
          maxWorkMs: 24 * 60 * 60_000,
          maxDeliver: 100,
          backoffMs: [250, 500, 1_000, 2_000, 5_000],
          maxAckPending: 100_000,
          handler: async (payload, context) => {
            const wake = wakeOf(payload, context);
            if (wake !== undefined) await engine.wake(wake);
          },
          onEvent(event) {
            if (event.type === "dead") {
              const { subject } = event.context;
              logger.error("a run could not be executed", { subject, error: event.error });
              void bury(ports, subject, event.error, event.context.attempt).catch((error: unknown) =>
                logger.error("a run could not be ended", { subject, error }),
              );
            }
            if (event.type === "undecided" || event.type === "trouble")
              logger.warn("run intake", { error: event.error });
          },
        }),
      (c, deadline) => c.stop(Date.now() + Math.max(0, deadline.remainingMs() - 500)),
    );
    let waiting = 0;
    const lookAtQueue = (): void => {
      metrics.active(engine.active);
      metrics.depth(waiting);
      // As of the collection before: collecting waits for nobody.
      intake.lag().then(
        ({ pending }) => (waiting = pending),
        () => undefined,
      );
    };
    scope.use("run metrics", registry.beforeCollect(lookAtQueue), (stop) => stop());
    return [...endpointsOf(EngineDefinition, engineHandlers(ports)), ...restEndpoints(ports)];
  },
});

interface Delivered {
  readonly subject: string;
  readonly deliveryCount: number;
  readonly streamSequence: number;
  readonly signal: AbortSignal;
  readonly attempt: number;
}

/** What a message of the work stream is about. Ends of runs are work too: parents and children hear of them. */
function wakeOf(
  payload: Uint8Array,
  { subject, deliveryCount, attempt, streamSequence, signal }: Delivered,
): Wake | undefined {
  const parts = subject.split(".");
  const [tenant, runId] = (parts[1] === "runs" ? [parts[2], parts[3]] : [parts[2], parts[3]]).map((part) =>
    partOf(part ?? ""),
  );
  if (tenant === undefined || runId === undefined || runId === "") return undefined;
  const text = Buffer.from(payload).toString("utf8");
  const entry = parts[1] === "runs" ? parseEntry(text) : undefined;
  return {
    tenant,
    runId,
    streamSeq: streamSequence,
    due: entry === undefined ? numberOr(objectOr(parseJson(text))["due"], 0) : 0,
    redelivered: deliveryCount > 1,
    signal,
    // A later try, which may be a parked copy delivered for its own first time, says nothing of how far the log is by now.
    ...(entry?.run !== undefined && attempt === 1 && { entry }),
  };
}

function places(count: number): { enter(): boolean; leave(): void } {
  let free = count;
  return {
    enter() {
      if (free <= 0) return false;
      free--;
      return true;
    },
    leave() {
      free++;
    },
  };
}
