/** In whose name a node asks other workers. */
import { header, type Headers } from "../../../contracts/headers.ts";
import type { NodeCall } from "../engine/nodetype.ts";

/** Headers of a call that is the effect `invocationId` of a node. */
export function headersOf(call: NodeCall, invocationId: string): Headers {
  const { owner } = call.state.record;
  return {
    [header.tenantId]: owner.tenant,
    [header.principal]: owner.principal ?? `run:${call.state.record.runId}`,
    [header.scopes]: "*",
    [header.traceparent]: call.traceparent,
    [header.idempotencyKey]: invocationId,
  };
}
