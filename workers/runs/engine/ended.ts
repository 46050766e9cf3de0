/** What is told of a run that has ended: a metric, the spans of questions that went with it, and a line of the log for whoever looks for it later (OpenWOP, metrics). */
import type { RunState } from "../../../contracts/openwop/state.ts";
import type { Logger } from "../../../runtime/log.ts";
import { traceIdOf } from "../../../runtime/trace.ts";
import type { RunMetrics } from "../metrics.ts";
import { suspended } from "./suspension.ts";

/** Called once by whoever wrote the end. */
export function ended({ metrics, logger }: { metrics: RunMetrics; logger: Logger }, state: RunState): void {
  metrics.ended(state);
  for (const interrupt of state.interrupts.values()) if (interrupt.status === "gone") suspended(state, interrupt);
  const { runId, workflowId, owner, traceparent } = state.record;
  logger.info("run ended", {
    metricKind: "openwop.run.completed",
    run_id: runId,
    tenant_id: owner.tenant,
    trace_id: traceIdOf(traceparent),
    workflowId,
    status: state.status,
    ...(state.error !== undefined && { errorCode: state.error.code }),
  });
}
