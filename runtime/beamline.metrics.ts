/**
 * The metrics of the BeamLine contract (observability, metrics): names, labels and buckets as its dashboards know them.
 * A part registers the table it records. Where the contract leaves labels open, they are the few that stay few:
 * never a trace, run, step, assignment or request id, never an idempotency key.
 */
import { counter, gauge, histogram } from "./metrics.ts";

const REQUEST_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5];
const DECISION_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5];
const INTAKE_SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const STEP_SECONDS = [0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300];
const MILLISECONDS = [1, 5, 10, 30, 50, 100, 150, 250, 500, 1_000, 5_000];

/** Deciding: requests, latency, policies, stickiness, limits, circuits, extensions. */
export const routerMetrics = {
  beamline_router_requests_total: counter("Routing requests answered.", "provider", "status"),
  beamline_router_latency_seconds: histogram("Time to answer a routing request.", REQUEST_SECONDS, "provider"),
  beamline_router_errors_total: counter("Routing requests answered with an error.", "provider", "error_type"),
  beamline_router_active_requests: gauge("Routing requests being handled."),
  beamline_router_policy_loads_total: counter("Policies loaded.", "tenant_id", "source"),
  beamline_router_cache_hits_total: counter("Lookups answered from a cache.", "cache_type"),
  beamline_router_cache_misses_total: counter("Lookups a cache had no answer for.", "cache_type"),
  beamline_router_decision_latency_seconds: histogram("Time to decide.", DECISION_SECONDS, "decision_type"),
  router_policy_decisions_total: counter("Decisions by policy and reason.", "tenant_id", "policy_id", "reason"),
  router_policy_decision_latency_ms: histogram(
    "Time to decide by policy, in milliseconds.",
    MILLISECONDS,
    "tenant_id",
    "policy_id",
    "reason",
  ),
  router_sticky_hits_total: counter("Decisions that kept a session's provider.", "tenant_id"),
  router_sticky_miss_total: counter("Sticky decisions without a provider to keep.", "tenant_id"),
  router_rate_limit_allowed_total: counter("Requests within their limit.", "scope", "tenant_id"),
  router_rate_limit_exceeded_total: counter("Requests beyond their limit.", "scope", "tenant_id"),
  router_idempotency_hit_total: counter("Requests answered from an earlier answer.", "key_type"),
  router_idempotency_miss_total: counter("Requests seen for the first time.", "key_type"),
  router_circuit_breaker_state: gauge("0 closed, 1 open, 2 half-open.", "tenant_id", "provider_id"),
  router_circuit_breaker_state_transitions_total: counter("Circuit changes.", "tenant_id", "provider_id", "from", "to"),
  router_circuit_breaker_error_rate: gauge(
    "Share of failed calls in the circuit's window.",
    "tenant_id",
    "provider_id",
  ),
  router_extension_execution_total: counter("Extension calls.", "extension_id", "extension_type", "status"),
  router_extension_latency_ms: histogram(
    "Time of an extension call, in milliseconds.",
    MILLISECONDS,
    "extension_id",
    "extension_type",
    "status",
  ),
};

/** Messages taken in: validation, dead letters, backpressure, consumers. */
export const intakeMetrics = {
  router_intake_messages_total: counter("Messages taken in; status is ok or failed.", "subject", "status"),
  router_intake_validation_errors_total: counter("Messages refused.", "error_code", "subject", "tenant_id"),
  router_intake_processing_latency_seconds: histogram("Time to handle a message.", INTAKE_SECONDS, "subject", "status"),
  router_intake_inflight_messages: gauge("Messages being handled.", "subject"),
  router_intake_inflight_messages_max: gauge("Most messages handled at a time.", "subject"),
  router_intake_dlq_messages_total: counter("Messages dead-lettered.", "reason", "error_code", "subject"),
  router_intake_dlq_publish_failed_total: counter(
    "Dead letters that could not be published.",
    "reason",
    "error_code",
    "subject",
    "failure_reason",
  ),
  router_intake_backpressure_active: gauge("1 while intake is held back.", "subject"),
  router_intake_backpressure_triggered_total: counter("Times intake was held back.", "subject", "trigger"),
  router_intake_backpressure_rejections_total: counter("Messages refused while held back.", "subject", "reason"),
  router_nats_connection_errors_total: counter("Failures of the connection to the bus.", "reason"),
  router_nats_reconnect_total: counter("Reconnections to the bus."),
  router_nats_contract_violations_total: counter(
    "Messages with wrong headers, handled all the same.",
    "subject",
    "violation",
  ),
  router_jetstream_pending_messages: gauge("Messages not yet delivered.", "subject", "consumer"),
  router_jetstream_ack_pending_messages: gauge("Messages delivered and not yet acknowledged.", "subject", "consumer"),
  router_jetstream_delivered_messages_total: counter("Messages delivered.", "subject", "consumer"),
  router_jetstream_redelivered_messages_total: counter("Messages delivered again.", "subject", "consumer"),
  router_jetstream_ack_total: counter("Messages acknowledged.", "subject"),
  router_jetstream_redelivery_total: counter("Messages handed back for redelivery.", "subject", "reason"),
  router_jetstream_maxdeliver_exhausted_total: counter("Messages given up after their last delivery.", "subject"),
  router_dlq_total: counter("Messages dead-lettered, by reason.", "subject", "reason"),
};

/** Assignments, their results, and what they used. */
export const executionMetrics = {
  router_assignment_published_total: counter("Assignments published.", "subject"),
  router_assignment_retry_total: counter("Assignments published again.", "subject"),
  router_assignment_blocked_total: counter("Assignments not published.", "reason"),
  router_acks_total: counter("Acknowledgements of assignments.", "status"),
  router_results_total: counter("Results received.", "status"),
  router_results_duplicate_total: counter("Results received before."),
  router_usage_emitted_total: counter("Usage events published.", "tenant_id", "provider_id"),
  router_usage_emit_failed_total: counter("Usage events that could not be published.", "reason"),
  beamline_provider_invocations_total: counter("Provider calls.", "provider", "status"),
  beamline_provider_latency_seconds: histogram("Time of a provider call.", REQUEST_SECONDS, "provider"),
  beamline_provider_cost_total: counter("Cost of provider calls in dollars.", "provider"),
  beamline_usage_events_total: counter("Usage events.", "tenant_id", "event_type"),
  beamline_usage_quota_remaining: gauge("What is left of a quota.", "tenant_id"),
};

/** The HTTP gateway. `path` is the route's pattern, never the path as called. */
export const gatewayMetrics = {
  gateway_http_requests_total: counter("HTTP requests answered.", "method", "path", "status"),
  gateway_http_request_duration_seconds: histogram(
    "Time to answer an HTTP request.",
    REQUEST_SECONDS,
    "method",
    "path",
  ),
  gateway_rate_limit_hits_total: counter("Requests looked at by the limiter.", "endpoint", "tenant_id"),
  gateway_rate_limit_allowed_total: counter("Requests within their limit.", "endpoint", "tenant_id"),
  gateway_rate_limit_exceeded_total: counter("Requests beyond their limit.", "endpoint", "tenant_id"),
  gateway_nats_messages_sent_total: counter("Messages sent to the bus.", "subject"),
  gateway_nats_publish_failures_total: counter("Messages that could not be sent.", "subject", "error"),
  gateway_nats_connection_status: gauge("1 while connected to the bus."),
  gateway_abuse_detected_total: counter("Signs of abuse, refused requests among them.", "kind"),
};

/** Keys of the REST gateway, which the routers look up for all edges. */
export const keyMetrics = {
  beamline_gateway_idempotency_hits_total: counter("Requests answered from an earlier answer."),
  beamline_gateway_idempotency_miss_total: counter("Requests seen for the first time."),
  beamline_gateway_idempotency_store_errors_total: counter("Failures of the store of earlier answers."),
};

/** The execution worker, under both sets of names its dashboards know. */
export const executionWorkerMetrics = {
  worker_step_executions_total: counter("Steps executed.", "step_type", "status"),
  worker_step_execution_duration_seconds: histogram("Time of a step.", STEP_SECONDS, "step_type", "status"),
  worker_step_errors_total: counter("Steps that failed.", "step_type", "error_code"),
  worker_flow_execution_duration_seconds: histogram("Time of a whole flow.", STEP_SECONDS, "status"),
  worker_queue_depth: gauge("Tasks waiting."),
  worker_active_tasks: gauge("Tasks being executed."),
  worker_health_status: gauge("1 when healthy."),
  worker_tasks_total: counter("Tasks finished.", "step_type", "status"),
  worker_task_latency_ms: histogram("Time of a task, in milliseconds.", MILLISECONDS, "step_type"),
  worker_resource_usage: gauge("Resources in use.", "resource"),
  worker_pool_queue_depth: gauge("Tasks waiting for a pool.", "pool"),
  task_received: counter("Tasks received."),
  task_completed: counter("Tasks completed."),
  task_failed: counter("Tasks failed."),
  task_timeout: counter("Tasks that ran out of time."),
  tasks_in_progress: gauge("Tasks in progress."),
  dlq_published_total: counter("Dead letters published."),
  task_duration_seconds: histogram("Time of a task.", STEP_SECONDS),
  nats_connected: gauge("1 while connected to the bus."),
  nats_connect_attempts: counter("Attempts to connect to the bus."),
  subs_active: gauge("Subscriptions in force."),
};
