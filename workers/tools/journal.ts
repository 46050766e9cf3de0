/** Reading logs of JetStream: the last word on a subject, everything from some point on. */
import type { Bus } from "../../bus/connect.ts";
import { apiCode, apiCodeOf, fromJetStream } from "../../bus/apierror.ts";
import { firstSince, readStream } from "../../bus/read.ts";

export interface Logged<T> {
  readonly subject: string;
  readonly seq: number;
  /** When the server stored it, epoch milliseconds. */
  readonly at: number;
  readonly value: T;
}

interface Raw {
  readonly subject: string;
  readonly seq: number;
  readonly timestamp: string;
  string(): string;
}

/**
 * The last message on a subject, wildcards allowed, as the stream's leader knows it; undefined when there is none. Throws `unavailable`.
 */
export async function lastOf<T>(bus: Bus, stream: string, subject: string): Promise<Logged<T> | undefined> {
  try {
    const found = await bus.jsm.streams.getMessage(stream, { last_by_subj: subject });
    return found === null ? undefined : logged<T>(found);
  } catch (thrown) {
    if (apiCodeOf(thrown) === apiCode.messageNotFound) return undefined;
    throw fromJetStream(thrown, `read the last message of ${subject}`);
  }
}

/** Every message on a subject from a stream sequence on, in order, up to the end as it is then. */
export async function* readFrom<T>(bus: Bus, stream: string, subject: string, from = 1): AsyncGenerator<Logged<T>> {
  for await (const message of readStream(bus, stream, { subject, from })) yield logged<T>(message);
}

/** Messages stored since a moment, in order. */
export async function* readSince<T>(bus: Bus, stream: string, since: Date): AsyncGenerator<Logged<T>> {
  const from = await firstSince(bus, stream, since);
  if (from !== undefined) yield* readFrom<T>(bus, stream, ">", from);
}

function logged<T>(message: Raw): Logged<T> {
  return {
    subject: message.subject,
    seq: message.seq,
    at: Date.parse(message.timestamp),
    value: (message.string() === "" ? undefined : JSON.parse(message.string())) as T,
  };
}
