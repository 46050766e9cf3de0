/**
 * The routing worker: chooses a provider for each message, and keeps the policies it chooses by.
 *
 * Opened in this order, closed in reverse: Redis, policies (loaded and watched) with the seeded default, the health of providers, extensions,
 * the way to the execution workers, the load meter, then intake. Deciding by a plain policy needs nothing but memory, so it goes on while buckets and
 * Redis are away; changes of policies fail meanwhile, and policies with sessions or limits decide as if there were none.
 */
import type { Bus } from "../../bus/connect.ts";
import { requestEndpoint, type Endpoint, type UnaryEndpoint } from "../../bus/endpoint.ts";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { routesOf } from "../../contracts/routes.ts";
import { buckets, streams } from "../../contracts/streams.ts";
import { intakeMetrics } from "../../runtime/beamline.metrics.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemIds, systemRandom } from "../../runtime/ids.ts";
import type { Registry } from "../../runtime/metrics.ts";
import { assignSubjects, EXEC_DURABLE, keepAssignSubjects, type AssignSubject } from "../assignsubjects.ts";
import { connectRedis } from "../connect.redis.ts";
import { defineWorker } from "../module.ts";
import { adminEndpoints } from "./admin/admin.ts";
import { adminCheck, type AdminCheck } from "./admin/adminkey.ts";
import { BusAssignments } from "./assignments/assignments.ts";
import { blockEndpoints } from "./admin/blocks.ts";
import { openControl } from "./control/control.ts";
import { busDeadLetters } from "./intake/deadletters.ts";
import { RecentDecisions } from "./shared/decisions.memory.ts";
import { RedisDecisions } from "./shared/decisions.redis.ts";
import { extensionAdmin } from "./admin/extensionadmin.ts";
import { ExtensionBook } from "./extensions/extensionhealth.ts";
import { noExtensions } from "./extensions/extensions.memory.ts";
import { ExtensionRegistry } from "./extensions/extensions.nats.ts";
import type { AdminPorts, ExtensionStates } from "./admin/handlers.ts";
import { HealthBook } from "./health/health.ts";
import { alertOpened, followHealth } from "./health/healthfeed.ts";
import { routerAnswers, type IntakePorts } from "./intake/intake.ts";
import { Journal } from "./shared/journal.nats.ts";
import { LoadMeter } from "./intake/load.ts";
import { Measures } from "./measures.ts";
import { busPipeline } from "./extensions/pipeline.ts";
import { PolicyStore } from "./policies/policystore.ts";
import type { DeadLetters } from "./ports.ts";
import { keepPromises } from "./assignments/promises.nats.ts";
import { seedDefaultPolicy } from "./policies/seed.ts";
import { routingSettings, windowsOf } from "./settings.ts";
import { MemoryState } from "./shared/shared.memory.ts";
import { RedisState } from "./shared/shared.redis.ts";
import { WordBook } from "./shared/words.redis.ts";

/** Where the answer to a request without a reply subject goes; one public client listens to the second. */
export const fallbackReplies = ["beamline.router.v1.decide.reply", "beamline.router.v1.decide.response"] as const;

export const routingWorker = defineWorker({
  name: "routing",
  settings: routingSettings,
  streams: [streams.deadLetters, streams.routingKeys, streams.routingPromises, streams.exec, streams.alerts],
  buckets: [buckets.blocks, buckets.control, buckets.policies, buckets.extensions, buckets.providerHealth],

  async open(scope, { config, bus, caller, log, metrics, calls }) {
    const { subject } = routesOf(RouterDefinition).decide;
    const measures = new Measures(metrics, subject);
    const unwatch = [
      bus.onDisconnect(({ code }) => measures.connectionLost(code)),
      bus.onReconnect(() => measures.reconnected()),
    ];
    scope.use("connection", unwatch, (stops) => stops.forEach((stop) => stop()));
    const now = (): number => systemClock.now();
    const monotonic = (): number => systemClock.monotonic();
    const newId = (): string => systemIds.v4();
    const random = (): number => systemRandom.float();
    const onTrouble = seldom((error) => log.warn("shared state of routing is in trouble", { error }), monotonic);

    const hot = await scope.open(
      "redis",
      () => connectRedis(config.REDIS_URL, "routing", REDIS_TIMEOUT_MS),
      (one) => one.close(),
    );
    const words = new WordBook(now);
    const shared = new RedisState(hot.redis, new Journal(bus), { now, onTrouble, words });
    shared.begin();
    const decisions = scope.use("decisions", new RedisDecisions(hot.redis, { now, onTrouble, words }), (one) =>
      one.flush(),
    );

    const store = new PolicyStore(bus, {
      quota: config.BEAMLINE_ROUTER_POLICY_QUOTA,
      onUnreadable: (key, error) =>
        log.error("a stored policy cannot be read; the last good one stays in force", { key, error }),
      onTrouble: (error) =>
        log.warn("policies are not followed for the moment; those in memory stay in force", { error }),
      onLoaded: (tenant) => measures.loaded(tenant),
    });
    await scope.open(
      "policies",
      () => store.open(),
      () => store.close(),
    );
    if (config.BEAMLINE_ROUTER_SEED_DEFAULT) await seedDefaultPolicy(store);

    const health = new HealthBook({
      now,
      onCircuit(tenant, provider, from, to) {
        measures.circuit(tenant, provider, from, to);
        log.warn("a circuit changed", { tenant_id: tenant, provider_id: provider, from, to });
        if (to === "open")
          alertOpened(bus, newId(), now(), tenant, provider).catch((error: unknown) =>
            log.warn("an alert could not be published", { error }),
          );
      },
      onErrorRate: (tenant, provider, rate) => measures.errorRate(tenant, provider, rate),
    });
    const feed = scope.use(
      "provider health",
      followHealth(
        bus,
        (record) => health.take(record),
        (error) => log.warn("the health of providers is not followed for the moment", { error }),
      ),
      (watch) => watch.stop(),
    );
    await feed.ready;

    const registry = new ExtensionRegistry(bus, {
      onTrouble: (error) => log.warn("extensions are not followed for the moment", { error }),
    });
    await scope.open(
      "extensions",
      () => registry.open(),
      () => registry.close(),
    );
    const book = new ExtensionBook({
      now,
      onCircuit: (extension_id, from, to) =>
        log.warn("the circuit of an extension changed", { extension_id, from, to }),
    });
    const pipeline = busPipeline({
      caller,
      book,
      extensions: registry,
      now,
      monotonic,
      onCall: ({ extension }, status, ms) => measures.extension(extension.id, extension.type, status, ms),
    });

    const subjects = assignSubjects(config.BEAMLINE_EXEC_SUBJECTS);
    await keepAssignSubjects(bus, subjects, config.BEAMLINE_STREAM_REPLICAS);
    const assignments = scope.use(
      "assignments",
      new BusAssignments(bus, {
        enabled: config.BEAMLINE_ROUTER_ASSIGNMENTS,
        tenants: setOf(config.BEAMLINE_ROUTER_ASSIGNMENT_TENANTS),
        newId,
        random,
        now,
        log,
        registry: metrics,
      }),
      (one) => one.drain(),
    );
    await scope.open(
      "promises",
      () => keepPromises(bus, assignments.keepLeftOver, log, now),
      (one, deadline) => one.stop(Date.now() + deadline.remainingMs()),
    );
    const load = scope.use(
      "load",
      new LoadMeter(bus, { subject, assignments: consumersOf(subjects), measures, calls }),
      (one) => one.stop(),
    );
    load.start();

    const check = adminCheck(config.BEAMLINE_ROUTER_ADMIN_API_KEY);
    const ports: RoutingPorts = {
      store,
      policies: store,
      measures,
      health,
      shared,
      onSession: (tenant, kept) => measures.session(tenant, kept),
      onWithinLimit: (tenant, kind) => measures.withinLimit(tenant, kind),
      onStoreFailure(thrown, key) {
        measures.unchecked(key);
        onTrouble(thrown);
      },
      windows: windowsOf(
        config.BEAMLINE_ROUTER_TENANT_LIMIT,
        config.BEAMLINE_ROUTER_TENANT_LIMITS,
        config.BEAMLINE_ROUTER_TENANT_QUOTA,
      ),
      decisions,
      extensions: statesOf(registry, book),
      pipeline,
      assignments,
      load,
      newId,
      random,
      now,
      monotonic,
      check,
      deadLetters: config.BEAMLINE_ROUTER_DEAD_LETTERS ? intakeDeadLetters(bus, metrics) : undefined,
      tenants: setOf(config.BEAMLINE_ROUTER_TENANTS),
    };
    const control = config.BEAMLINE_ROUTER_CONTROL
      ? await openControl(scope, {
          bus,
          caller,
          log,
          decide: routerAnswers(ports).decide,
          token: config.BEAMLINE_ROUTER_CONTROL_TOKEN,
          newId,
          now,
        })
      : [];
    return [...routingEndpoints(ports), ...blockEndpoints(bus), ...extensionAdmin(registry, check), ...control];
  },
});

/** How long a question to Redis may take before it is decided without, milliseconds. */
const REDIS_TIMEOUT_MS = 500;

/** Tells at most once a second: with Redis away every request would have the same to say. */
function seldom(tell: (error: unknown) => void, monotonic: () => number): (error: unknown) => void {
  let last = Number.NEGATIVE_INFINITY;
  return (error) => {
    const now = monotonic();
    if (now - last < 1_000) return;
    last = now;
    tell(error);
  };
}

/** The consumer of each subject assignments go to. */
function consumersOf(subjects: readonly AssignSubject[]): Readonly<Record<string, string>> {
  return Object.fromEntries(subjects.map(({ subject, durable }) => [subject, durable(EXEC_DURABLE)]));
}

function setOf(names: readonly string[] | undefined): ReadonlySet<string> | undefined {
  return names && new Set(names);
}

/** The states of every registered extension, called or not. */
function statesOf(registry: ExtensionRegistry, book: ExtensionBook): ExtensionStates {
  const know = (): void => {
    for (const owned of registry.list()) book.know(owned);
  };
  return {
    health() {
      know();
      return book.health();
    },
    circuits() {
      know();
      return book.circuits();
    },
  };
}

/** Everything the endpoints need. */
export interface RoutingPorts extends IntakePorts, AdminPorts {
  readonly check: AdminCheck;
}

/** Ports for one worker alone: the machine's clock and randomness, and this process's memory in place of shared state. */
export function localPorts(store: PolicyStore, measures: Measures): Omit<RoutingPorts, "check"> {
  const now = (): number => systemClock.now();
  return {
    store,
    policies: store,
    measures,
    health: new HealthBook({
      now,
      onCircuit: (tenant, provider, from, to) => measures.circuit(tenant, provider, from, to),
      onErrorRate: (tenant, provider, rate) => measures.errorRate(tenant, provider, rate),
    }),
    shared: new MemoryState(now),
    onSession: (tenant, kept) => measures.session(tenant, kept),
    decisions: new RecentDecisions(),
    extensions: noExtensions,
    load: { refusing: false, took: () => undefined, measure: () => undefined },
    newId: () => systemIds.v4(),
    random: () => systemRandom.float(),
    now,
    monotonic: () => systemClock.monotonic(),
  };
}

/** What the worker serves: the Router's subjects raw, the RouterAdmin's behind the admin key. */
export function routingEndpoints(ports: RoutingPorts): Endpoint[] {
  const routes = routesOf(RouterDefinition);
  const router = Object.entries(routerAnswers(ports)).map(([key, answer]): UnaryEndpoint => {
    const endpoint = requestEndpoint(routes[key as keyof typeof routes], answer);
    return key === "decide" ? { ...endpoint, fallbackReplies } : endpoint;
  });
  return [...router, ...adminEndpoints(ports, ports.check)];
}

function intakeDeadLetters(bus: Bus, registry: Registry): DeadLetters {
  const metrics = registry.use(intakeMetrics);
  const { subject } = routesOf(RouterDefinition).decide;
  const reason = "validation_failed";
  return busDeadLetters(bus, {
    node: bus.name,
    now: () => systemClock.now(),
    onSent: (error_code) => metrics.router_intake_dlq_messages_total.with({ reason, error_code, subject }).add(),
    onFailed: (error_code) =>
      metrics.router_intake_dlq_publish_failed_total
        .with({ reason, error_code, subject, failure_reason: "unavailable" })
        .add(),
  });
}
