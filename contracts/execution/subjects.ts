/** Subjects of the execution contract (BeamLine, NATS subjects), beside the ones a method's route gives. */
export const execSubject = {
  /** Router to worker; a request may name another one. */
  assign: "caf.exec.assign.v1",
  ack: "caf.exec.assign.v1.ack",
  result: "caf.exec.result.v1",
  heartbeat: "caf.worker.heartbeat.v1",
  /** Where BeamLine's Rust worker sends its heartbeats. */
  rustHeartbeat: "caf.status.heartbeat.v1",
  /** Jobs a worker could not take; carries an `ExecResult` with status `error`. */
  dlq: "caf.exec.dlq.v1",
  /** The same of BeamLine's Rust worker, in a form of its own. */
  rustDlq: "caf.deadletter.v1",
  usage: "beamline.usage.v1.metered",
  /** Request/reply: stops an assignment. A named constant of BeamLine's gateways whose payload the contract leaves open. */
  cancel: "beamline.router.v1.cancel",
  /** Request/reply: totals per tenant, provider and day. */
  usageTotals: "beamline.router.v1.usage",
  /** Request/reply: what is known of one assignment. */
  status: "beamline.router.v1.assignment",
} as const;

/** Headers of ours on assignments; the contract's are in contracts/headers. */
export const execHeader = {
  /** 1 for the first publication, counted up when the assignment is published again because no result came. */
  publication: "Beamline-Publication",
  /** On results and usage: `cp1`, the contract phase (BeamLine, headers). */
  phase: "cp_phase",
} as const;

/** Message id of a result: the stream keeps one per assignment inside its duplicate window. */
export function resultMsgId(ids: {
  readonly assignment_id: string;
  readonly request_id: string;
  readonly tenant_id: string;
}): string {
  return ids.assignment_id === "" ? `result-${ids.tenant_id}:${ids.request_id}` : `result-${ids.assignment_id}`;
}

/** Message id of a usage event (BeamLine, usage event). Request ids are the callers' own, so they are told apart by tenant. */
export function usageMsgId(ids: {
  readonly assignment_id: string;
  readonly request_id: string;
  readonly tenant_id: string;
}): string {
  return ids.assignment_id === "" ? `usage-${ids.tenant_id}:${ids.request_id}` : `usage-${ids.assignment_id}`;
}
