/** Names of events (OpenWOP, core event types). Under some prefixes the list is closed: no host invents a name there. */

const CLOSED = /^(run|node|approval|clarification|cap|channel|replay)\./;

const canonical = new Set(
  `run.started run.completed run.failed run.cancelled run.paused run.resumed run.resuming run.restored-from-snapshot run.dead_lettered
  node.started node.completed node.failed node.suspended node.suspend-failed node.resumed node.retried node.skipped node.cancelled
  node.dispatched approval.requested approval.received approval.granted approval.rejected approval.overridden clarification.requested
  clarification.resolved cap.breached channel.written replay.diverged replay.divergedAtRefusal`.split(/\s+/),
);

const dotted = /^[a-z][a-zA-Z0-9_-]*(\.[a-zA-Z0-9_-]+)+$/;

/** Whether an event may have this name: one of the contract's, or of a family that is open to more. */
export function isEventType(name: string): boolean {
  return dotted.test(name) && (canonical.has(name) || !CLOSED.test(name));
}
