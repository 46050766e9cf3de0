/** Acknowledgements of assignments (BeamLine, ExecAssignmentAck): counted once each; when an assignment was accepted is remembered for its deadline. */
import type { MessageHandler } from "../../bus/consume.ts";
import { readAck } from "../../contracts/execution/ack.ts";
import { headerViolations } from "../../contracts/execution/reading.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import type { Measures } from "./measures.ts";
import type { Seen } from "./seen.redis.ts";
import type { CheckTenant } from "./tenants.ts";

export interface AckPorts {
  readonly seen: Seen;
  readonly checkTenant: CheckTenant;
  readonly measures: Measures;
}

export function ackHandler({ seen, checkTenant, measures }: AckPorts): MessageHandler {
  return async (payload, { headers, msgId, timestampMs }) => {
    for (const violation of headerViolations(headers, msgId)) {
      measures.router_nats_contract_violations_total.with({ subject: execSubject.ack, violation }).add();
    }
    const ack = readAck(payload, headers, timestampMs);
    checkTenant(ack.tenant_id);
    const { assignment_id, tenant_id, status } = ack;
    // The stream's own time: workers' clocks are theirs.
    if (status === "accepted" && !(await seen.markAccepted(tenant_id, assignment_id, timestampMs))) return;
    measures.router_acks_total.with({ status }).add();
  };
}
