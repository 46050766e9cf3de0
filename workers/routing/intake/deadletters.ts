/** Messages that intake refused, on the dead-letter subject: a digest in place of the payload, and why (BeamLine, DLQ, intake-validation form). */
import { hash } from "node:crypto";
import type { Bus } from "../../../bus/connect.ts";
import { header } from "../../../contracts/headers.ts";
import type { DeadLetters, RefusedMessage } from "../ports.ts";

/** Where what `beamline.router.v1.decide` refused goes; the stream DLQ keeps it. */
export const DEAD_LETTER_SUBJECT = "beamline.router.v1.decide.dlq";

export interface DeadLetterOptions {
  /** Name of this process, `router_node_id`. */
  readonly node: string;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly onSent?: (code: string) => void;
  readonly onFailed?: (code: string, error: unknown) => void;
}

/** The dead letter of a refused message. */
export function deadLetter(
  { subject, text, code, message, stage, ...ids }: RefusedMessage,
  node: string,
  now: number,
): object {
  return {
    original_subject: subject,
    original_payload_hash: hash("sha256", text, "hex"),
    validation_error: { code, message, severity: "error" },
    context: {
      tenant_id: ids.tenant || undefined,
      run_id: ids.runId || undefined,
      trace_id: ids.traceId || undefined,
      msg_id: ids.messageId || undefined,
      validation_stage: stage,
    },
    received_at: now,
    router_node_id: node,
  };
}

/** Sends dead letters without waiting: best effort, as the contract says; a failure is told and blocks nobody. */
export function busDeadLetters(bus: Bus, { node, now, onSent, onFailed }: DeadLetterOptions): DeadLetters {
  return {
    refused(message) {
      try {
        const headers = { [header.dlqReason]: "validation_failed", [header.originalMsgId]: message.messageId };
        bus.send(DEAD_LETTER_SUBJECT, JSON.stringify(deadLetter(message, node, now())), headers);
        onSent?.(message.code);
      } catch (thrown) {
        onFailed?.(message.code, thrown);
      }
    },
  };
}
