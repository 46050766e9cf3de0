/** What an execution is worth telling: metrics, attributes of spans, lines of the log (OpenWOP, observability). */
import { objectOr } from "../../contracts/openwop/json.ts";
import type { NewEvent } from "../../contracts/openwop/log.ts";
import type { NodeState, RunState } from "../../contracts/openwop/state.ts";
import type { Logger } from "../../runtime/log.ts";
import { withSpan, type Attributes, type Span } from "../../runtime/trace.ts";
import type { RunMetrics } from "./metrics.ts";
import { baseAttributes, capAttributes } from "./spans.ts";

export class Measures {
  readonly #metrics: RunMetrics;
  readonly #logger: Logger;

  constructor(metrics: RunMetrics, logger: Logger) {
    this.#metrics = metrics;
    this.#logger = logger;
  }

  /** What came of an attempt of a node: its events, before they are folded. */
  told(
    { record, interrupts }: RunState,
    own: NodeState,
    events: readonly NewEvent[],
    now: number,
    parent: string,
  ): void {
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
      const { kind, interruptId } = objectOr(payload);
      this.#metrics.asked(String(kind));
      const attributes = (): Attributes => ({
        ...baseAttributes(record),
        "openwop.interrupt_kind": String(kind),
        "openwop.interrupt_id": String(interruptId),
        "openwop.interrupt_count": interrupts.size + 1,
      });
      withSpan("openwop.interrupt", parent, attributes, () => undefined);
    }
  }

  /** A limit that ends a run, also said by the span of the run. */
  capped({ type, payload }: NewEvent, span: Span | undefined): void {
    if (type !== "cap.breached") return;
    const { kind, limit, observed } = objectOr(payload);
    this.#metrics.capped(String(kind));
    span?.setAttributes(capAttributes(String(kind), limit, observed));
  }

  /** A question nobody answered in time. */
  expired({ interrupts }: RunState, { type, payload }: NewEvent, now: number): void {
    if (type !== "interrupt.resolved") return;
    const { interruptId, kind } = objectOr(payload);
    const asked = interrupts.get(String(interruptId))?.requestedAt ?? "";
    this.#metrics.answered(String(kind), "running", Math.max(0, now - Date.parse(asked)) / 1_000);
  }
}
