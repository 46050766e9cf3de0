/** What the execution worker records, under both sets of names its dashboards know (BeamLine, metrics). */
import { executionWorkerMetrics } from "../../runtime/beamline.metrics.ts";
import type { Registry } from "../../runtime/metrics.ts";
import { stepErrors } from "../../contracts/execution/catalogue.ts";
import type { Heartbeat } from "../../contracts/execution/heartbeat.ts";
import type { StepResult } from "./step.ts";

export interface Measures {
  received(): void;
  began(): void;
  ended(): void;
  finished(type: string, step: StepResult): void;
  deadLettered(): void;
  /** A sign of life: resources and health. */
  beat(beat: Heartbeat): void;
  /** Assignments of a subject that wait for a worker. */
  waiting(subject: string, count: number): void;
  /** How many subjects are taken from. */
  taking(subjects: number): void;
  /** The connection to the bus came, or came back, or went. */
  connected(is: boolean): void;
}

/** Job types of other people's making are few; what is beyond counts as `other`. */
export function executionMeasures(registry: Registry, known: ReadonlySet<string>): Measures {
  const metrics = registry.use(executionWorkerMetrics);
  const depths = new Map<string, number>();
  const inProgress = [metrics.tasks_in_progress.with(), metrics.worker_active_tasks.with()];
  return {
    received: () => metrics.task_received.with().add(),
    began: () => inProgress.forEach((gauge) => gauge.add(1)),
    ended: () => inProgress.forEach((gauge) => gauge.add(-1)),
    deadLettered: () => metrics.dlq_published_total.with().add(),
    beat({ status, resources }) {
      metrics.worker_health_status.with().set(status === "degraded" ? 0 : 1);
      for (const resource of ["cpu", "mem_bytes", "jobs_in_flight"] as const)
        metrics.worker_resource_usage.with({ resource }).set(resources[resource]);
    },
    waiting(pool, count) {
      depths.set(pool, count);
      metrics.worker_pool_queue_depth.with({ pool }).set(count);
      metrics.worker_queue_depth.with().set([...depths.values()].reduce((sum, one) => sum + one, 0));
    },
    taking: (subjects) => metrics.subs_active.with().set(subjects),
    connected(is) {
      metrics.nats_connected.with().set(is ? 1 : 0);
      if (is) metrics.nats_connect_attempts.with().add();
    },
    finished(type, { status, errorCode, latencyMs }) {
      const step_type = known.has(type) ? type : "other";
      const labels = { step_type, status };
      metrics.worker_step_executions_total.with(labels).add();
      metrics.worker_tasks_total.with(labels).add();
      metrics.worker_step_execution_duration_seconds.with(labels).record(latencyMs / 1_000);
      metrics.worker_task_latency_ms.with({ step_type }).record(latencyMs);
      // An assignment is a flow of one step.
      metrics.worker_flow_execution_duration_seconds.with({ status }).record(latencyMs / 1_000);
      metrics.task_duration_seconds.with().record(latencyMs / 1_000);
      if (errorCode !== undefined)
        metrics.worker_step_errors_total.with({ step_type, error_code: String(stepErrors[errorCode].number) }).add();
      if (status === "success") metrics.task_completed.with().add();
      else if (status === "timeout") metrics.task_timeout.with().add();
      else metrics.task_failed.with().add();
    },
  };
}
