/**
 * Where a reply may go. The server does not check reply subjects, and a worker may write logs and buckets: a caller that names one
 * of those as its reply address would have the worker write there for it.
 */

/** First tokens of the trees that are the system's own (nats.conf). */
const ours = /^(?:beamline|caf|aios|openwop|log|sched|retry|dlq|\$[^.]*)\./;

/** Whether a subject may be answered to; `fixed` are the reply subjects a contract names. */
export function isReplyAddress(subject: string, fixed: readonly string[] = []): boolean {
  return subject !== "" && (!ours.test(subject) || fixed.includes(subject));
}
