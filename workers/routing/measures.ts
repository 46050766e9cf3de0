/** What deciding records, under the names of the contract (BeamLine, metrics). Series are looked up once per policy, provider and reason. */
import type { Counter, Histogram, Metrics, Registry } from "../../runtime/metrics.ts";
import { intakeMetrics, keyMetrics, routerMetrics } from "../../runtime/beamline.metrics.ts";
import type { Policy } from "./policies/compile.ts";
import type { Decision } from "./choice/decision.ts";
import type { CircuitState } from "./ports.ts";

const circuitNumbers: Readonly<Record<CircuitState, number>> = { closed: 0, open: 1, half_open: 2 };

/** How keys begin that the REST gateway made of a request's ids. They are looked up here, so they are counted here. */
const GATEWAY = "gateway:";

interface Bundle {
  readonly requests: Counter;
  readonly decisions: Counter;
  readonly seconds: Histogram;
  readonly milliseconds: Histogram;
  readonly providerSeconds: Histogram;
}

export class Measures {
  readonly #router: Metrics<typeof routerMetrics>;
  readonly #intake: Metrics<typeof intakeMetrics>;
  readonly #gateway: Metrics<typeof keyMetrics>;
  readonly #taken: Counter;
  /** Policies are looked up in memory only. */
  readonly #policyHits: Counter;
  readonly #processing: Histogram;
  readonly #subject: string;
  readonly #bundles = new WeakMap<Policy, Map<string, Bundle>>();

  constructor(registry: Registry, subject: string) {
    this.#router = registry.use(routerMetrics);
    this.#intake = registry.use(intakeMetrics);
    this.#gateway = registry.use(keyMetrics);
    this.#subject = subject;
    this.#processing = this.#intake.router_intake_processing_latency_seconds.with({ subject, status: "ok" });
    this.#policyHits = this.#router.beamline_router_cache_hits_total.with({ cache_type: "policy" });
    this.#taken = this.#intake.router_intake_messages_total.with({ subject, status: "ok" });
  }

  connectionLost(reason: string): void {
    this.#intake.router_nats_connection_errors_total.with({ reason }).add();
  }

  reconnected(): void {
    this.#intake.router_nats_reconnect_total.with().add();
  }

  decided(
    policy: Policy,
    tenant: string,
    { provider_id, reason }: Pick<Decision, "provider_id" | "reason">,
    ms: number,
  ): void {
    let bundles = this.#bundles.get(policy);
    if (bundles === undefined) this.#bundles.set(policy, (bundles = new Map()));
    const name = tenant === policy.tenant ? provider_id + reason : `${tenant} ${provider_id}${reason}`;
    let bundle = bundles.get(name);
    if (bundle === undefined) bundles.set(name, (bundle = this.#bundle(policy, tenant, provider_id, reason)));
    this.#taken.add();
    this.#policyHits.add();
    bundle.requests.add();
    bundle.decisions.add();
    bundle.seconds.record(ms / 1_000);
    bundle.milliseconds.record(ms);
    bundle.providerSeconds.record(ms / 1_000);
    this.#processing.record(ms / 1_000);
  }

  replayed(key: string): void {
    this.#taken.add();
    if (key.startsWith(GATEWAY)) this.#gateway.beamline_gateway_idempotency_hits_total.with().add();
    this.#router.router_idempotency_hit_total.with({ key_type: "decide" }).add();
  }

  /** A decision with an idempotency key that was new. */
  first(key: string): void {
    if (key.startsWith(GATEWAY)) this.#gateway.beamline_gateway_idempotency_miss_total.with().add();
    this.#router.router_idempotency_miss_total.with({ key_type: "decide" }).add();
  }

  session(tenant_id: string, kept: boolean): void {
    (kept ? this.#router.router_sticky_hits_total : this.#router.router_sticky_miss_total).with({ tenant_id }).add();
  }

  /** A key that could not be looked up, so that its request counted as new. */
  unchecked(key: string): void {
    if (key.startsWith(GATEWAY)) this.#gateway.beamline_gateway_idempotency_store_errors_total.with().add();
  }

  /** A request beyond a limit; `scope` is policy, tenant, quota or backpressure. */
  limited(tenant_id: string, scope: string): void {
    if (scope === "backpressure")
      this.#intake.router_intake_backpressure_rejections_total.with({ subject: this.#subject, reason: "active" }).add();
    else this.#router.router_rate_limit_exceeded_total.with({ scope, tenant_id }).add();
  }

  /** A request within a limit. */
  withinLimit(tenant_id: string, scope: string): void {
    this.#router.router_rate_limit_allowed_total.with({ scope, tenant_id }).add();
  }

  extension(extension_id: string, extension_type: string, status: string, ms: number): void {
    const labels = { extension_id, extension_type, status };
    this.#router.router_extension_execution_total.with(labels).add();
    this.#router.router_extension_latency_ms.with(labels).record(ms);
  }

  /** What the last look at the load found. */
  load(subject: string, inflight: number, most: number, active: boolean): void {
    this.#router.beamline_router_active_requests.with().set(inflight);
    this.#intake.router_intake_inflight_messages.with({ subject }).set(inflight);
    this.#intake.router_intake_inflight_messages_max.with({ subject }).set(most);
    this.#intake.router_intake_backpressure_active.with({ subject }).set(active ? 1 : 0);
  }

  /** Backpressure began; `trigger` names the figures beyond their thresholds. */
  overloaded(subject: string, trigger: string): void {
    this.#intake.router_intake_backpressure_triggered_total.with({ subject, trigger }).add();
  }

  /** A request answered with an error. `error` is the code, `intake` the upper-case one when intake refused it. */
  failed(error: string, intake: string | undefined, tenant_id: string): void {
    const subject = this.#subject;
    this.#intake.router_intake_messages_total.with({ subject, status: "failed" }).add();
    this.#router.beamline_router_requests_total.with({ provider: "none", status: "error" }).add();
    this.#router.beamline_router_errors_total.with({ provider: "none", error_type: error }).add();
    if (error === "policy_not_found")
      this.#router.beamline_router_cache_misses_total.with({ cache_type: "policy" }).add();
    if (intake !== undefined)
      this.#intake.router_intake_validation_errors_total.with({ error_code: intake, subject, tenant_id }).add();
  }

  loaded(tenant_id: string): void {
    this.#router.beamline_router_policy_loads_total.with({ tenant_id, source: "bucket" }).add();
  }

  circuit(tenant_id: string, provider_id: string, from: CircuitState, to: CircuitState): void {
    this.#router.router_circuit_breaker_state.with({ tenant_id, provider_id }).set(circuitNumbers[to]);
    this.#router.router_circuit_breaker_state_transitions_total.with({ tenant_id, provider_id, from, to }).add();
  }

  errorRate(tenant_id: string, provider_id: string, rate: number): void {
    this.#router.router_circuit_breaker_error_rate.with({ tenant_id, provider_id }).set(rate);
  }

  #bundle(policy: Policy, tenant_id: string, provider: string, reason: string): Bundle {
    const labels = { tenant_id, policy_id: policy.id, reason };
    return {
      requests: this.#router.beamline_router_requests_total.with({ provider, status: "success" }),
      decisions: this.#router.router_policy_decisions_total.with(labels),
      seconds: this.#router.beamline_router_decision_latency_seconds.with({ decision_type: reason }),
      milliseconds: this.#router.router_policy_decision_latency_ms.with(labels),
      providerSeconds: this.#router.beamline_router_latency_seconds.with({ provider }),
    };
  }
}
