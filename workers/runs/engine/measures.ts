/** What an execution is worth telling: metrics, attributes of spans, lines of the log (OpenWOP, observability). */
import { objectOr } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import type { NodeState, RunState } from "../../../contracts/openwop/state.ts";
import type { Logger } from "../../../runtime/log.ts";
import type { Span } from "../../../runtime/trace.ts";
import type { RunMetrics } from "../metrics.ts";
import { capAttributes } from "./spans.ts";
import { suspended } from "./suspension.ts";

export class Measures {
  readonly #metrics: RunMetrics;
  readonly #logger: Logger;

  constructor(metrics: RunMetrics, logger: Logger) {
    this.#metrics = metrics;
    this.#logger = logger;
  }

  /** What came of an attempt of a node: its events, before they are folded. */
  told({ record }: RunState, own: NodeState, events: readonly NewEvent[], now: number): void {
    for (const { type, payload } of events) {
      if (type === "node.retried") this.#metrics.attempt(own, "retried");
      if (type === "node.completed" || type === "node.failed") {
        const status = type.slice("node.".length);
        this.#metrics.attempt(own, status);
        this.#metrics.node(own, status, now);
        if (this.#logger.enabled("debug")) {
          const ids = { run_id: record.runId, tenant_id: record.owner.tenant };
          this.#logger.debug("node ended", {
            metricKind: "openwop.node.completed",
            ...ids,
            nodeId: own.nodeId,
            status,
          });
        }
      }
      if (type !== "node.suspended") continue;
      this.#metrics.asked(String(objectOr(payload)["kind"]));
    }
  }

  /** A limit that ends a run, also said by the span of the run. */
  capped({ type, payload }: NewEvent, span: Span | undefined): void {
    if (type !== "cap.breached") return;
    const { kind, limit, observed } = objectOr(payload);
    this.#metrics.capped(String(kind));
    span?.setAttributes(capAttributes(String(kind), limit, observed));
  }

  /** A question nobody answered in time, or that a replay has the answer to: its events, before they are folded. */
  resolved(state: RunState, { type, payload }: NewEvent, now: number): void {
    if (type !== "interrupt.resolved") return;
    const interrupt = state.interrupts.get(String(objectOr(payload)["interruptId"]));
    if (interrupt === undefined) return;
    this.#metrics.answered(interrupt.kind, "running", Math.max(0, now - Date.parse(interrupt.requestedAt)) / 1_000);
    suspended(state, interrupt);
  }
}
