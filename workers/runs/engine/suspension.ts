/** The span of a question (OpenWOP, spans): from when it was asked to its answer, its deadline or the end of its run. Made when that is known. */
import type { Interrupt, RunState } from "../../../contracts/openwop/state.ts";
import { SpanKind, withSpan, type Attributes } from "../../../runtime/trace.ts";
import { baseAttributes } from "./spans.ts";

/** Called once, by whoever wrote what ended the question. Nothing waits in between, so a worker may die meanwhile. */
export function suspended({ record, interrupts, span }: RunState, { interruptId, kind, requestedAt }: Interrupt): void {
  const attributes = (): Attributes => ({
    ...baseAttributes(record),
    "openwop.interrupt_kind": kind,
    "openwop.interrupt_id": interruptId,
    "openwop.interrupt_count": [...interrupts.keys()].indexOf(interruptId) + 1,
  });
  const since = Date.parse(requestedAt);
  withSpan("openwop.interrupt", span ?? record.traceparent, attributes, () => undefined, SpanKind.INTERNAL, { since });
}
