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

/**
 * Where a stream is asked whether it holds a message id: asking is a publish that it drops, and on the contract's own subjects everybody who
 * listens would hear an empty message.
 */
export const probeSubject = { exec: "retry.exec.probe", usage: "retry.usage.probe" } as const;

const plainSubject = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/;
/** Trees whose messages mean something else: an assignment there would be taken for a result, a bill, a request or a timer. */
const trees = new Set(["beamline", "aios", "openwop", "log", "sched", "retry", "dlq", "_INBOX"]);
const taken: ReadonlySet<string> = new Set([
  execSubject.result,
  execSubject.heartbeat,
  execSubject.rustHeartbeat,
  execSubject.dlq,
  execSubject.rustDlq,
]);

/** Why assignments may not go to a subject, as the end of a sentence; undefined when they may. */
export function assignSubjectFault(subject: string): string | undefined {
  if (subject.length > 255) return "must have at most 255 characters";
  if (!plainSubject.test(subject)) return "must be a subject of letters, digits, dashes and underscores between dots";
  const [tree = ""] = subject.split(".", 1);
  const reserved = trees.has(tree) || tree.startsWith("_INBOX") || taken.has(subject) || /\.(ack|dlq)$/.test(subject);
  return reserved ? "is a subject where other messages go" : undefined;
}

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

/** Whether a message id is that of a usage event of ours. */
export function isMetered(msgId: string): boolean {
  return msgId.startsWith("usage-");
}
