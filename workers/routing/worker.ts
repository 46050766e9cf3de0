/**
 * The routing worker: chooses a provider for each message, and keeps the policies it chooses by.
 *
 * Opened in this order, closed in reverse: policies (loaded and watched), the seeded default policy, then intake.
 * `Decide` needs nothing but memory, so it goes on while the bucket is away; changes of policies fail meanwhile.
 */
import type { Bus } from "../../bus/connect.ts";
import type { Endpoint, UnaryEndpoint } from "../../bus/endpoint.ts";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { routesOf } from "../../contracts/routes.ts";
import { buckets, streams } from "../../contracts/streams.ts";
import { intakeMetrics } from "../../runtime/beamline.metrics.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemIds, systemRandom } from "../../runtime/ids.ts";
import type { Registry } from "../../runtime/metrics.ts";
import { bool, int, list, optional } from "../../runtime/setting.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { defineWorker } from "../module.ts";
import { adminEndpoints } from "./admin.ts";
import { adminCheck, type AdminCheck } from "./adminkey.ts";
import { busDeadLetters } from "./deadletters.ts";
import { RecentDecisions } from "./decisions.memory.ts";
import { noExtensions } from "./extensions.memory.ts";
import type { AdminPorts } from "./handlers.ts";
import { HealthBook } from "./health.ts";
import { routerAnswers, type IntakePorts } from "./intake.ts";
import { Measures } from "./measures.ts";
import { PolicyStore } from "./policystore.ts";
import { limits } from "./policy.ts";
import type { DeadLetters } from "./ports.ts";
import { seedDefaultPolicy } from "./seed.ts";
import { MemoryState } from "./shared.memory.ts";

/** Settings of the routing worker. The admin key is the one the edge and the stack know by that name. */
export const routingSettings = {
  BEAMLINE_ROUTER_ADMIN_API_KEY: workerSettings.BEAMLINE_ROUTER_ADMIN_API_KEY,
  BEAMLINE_ROUTER_SEED_DEFAULT: bool(
    true,
    "Whether a policy named default is made for tenants without one of their own, if nobody made it yet.",
  ),
  BEAMLINE_ROUTER_TENANTS: list(optional, "Tenants that may route; all when not given."),
  BEAMLINE_ROUTER_POLICY_QUOTA: int(limits.policies, "Policies a tenant may have.", { min: 1, max: 100_000 }),
  BEAMLINE_ROUTER_DEAD_LETTERS: bool(
    true,
    "Whether requests that intake refused are put on the dead-letter subject, as a digest with the reason.",
  ),
};

/** Where the answer to a request without a reply subject goes; one public client listens to the second. */
export const fallbackReplies = ["beamline.router.v1.decide.reply", "beamline.router.v1.decide.response"] as const;

export const routingWorker = defineWorker({
  name: "routing",
  settings: routingSettings,
  streams: [streams.deadLetters],
  buckets: [buckets.policies],

  async open(scope, { config, bus, log, metrics }) {
    const measures = new Measures(metrics, routesOf(RouterDefinition).decide.subject);
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
    const deadLetters = config.BEAMLINE_ROUTER_DEAD_LETTERS ? intakeDeadLetters(bus, metrics) : undefined;
    const tenants = config.BEAMLINE_ROUTER_TENANTS;
    const check = adminCheck(config.BEAMLINE_ROUTER_ADMIN_API_KEY);
    return routingEndpoints({
      ...localPorts(store, measures),
      check,
      deadLetters,
      tenants: tenants && new Set(tenants),
    });
  },
});

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
    load: { measure: () => undefined },
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
    const { subject, dialect, timeoutMs } = routes[key as keyof typeof routes];
    const name = subject.replaceAll(".", "-");
    return {
      kind: "request",
      subject,
      name,
      dialect,
      timeoutMs,
      answer,
      fallbackReplies: key === "decide" ? fallbackReplies : [],
    };
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
