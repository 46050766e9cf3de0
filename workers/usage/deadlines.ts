/**
 * Lost workers are noticed by deadline: a durable timer per assignment, set when it is published (BeamLine, retry and deadline).
 *
 * W1 When the timer fires and there is a result, nothing happens. An assignment that was accepted late gets its whole deadline from then.
 * W2 Without a result it is published again under the same assignment id, until its attempts are used up; then it ends as `timeout`, or as
 *    `cancelled` when that was asked for. Never forgotten, never two results: the stream keeps one message per result id.
 * W3 Every step may be repeated after a crash: timers and messages carry ids made of the assignment and the publication.
 * W4 Most assignments are done at once: the message itself stands guard for a moment, unacknowledged, and only then is a timer worth a write.
 */
import { apiCode, apiCodeOf, asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import type { MessageContext, MessageHandler } from "../../bus/consume.ts";
import { tokenOf } from "../../bus/keys.ts";
import { publishRetrying } from "../../bus/retrying.ts";
import { withoutControl } from "../../bus/retry.ts";
import { schedule } from "../../bus/schedule.ts";
import { readAssignment, type Assignment } from "../../contracts/execution/assignment.ts";
import { resultHeaders, resultJson, type Result } from "../../contracts/execution/result.ts";
import { execHeader, execSubject, resultMsgId, usageMsgId } from "../../contracts/execution/subjects.ts";
import { streams } from "../../contracts/streams.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Alerts } from "./alerts.ts";
import type { Cancels } from "./cancels.ts";
import type { Measures } from "./measures.ts";
import type { Metering } from "./metering.ts";
import { REPORTED_BY } from "./results.ts";
import type { Seen } from "./seen.redis.ts";

/** Prefix of the subjects timers fire on. */
const DUE = "retry.exec.deadline";
export const TIMER_SUBJECTS = `${DUE}.*`;

/** How long W4's moment is, milliseconds. */
const LINGER_MS = 300;

/** What a timer carries: enough to find the assignment, and to report its end without it. */
interface Watch {
  readonly assignment_id: string;
  readonly request_id: string;
  readonly tenant_id: string;
  readonly provider_id: string;
  readonly job_type: string;
  readonly trace_id: string;
  readonly run_id: string;
  readonly subject: string;
  /** Sequence of the first publication in the stream EXEC. */
  readonly sequence: number;
  readonly publication: number;
  readonly attempts: number;
  readonly deadline_ms: number;
  /** Epoch milliseconds of the first publication. */
  readonly published_at: number;
}

export interface DeadlinePorts {
  readonly bus: Bus;
  readonly metering: Metering;
  readonly seen: Seen;
  readonly cancels: Cancels;
  readonly alerts: Alerts;
  readonly measures: Measures;
  readonly log: Logger;
  /** Added to a deadline before its assignment counts as lost, milliseconds. */
  readonly graceMs: number;
  readonly now: () => number;
  /** Rejects when the signal aborts first. */
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** Handles assignments as they are published, and timers as they fire. */
export function deadlineHandler(ports: DeadlinePorts): MessageHandler {
  return async (payload, context) => {
    if (context.subject.startsWith(`${DUE}.`))
      return due(ports, JSON.parse(Buffer.from(payload).toString("utf8")) as Watch);
    const watch = watchOf(payload, context);
    if (watch === undefined) return;
    await ports.pause(Math.min(LINGER_MS, watch.deadline_ms / 2), context.signal);
    if (await ports.seen.wasMetered(watch.tenant_id, usageMsgId(watch))) return; // W4
    await setTimer(ports, watch, watch.published_at + watch.deadline_ms + ports.graceMs, "");
  };
}

/** Undefined for what no worker can take either, and for later publications: who published those set their timer. */
function watchOf(payload: Uint8Array, context: MessageContext): Watch | undefined {
  let assignment: Assignment;
  try {
    assignment = readAssignment(payload, context.headers);
  } catch {
    return undefined;
  }
  if (assignment.publication > 1) return undefined;
  const { assignment_id, request_id, tenant_id, executor, job, correlation, options } = assignment;
  return {
    assignment_id,
    request_id,
    tenant_id,
    provider_id: executor.provider_id,
    job_type: job.type,
    trace_id: correlation.trace_id,
    run_id: correlation.run_id,
    subject: context.subject,
    sequence: context.streamSequence,
    publication: 1,
    attempts: options.retry.max_attempts,
    deadline_ms: options.deadline_ms,
    published_at: context.timestampMs,
  };
}

async function setTimer({ bus }: DeadlinePorts, watch: Watch, at: number, why: string): Promise<void> {
  await schedule(bus, streams.exec, {
    key: ["deadline", watch.assignment_id],
    when: { at },
    target: `${DUE}.${tokenOf(watch.assignment_id)}`,
    payload: JSON.stringify(watch),
    msgId: `deadline-${watch.assignment_id}:${watch.publication}${why}`,
  });
}

async function due(ports: DeadlinePorts, watch: Watch): Promise<void> {
  const { metering, seen, cancels, graceMs, now } = ports;
  if (await metering.isSettled(watch, resultMsgId(watch))) return; // W1
  const accepted = await seen.acceptedAt(watch.tenant_id, watch.assignment_id);
  const until = (accepted ?? 0) + watch.deadline_ms + graceMs;
  if (until > now() + 50) return setTimer(ports, watch, until, ":accepted");
  const reason = await cancels.reasonFor(watch.tenant_id, watch.assignment_id);
  if (reason !== undefined)
    return end(
      ports,
      watch,
      "cancelled",
      `cancelled on request${reason === "" ? "" : `: ${reason}`}; no worker answered`,
    );
  if (watch.publication < watch.attempts && (await publishAgain(ports, watch))) return;
  await end(
    ports,
    watch,
    "timeout",
    `no worker reported a result within ${watch.deadline_ms} ms, in ${watch.publication} attempts`,
  );
}

/** False when the assignment itself is gone from the stream. */
async function publishAgain(ports: DeadlinePorts, watch: Watch): Promise<boolean> {
  const { bus, measures, log, now, graceMs } = ports;
  const original = await asking("read an assignment", async () => {
    try {
      return await bus.jsm.streams.getMessage(streams.exec.name, { seq: watch.sequence });
    } catch (thrown) {
      if (apiCodeOf(thrown) === apiCode.messageNotFound) return null;
      throw thrown;
    }
  });
  if (original === null) return false;
  const next = { ...watch, publication: watch.publication + 1 };
  await setTimer(ports, next, now() + watch.deadline_ms + graceMs, "");
  const headers: Record<string, string> = {};
  for (const name of original.header.keys()) headers[name] = original.header.get(name);
  const { duplicate } = await publishRetrying(bus, watch.subject, original.data, {
    headers: { ...withoutControl(headers), [execHeader.publication]: String(next.publication) },
    msgId: `${watch.assignment_id}:${next.publication}`,
    timeoutMs: 10_000,
  });
  if (duplicate) return true;
  measures.router_assignment_retry_total.with({ subject: watch.subject }).add();
  log.warn("an assignment without a result is published again", {
    assignment_id: watch.assignment_id,
    attempt: next.publication,
    tenant_id: watch.tenant_id,
    trace_id: watch.trace_id,
  });
  return true;
}

async function end(
  { bus, alerts, now }: DeadlinePorts,
  watch: Watch,
  status: "timeout" | "cancelled",
  text: string,
): Promise<void> {
  const { assignment_id, request_id, tenant_id, provider_id, job_type, trace_id, run_id, published_at } = watch;
  const result: Result = {
    assignment_id,
    request_id,
    tenant_id,
    provider_id,
    trace_id,
    run_id,
    status,
    job: { type: job_type, metadata: {} },
    latency_ms: Math.max(0, now() - published_at),
    cost: 0,
    timestamp: now(),
    error_code: status === "timeout" ? "CANCELLED_BY_TIMEOUT" : "CANCELLED_BY_USER",
    error_message: text,
    payload: undefined,
    metadata: { [REPORTED_BY]: "router", publications: String(watch.publication) },
  };
  await publishRetrying(bus, execSubject.result, JSON.stringify(resultJson(result)), {
    headers: resultHeaders(result),
    msgId: resultMsgId(result),
    timeoutMs: 10_000,
  });
  if (status === "timeout")
    alerts.raise(
      {
        severity: "warning",
        component: "usage",
        message: `an assignment was lost: ${text}`,
        metadata: { assignment_id, tenant_id, provider_id, job_type },
      },
      `lost-${assignment_id}`,
    );
}
