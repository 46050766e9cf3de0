/**
 * Several messages into one stream, all of them or none (atomic batches, server 2.12 and later).
 *
 * A1 The messages are stored next to one another, in order: the first has sequence `seq - count + 1`.
 * A2 Every expectation is checked before anything is stored. One that speaks of the whole stream may only stand on the first message; one about
 *    a subject must come before any message of the batch to that subject.
 * A3 All messages leave in one go and only the last is acknowledged: a batch costs one round trip and one write to the disk.
 */
import { nuid } from "@nats-io/transport-node";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import { acknowledged, type Ack } from "./acks.ts";
import { apiCode } from "./apierror.ts";
import type { Bus } from "./connect.ts";
import {
  expectationHeaders,
  findDuplicate,
  publish,
  storedOf,
  type Expectation,
  type PublishOptions,
  type Stored,
} from "./publish.ts";

/** Most messages the server takes in one batch. */
export const MAX_BATCH = 1_000;

export interface BatchMessage extends Expectation {
  readonly subject: string;
  readonly payload: string | Uint8Array;
  readonly headers?: Headers;
  /** First message only: the last sequence of the whole stream must be this one. */
  readonly expectLastSequence?: number;
}

export interface BatchOptions {
  /** Makes the whole batch idempotent inside the stream's duplicate window. */
  readonly msgId?: string;
  /** How long to wait for the acknowledgement, milliseconds. Default 5000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface StoredBatch extends Stored {
  readonly count: number;
}

/**
 * Stores all messages or none. `seq` is that of the last one. Throws as `publish`; `aborted` when an expectation does not hold (with
 * `details.actual` where the server tells it), `invalid_argument` for an empty batch or more than 1000 messages, `unavailable` also when
 * the subjects do not all belong to one stream.
 */
export async function publishBatch(
  bus: Bus,
  messages: readonly BatchMessage[],
  options: BatchOptions = {},
): Promise<StoredBatch> {
  const [first] = messages;
  const count = messages.length;
  if (first === undefined) throw invalidArgument("messages", "must not be empty");
  if (count > MAX_BATCH) throw invalidArgument("messages", `has ${count} entries, at most ${MAX_BATCH} fit one batch`);
  if (count === 1) return { ...(await publish(bus, first.subject, first.payload, { ...first, ...options })), count };
  const expected =
    messages.find((message) => message.expectLastSubjectSequence !== undefined)?.expectLastSubjectSequence ??
    first.expectLastSequence;
  const about: PublishOptions = expected === undefined ? {} : { expectLastSequence: expected };
  const read = (ack: Ack, subject: string): Stored => storedOf(ack, subject, about);
  try {
    const stored = await acknowledged(bus, first.subject, options, read, (reply) =>
      sendBatch(bus, messages, options.msgId, reply),
    );
    return { ...stored, count };
  } catch (thrown) {
    if (options.msgId === undefined || !(thrown instanceof BeamlineError)) throw thrown;
    const mayBeOwn = thrown.details["jetstream_code"] === apiCode.batchHasDuplicate || thrown.code === "aborted";
    const earlier = mayBeOwn ? await findDuplicate(bus, first.subject, options.msgId, options) : undefined;
    if (earlier === undefined) throw thrown;
    return { ...earlier, seq: earlier.seq + count - 1, count };
  }
}

function sendBatch(bus: Bus, messages: readonly BatchMessage[], msgId: string | undefined, reply: string): void {
  const id = nuid.next();
  for (const { payload } of messages) {
    // Checked before the first one leaves: a batch cut short would wait at the server until it gives it up.
    if (payload.length * 3 > bus.maxPayload - 4096 && Buffer.byteLength(payload) > bus.maxPayload - 4096) {
      throw new BeamlineError(
        "message_too_large",
        `a message of the batch is beyond the bus limit of ${bus.maxPayload} bytes`,
      );
    }
  }
  messages.forEach((message, index) => {
    const last = index === messages.length - 1;
    bus.send(message.subject, message.payload, batchHeaders(message, id, index, last, msgId), last ? reply : undefined);
  });
}

function batchHeaders(
  message: BatchMessage,
  id: string,
  index: number,
  last: boolean,
  msgId: string | undefined,
): Headers {
  const headers: Record<string, string> = { ...message.headers, ...expectationHeaders(message), "Nats-Batch-Id": id };
  headers["Nats-Batch-Sequence"] = String(index + 1);
  if (message.expectLastSequence !== undefined)
    headers["Nats-Expected-Last-Sequence"] = String(message.expectLastSequence);
  if (index === 0 && msgId !== undefined) headers[header.msgId] = msgId;
  if (last) headers["Nats-Batch-Commit"] = "1";
  return headers;
}
