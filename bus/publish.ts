/**
 * Durable publish: the message is on the disk of its stream when the promise resolves.
 *
 * P1 All acknowledgements of a process arrive on one inbox; publishing costs a place in it, not a request of the client library.
 * P2 A lost connection fails what is in flight with `unavailable` at once. Its outcome is unknown: publish again with the same message id,
 *    and the stream keeps one (inside its duplicate window).
 * P3 The same message id with the same expectation is a duplicate, not a conflict, although the server looks at the expectation first.
 */
import { nuid } from "@nats-io/transport-node";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import { apiCode, refusal } from "./apierror.ts";
import { exchange, type Ack } from "./acks.ts";
import type { Bus } from "./connect.ts";

export interface Expectation {
  /** The message is stored only when the last sequence on its subject (or on `expectLastSubject`) is this one; 0 means none yet. */
  readonly expectLastSubjectSequence?: number;
  /** Subject, wildcards allowed, whose last sequence is meant above. Default the message's own. */
  readonly expectLastSubject?: string;
}

export interface PublishOptions extends Expectation {
  /** Makes the publish idempotent inside the stream's duplicate window. */
  readonly msgId?: string;
  readonly headers?: Headers;
  /** The message is stored only when the last sequence of the whole stream is this one. */
  readonly expectLastSequence?: number;
  /** The message is stored only by the stream of this name. */
  readonly expectStream?: string;
  /** The message is removed after this time, milliseconds; at least one second. Default: when the stream lets go of it. */
  readonly ttlMs?: number;
  /** How long to wait for the acknowledgement, milliseconds. Default 5000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Stored {
  readonly stream: string;
  /** Sequence in the stream; of the first publish when this one was a duplicate. */
  readonly seq: number;
  /** True when the stream already had a message of this id, and kept that one. */
  readonly duplicate: boolean;
}

/**
 * Stores one message. Throws `unavailable` when nobody stores the subject or the connection is lost, `deadline_exceeded` without an answer
 * in time, `aborted` with `details.expected` and `details.actual` when an expectation does not hold, `message_too_large`,
 * `resource_exhausted` when the stream is full, `cancelled`, `invalid_argument` for a TTL below a second.
 */
export function publish(
  bus: Bus,
  subject: string,
  payload: string | Uint8Array,
  options: PublishOptions = {},
): Promise<Stored> {
  const expects = options.expectLastSubjectSequence !== undefined || options.expectLastSequence !== undefined;
  let headers: Headers | undefined;
  try {
    headers = publishHeaders(options);
  } catch (thrown) {
    return Promise.reject(BeamlineError.from(thrown));
  }
  const sent = exchange(
    bus,
    subject,
    payload,
    headers,
    options,
    expects ? (ack) => storedOf(ack, subject, options) : storedOf,
  );
  return options.msgId !== undefined && expects
    ? sent.catch((thrown: unknown) => forgiveOwn(bus, subject, options, thrown))
    : sent;
}

/** P3: a conflict with one's own earlier publish is a duplicate. */
async function forgiveOwn(bus: Bus, subject: string, options: PublishOptions, thrown: unknown): Promise<Stored> {
  if (thrown instanceof BeamlineError && thrown.code === "aborted" && options.msgId !== undefined) {
    const earlier = await findDuplicate(bus, subject, options.msgId, options);
    if (earlier !== undefined) return earlier;
  }
  throw thrown;
}

/**
 * Where the message of this id was stored, undefined when the stream does not remember it (its duplicate window has passed). Stores
 * nothing: the probe expects a last message id that no stream has, which the server looks at only after the duplicates.
 */
export async function findDuplicate(
  bus: Bus,
  subject: string,
  msgId: string,
  options: Pick<PublishOptions, "timeoutMs" | "signal"> = {},
): Promise<Stored | undefined> {
  const probe = { [header.msgId]: msgId, "Nats-Expected-Last-Msg-Id": `none-${nuid.next()}` };
  return exchange(bus, subject, "", probe, options, (ack) =>
    ack.error?.err_code === apiCode.wrongLastMsgId ? undefined : storedOf(ack, subject),
  );
}

/** Headers of a publish; undefined when there are none. */
function publishHeaders(options: PublishOptions): Headers | undefined {
  const { msgId, headers, expectLastSequence, expectLastSubjectSequence, expectStream, ttlMs } = options;
  const plain =
    expectLastSequence === undefined &&
    expectLastSubjectSequence === undefined &&
    expectStream === undefined &&
    ttlMs === undefined;
  if (plain) return msgId === undefined ? headers : { ...headers, [header.msgId]: msgId };
  const own: Record<string, string> = { ...headers, ...expectationHeaders(options) };
  if (msgId !== undefined) own[header.msgId] = msgId;
  if (expectLastSequence !== undefined) own["Nats-Expected-Last-Sequence"] = String(expectLastSequence);
  if (expectStream !== undefined) own["Nats-Expected-Stream"] = expectStream;
  if (ttlMs !== undefined) own["Nats-TTL"] = ttlHeader(ttlMs);
  return own;
}

function ttlHeader(ttlMs: number): string {
  if (!(ttlMs >= 1_000)) throw invalidArgument("ttlMs", "must be at least 1000");
  return `${Math.ceil(ttlMs)}ms`;
}

export function expectationHeaders({ expectLastSubjectSequence, expectLastSubject }: Expectation): Headers {
  if (expectLastSubjectSequence === undefined) return {};
  return {
    "Nats-Expected-Last-Subject-Sequence": String(expectLastSubjectSequence),
    ...(expectLastSubject !== undefined && { "Nats-Expected-Last-Subject-Sequence-Subject": expectLastSubject }),
  };
}

/** What an acknowledgement says. Throws what it refuses. */
export function storedOf(ack: Ack, subject: string, options?: PublishOptions): Stored {
  const { stream, seq, error, duplicate } = ack;
  if (error !== undefined) throw refused(error, subject, options);
  if (stream === undefined || seq === undefined) {
    throw new BeamlineError("internal", `something that is not a stream answered the publish to ${subject}`);
  }
  return { stream, seq, duplicate: duplicate === true };
}

function refused(
  { err_code, code, description }: NonNullable<Ack["error"]>,
  subject: string,
  options?: PublishOptions,
): BeamlineError {
  const expected = options?.expectLastSubjectSequence ?? options?.expectLastSequence;
  const actual = /: (\d+)$/.exec(description)?.[1];
  return refusal(`publish to ${subject}`, err_code, code, description, {
    ...(expected !== undefined && { details: { expected, ...(actual !== undefined && { actual: Number(actual) }) } }),
  });
}
