/** What a worker says about an assignment: acknowledgements, results, dead letters, each stored durably under an id of its own (BeamLine, execution contract). */
import { hash, randomUUID } from "node:crypto";
import { checkIn } from "../../bus/claims.ts";
import type { Bus } from "../../bus/connect.ts";
import { findDuplicate } from "../../bus/publish.ts";
import { publishRetrying, retrying } from "../../bus/retrying.ts";
import { ackJson, type AckStatus } from "../../contracts/execution/ack.ts";
import type { Assignment } from "../../contracts/execution/assignment.ts";
import { resultHeaders, resultJson, type Result } from "../../contracts/execution/result.ts";
import { execSubject, probeSubject, resultMsgId } from "../../contracts/execution/subjects.ts";
import { header, type Headers } from "../../contracts/headers.ts";

type Ids = Pick<Assignment, "assignment_id" | "request_id" | "tenant_id">;

/** An assignment as far as an acknowledgement tells of it. */
export interface AckIds extends Ids {
  readonly trace_id: string;
  readonly publication: number;
}

export interface Reports {
  /** Throws as `publishRetrying`. */
  ack(ids: AckIds, status: AckStatus, message?: string): Promise<void>;
  /** One result per assignment: later ones are dropped by the stream. An output too large for a message goes to the object store. */
  result(result: Result, traceparent: string): Promise<void>;
  /** `accepted` and the result in one go, in this order, for jobs that were done before anyone had to know that they were taken. */
  acceptedWithResult(ids: AckIds, result: Result, traceparent: string): Promise<void>;
  /** Whether a result of the assignment is stored already (inside the stream's duplicate window). */
  hasResult(ids: Ids): Promise<boolean>;
  /** What could not be taken or whose outcome nobody knows, for people. */
  deadLetter(
    result: Result,
    original: { readonly payload: Uint8Array; readonly reason: string; readonly msgId: string },
  ): Promise<void>;
}

interface Outgoing {
  readonly subject: string;
  readonly payload: string;
  readonly headers: Headers;
  readonly msgId: string;
}

/** How long the bus may be away when a job has ended: what it came to must not be forgotten. Milliseconds. */
const REPORT_MS = 60_000;

/** Room for a result's other fields, bytes. */
const ENVELOPE_BYTES = 128 * 1024;

export function busReports(bus: Bus, now: () => number): Reports {
  const ackOf = (ids: AckIds, status: AckStatus, message: string): Outgoing => {
    const { assignment_id, request_id, tenant_id, trace_id, publication } = ids;
    const body = ackJson({ assignment_id, status, message, request_id, trace_id, tenant_id, acknowledged_at: now() });
    return {
      subject: execSubject.ack,
      payload: JSON.stringify(body),
      headers: resultHeaders({ trace_id, tenant_id }),
      msgId: `ack-${assignment_id}:${publication}:${status}`,
    };
  };
  const resultMessage = async (result: Result, traceparent: string): Promise<Outgoing> => ({
    subject: execSubject.result,
    payload: JSON.stringify(resultJson(await fitting(bus, result))),
    headers: resultHeaders(result, traceparent),
    msgId: resultMsgId(result),
  });
  const send = async ({ subject, payload, headers, msgId }: Outgoing): Promise<void> => {
    await publishRetrying(bus, subject, payload, { headers, msgId, timeoutMs: REPORT_MS });
  };
  return {
    ack: (ids, status, message = "") => send(ackOf(ids, status, message)),

    result: async (result, traceparent) => send(await resultMessage(result, traceparent)),

    async acceptedWithResult(ids, result, traceparent) {
      // One after the other on one connection: the stream keeps the order, and nobody waits for the first.
      await Promise.all([send(ackOf(ids, "accepted", "")), resultMessage(result, traceparent).then(send)]);
    },

    async hasResult(ids) {
      return (await findDuplicate(bus, probeSubject.exec, resultMsgId(ids))) !== undefined;
    },

    async deadLetter(result, { payload, reason, msgId }) {
      const digest = hash("sha256", payload, "hex");
      const body = resultJson({
        ...result,
        payload: undefined,
        metadata: { ...result.metadata, original_payload_hash: digest },
      });
      await publishRetrying(bus, execSubject.dlq, JSON.stringify(body), {
        headers: { ...resultHeaders(result), [header.dlqReason]: reason, [header.originalMsgId]: msgId },
        msgId: `dlq-${result.tenant_id}:${result.assignment_id || result.request_id || digest}`,
        timeoutMs: REPORT_MS,
      });
    },
  };
}

/** Claim check: `metadata.payload_ref` says where an output is that does not fit. */
async function fitting(bus: Bus, result: Result): Promise<Result> {
  if (result.payload === undefined) return result;
  const bytes = Buffer.from(JSON.stringify(result.payload), "utf8");
  const name = randomUUID();
  const limitBytes = bus.maxPayload - ENVELOPE_BYTES;
  const claim = await retrying(bus, { timeoutMs: REPORT_MS }, () => checkIn(bus, bytes, { limitBytes, name }));
  if (claim === undefined) return result;
  return {
    ...result,
    payload: undefined,
    metadata: {
      ...result.metadata,
      payload_ref: `object://${claim.bucket}/${claim.name}`,
      payload_digest: claim.digest,
    },
  };
}
