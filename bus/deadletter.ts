/**
 * The end of a message that cannot be handled: it is kept, with the reason and everything known about it, until someone redrives it.
 *
 * D3 A message is acknowledged only after its dead letter is stored.
 * D4 Giving up the same message twice stores one dead letter (inside the duplicate window of the dead-letter stream).
 */
import { meaning, type BeamlineError } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import { grpcStatus } from "../contracts/errors.ts";
import { streams, type StreamSpec } from "../contracts/streams.ts";
import { checkIn } from "./claims.ts";
import type { Bus } from "./connect.ts";
import { encodeHeaders } from "./headers.ts";
import { messageId, writeLetter, type DeadLetterReason, type LastRites } from "./letter.ts";
import type { Stored } from "./publish.ts";
import { withoutControl } from "./retry.ts";
import { publishRetrying } from "./retrying.ts";

/** Where a message's dead letter goes: `<subject>.dlq` where the dead-letter stream takes that, else `dlq.<stream>.<durable>`. */
export function deadLetterSubject(
  original: string,
  stream: string,
  durable: string,
  letters: StreamSpec = streams.deadLetters,
): string {
  const named = `${original}.dlq`;
  return letters.subjects.includes(named) ? named : `dlq.${stream}.${durable}`;
}

/** Why a failure that no try can mend ends a message. */
export function reasonOf(error: BeamlineError): DeadLetterReason {
  return meaning(error.code).grpc === grpcStatus.INVALID_ARGUMENT ? "validation_failed" : "processing_error";
}

export interface DeadLetterOptions {
  /** The stream that keeps dead letters. Default the one of the contracts. */
  readonly letters?: StreamSpec;
  /** For all attempts to store it, milliseconds. Default 10 000. */
  readonly timeoutMs?: number;
}

/** Stores the dead letter. Throws as `publish`: the message must then not be acknowledged (D3). */
export async function deadLetter(
  bus: Bus,
  rites: LastRites,
  payload: Uint8Array,
  options: DeadLetterOptions = {},
): Promise<Stored> {
  const { origin, stream, durable } = rites;
  const headers = letterHeaders(rites);
  const room = bus.maxPayload - encodeHeaders(headers).length - 1024;
  let body = writeLetter(rites, payload);
  if (Buffer.byteLength(body) > room) {
    const name = `dlq-${stream}-${durable}-${origin.sequence}`;
    body = writeLetter(rites, payload, await checkIn(bus, payload, { limitBytes: -1, name }));
  }
  return publishRetrying(bus, deadLetterSubject(origin.subject, stream, durable, options.letters), body, {
    headers,
    msgId: `dlq:${stream}:${durable}:${origin.sequence}`,
    timeoutMs: options.timeoutMs ?? 10_000,
  });
}

/** D2, and the contract's two headers. The deadline of the original has nothing to say any more. */
function letterHeaders(rites: LastRites): Headers {
  const { [header.deadline]: _deadline, ...originals } = withoutControl(rites.origin.headers);
  return { [header.dlqReason]: rites.reason, [header.originalMsgId]: messageId(rites), ...originals };
}
