/**
 * Metrics of runs (OpenWOP, metrics), under the contract's names as Prometheus spells them: `openwop.run.created` is
 * `openwop_run_created_total`. Never a run id among the labels.
 */
import { waitingStatus } from "../../contracts/openwop/snapshot.ts";
import type { NodeState, RunState } from "../../contracts/openwop/state.ts";
import { counter, gauge, histogram, type Registry } from "../../runtime/metrics.ts";

const RUN_S = [0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600];
const NODE_S = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60];
const BACKLOG_S = [0.05, 0.1, 0.5, 1, 5, 30, 60, 300, 1800];
const INTERRUPT_S = [60, 300, 900, 3600, 14_400, 86_400, 259_200, 604_800];

const table = {
  openwop_run_created: counter("Runs created.", "workflow_id", "tenant_id"),
  openwop_run_completed: counter("Runs that ended.", "run_status", "workflow_id"),
  openwop_run_duration: histogram("Seconds from start to end of a run.", RUN_S, "run_status", "workflow_id"),
  openwop_run_active: gauge("Runs this worker executes.", "tenant_id"),
  openwop_run_backlog: histogram(
    "Seconds from the creation of a run to its execution.",
    BACKLOG_S,
    "tenant_id",
    "workflow_id",
  ),
  openwop_queue_depth: gauge("Runs waiting for a worker.", "tenant_id"),
  openwop_queue_enqueued: counter("Work put into the queue.", "tenant_id"),
  openwop_node_completed: counter("Node executions that ended.", "node_type", "run_status"),
  openwop_node_duration: histogram("Seconds of one node execution.", NODE_S, "node_type", "run_status"),
  openwop_node_attempts: counter("Attempts of nodes.", "node_type", "run_status"),
  openwop_activity_invocations: counter("Calls of the outside.", "provider", "run_status"),
  openwop_activity_duration: histogram("Seconds of one call of the outside.", NODE_S, "provider", "run_status"),
  openwop_activity_tokens: counter("Tokens used by model calls.", "provider", "direction"),
  openwop_cap_exceeded: counter("Limits that ended a run.", "cap_kind"),
  openwop_run_claim_conflicts: counter("Runs that another worker held.", "transport", "tenant_id"),
  openwop_interrupt_requested: counter("Questions asked.", "interrupt_kind", "run_status"),
  openwop_interrupt_duration: histogram("Seconds until an answer.", INTERRUPT_S, "interrupt_kind", "run_status"),
  openwop_cost_usd: counter("Estimated cost.", "provider", "cost_estimated"),
} as const;

export class RunMetrics {
  readonly #metrics;

  constructor(registry: Registry) {
    this.#metrics = registry.use(table);
  }

  created({ record }: RunState): void {
    const { workflowId, owner } = record;
    this.#metrics.openwop_run_created.with({ workflow_id: workflowId, tenant_id: owner.tenant }).add();
    this.#metrics.openwop_queue_enqueued.with({ tenant_id: owner.tenant }).add();
  }

  ended({ record, status, startedAt, completedAt }: RunState): void {
    const labels = { run_status: status, workflow_id: record.workflowId };
    this.#metrics.openwop_run_completed.with(labels).add();
    this.#metrics.openwop_run_duration.with(labels).record(secondsBetween(startedAt, completedAt));
  }

  attempt({ typeId }: NodeState, status: string): void {
    this.#metrics.openwop_node_attempts.with({ node_type: typeId, run_status: status }).add();
  }

  node({ typeId, startedAt }: Pick<NodeState, "typeId" | "startedAt">, status: string, now: number): void {
    const labels = { node_type: typeId, run_status: status };
    this.#metrics.openwop_node_completed.with(labels).add();
    this.#metrics.openwop_node_duration.with(labels).record(Math.max(0, now - Date.parse(startedAt)) / 1000);
  }

  activity(provider: string, status: string, ms: number): void {
    this.#metrics.openwop_activity_invocations.with({ provider, run_status: status }).add();
    this.#metrics.openwop_activity_duration.with({ provider, run_status: status }).record(ms / 1000);
  }

  tokens(provider: string, input: number, output: number, usd: number): void {
    this.#metrics.openwop_activity_tokens.with({ provider, direction: "input" }).add(input);
    this.#metrics.openwop_activity_tokens.with({ provider, direction: "output" }).add(output);
    if (usd > 0) this.#metrics.openwop_cost_usd.with({ provider, cost_estimated: "true" }).add(usd);
  }

  capped(kind: string): void {
    this.#metrics.openwop_cap_exceeded.with({ cap_kind: kind }).add();
  }

  conflict(tenant: string): void {
    this.#metrics.openwop_run_claim_conflicts.with({ transport: "bus", tenant_id: tenant }).add();
  }

  asked(kind: string): void {
    const labels = { interrupt_kind: kind, run_status: waitingStatus(kind) };
    this.#metrics.openwop_interrupt_requested.with(labels).add();
  }

  /** `status` is the run's after the answer. */
  answered(kind: string, status: string, seconds: number): void {
    this.#metrics.openwop_interrupt_duration.with({ interrupt_kind: kind, run_status: status }).record(seconds);
  }

  active(counts: ReadonlyMap<string, number>): void {
    for (const [tenant_id, count] of counts) this.#metrics.openwop_run_active.with({ tenant_id }).set(count);
  }

  depth(count: number): void {
    this.#metrics.openwop_queue_depth.with({ tenant_id: "all" }).set(count);
  }

  backlog({ record }: RunState, seconds: number): void {
    this.#metrics.openwop_run_backlog
      .with({ tenant_id: record.owner.tenant, workflow_id: record.workflowId })
      .record(seconds);
  }
}

function secondsBetween(from: string, to: string | undefined): number {
  return to === undefined || from === "" ? 0 : Math.max(0, Date.parse(to) - Date.parse(from)) / 1000;
}
