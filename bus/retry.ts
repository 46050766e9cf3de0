/**
 * Later tries of a message, parked in its own stream.
 *
 * A delayed NAK would keep the message in the consumer's window of unacknowledged messages for the whole delay, and a window full of
 * waiting messages stops everything behind them. So a failed message is copied to a schedule that the server delivers on time to a subject only
 * its consumer hears, and is then acknowledged.
 *
 * R1 The copy is stored before the original is acknowledged. A process killed between the two leaves both; the original comes again and is
 *    recognised as handed over, because the copy names the sequence it was made from.
 * R2 Parking the same delivery twice stores one copy: the message id is made of the consumer and that sequence.
 * R3 Every parking has a subject of its own. A schedule that fires takes its subject with it, a moment after its message is out: a next try
 *    parked under the same subject in that moment would be lost (seen on server 2.15).
 * R4 A copy carries the original's payload and headers, its subject, message id and sequence, when it was first seen, and how often it was tried.
 */
import { BeamlineError } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import type { StreamSpec } from "../contracts/streams.ts";
import { apiCode, apiCodeOf, fromJetStream } from "./apierror.ts";
import type { Bus } from "./connect.ts";
import type { Delivery } from "./delivery.ts";
import { findDuplicate } from "./publish.ts";
import { publishRetrying } from "./retrying.ts";

const mark = {
  subject: "Beamline-Retry-Subject",
  msgId: "Beamline-Retry-Msg-Id",
  sequence: "Beamline-Retry-Sequence",
  /** Sequence of the message this copy was made from. */
  from: "Beamline-Retry-From",
  attempt: "Beamline-Retry-Attempt",
  firstSeen: "Beamline-Retry-First-Seen",
} as const;

/** What a delivery is about, whether it is the original or a copy of it. */
export interface Origin {
  readonly subject: string;
  /** Headers as the publisher sent them. */
  readonly headers: Headers;
  /** `Nats-Msg-Id` of the original, undefined when it had none. */
  readonly msgId: string | undefined;
  /** Sequence of the original in the stream. */
  readonly sequence: number;
  /** Epoch milliseconds at which the stream stored the original. */
  readonly firstSeenMs: number;
  /** 1 for the first try. Counts failures and deliveries that nobody answered. */
  readonly attempt: number;
}

/** Prefix of the consumer-only subjects: `retry.<stream>.<durable>`. */
export function retryPrefix(stream: StreamSpec, durable: string): string {
  return `retry.${stream.name.toLowerCase()}.${durable}`;
}

/** R3. */
function parkSubject(stream: StreamSpec, durable: string, delivery: Delivery, origin: Origin): string {
  return `sched.${stream.name.toLowerCase()}.retry.${durable}.${origin.sequence}.${delivery.streamSequence}`;
}

/** Where a delivery comes from. */
export function originOf(delivery: Delivery): Origin {
  const { headers } = delivery;
  const redeliveries = delivery.deliveryCount - 1;
  const subject = headers[mark.subject];
  if (subject === undefined) {
    return {
      subject: delivery.subject,
      headers,
      msgId: headers[header.msgId],
      sequence: delivery.streamSequence,
      firstSeenMs: delivery.timestampMs,
      attempt: 1 + redeliveries,
    };
  }
  const original = withoutControl(headers);
  for (const name of Object.values(mark)) delete original[name];
  const msgId = headers[mark.msgId];
  if (msgId !== undefined) original[header.msgId] = msgId;
  return {
    subject,
    headers: original,
    msgId,
    sequence: Number(headers[mark.sequence]),
    firstSeenMs: Number(headers[mark.firstSeen]),
    attempt: Number(headers[mark.attempt]) + redeliveries,
  };
}

/** Headers without those that tell a server what to do: a copy must not repeat a batch, an expectation or a schedule. */
export function withoutControl(headers: Headers): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!name.toLowerCase().startsWith("nats-") && name !== "status") kept[name] = value;
  }
  return kept;
}

/**
 * Stores the copy for the next try, due in `delayMs` (the server's timer is good to about a quarter of a second). Throws as `publish`:
 * the delivery must then not be acknowledged.
 */
export async function park(
  bus: Bus,
  stream: StreamSpec,
  durable: string,
  delivery: Delivery,
  origin: Origin,
  delayMs: number,
): Promise<void> {
  const token = String(origin.sequence);
  const headers: Record<string, string> = {
    ...withoutControl(origin.headers),
    [mark.subject]: origin.subject,
    [mark.sequence]: token,
    [mark.from]: String(delivery.streamSequence),
    [mark.attempt]: String(origin.attempt + 1),
    [mark.firstSeen]: String(origin.firstSeenMs),
    "Nats-Schedule": `@at ${new Date(Date.now() + delayMs).toISOString()}`,
    "Nats-Schedule-Target": `${retryPrefix(stream, durable)}.${token}`,
    // The stream's own age limit must not take what is still to come.
    "Nats-TTL": "never",
  };
  if (origin.msgId !== undefined) headers[mark.msgId] = origin.msgId;
  await publishRetrying(bus, parkSubject(stream, durable, delivery, origin), delivery.payload, {
    headers,
    msgId: parkId(durable, delivery),
    timeoutMs: 10_000,
  });
}

/** R1: whether an earlier delivery of this message parked a copy. Worth asking only of redeliveries. */
export async function handedOver(
  bus: Bus,
  stream: StreamSpec,
  durable: string,
  delivery: Delivery,
  origin: Origin,
): Promise<boolean> {
  const parked = parkSubject(stream, durable, delivery, origin);
  // In this order: when the copy comes due in between, the server stores it under its new subject before it leaves the old one.
  for (const subject of [parked, `${retryPrefix(stream, durable)}.${origin.sequence}`]) {
    if ((await lastFrom(bus, stream.name, subject)) >= delivery.streamSequence) return true;
  }
  if (stream.retention !== "workqueue") return false;
  // There a copy that was handled is gone; the stream still remembers its id.
  return (await findDuplicate(bus, parked, parkId(durable, delivery))) !== undefined;
}

function parkId(durable: string, delivery: Delivery): string {
  return `retry:${durable}:${delivery.streamSequence}`;
}

/** The sequence the last copy on a subject was made from, 0 when there is none. */
async function lastFrom(bus: Bus, stream: string, subject: string): Promise<number> {
  try {
    const message = await bus.jsm.streams.getMessage(stream, { last_by_subj: subject });
    return Number(message?.header.get(mark.from) ?? 0);
  } catch (thrown) {
    if (apiCodeOf(thrown) === apiCode.messageNotFound) return 0;
    throw fromJetStream(thrown, `look for a parked copy in ${stream}`);
  }
}

/** Whether a stream can park at all: it has schedules, and takes the subjects they need. */
export function canPark(stream: StreamSpec): boolean {
  const name = stream.name.toLowerCase();
  return stream.schedules && stream.subjects.includes(`sched.${name}.>`) && stream.subjects.includes(`retry.${name}.>`);
}

/** Whether waiting in the stream is out of the question for this message: the copy's own headers do not fit any more. */
export function cannotPark(thrown: unknown): boolean {
  return (
    thrown instanceof BeamlineError && (thrown.code === "message_too_large" || thrown.code === "failed_precondition")
  );
}
