/** Reading logs of JetStream: the last word on a subject, everything from some point on. */
import type { Bus } from "../../bus/connect.ts";
import { apiCode, apiCodeOf, fromJetStream } from "../../bus/apierror.ts";

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

/** Messages asked for at once. */
const BATCH = 500;

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
export async function* readFrom<T>(bus: Bus, stream: string, filter: string, seq = 1): AsyncGenerator<Logged<T>> {
  for (let next = seq; ;) {
    const batch: Logged<T>[] = [];
    try {
      for await (const message of await bus.jsm.direct.getBatch(stream, {
        seq: next,
        batch: BATCH,
        next_by_subj: filter,
      })) {
        batch.push(logged<T>(message));
      }
    } catch (thrown) {
      if (isEmpty(thrown)) return;
      throw fromJetStream(thrown, `read ${filter}`);
    }
    yield* batch;
    const last = batch.at(-1);
    if (last === undefined || batch.length < BATCH) return;
    next = last.seq + 1;
  }
}

/** Messages stored since a moment, in order. */
export async function* readSince<T>(bus: Bus, stream: string, since: Date): AsyncGenerator<Logged<T>> {
  const batch: Logged<T>[] = [];
  try {
    for await (const message of await bus.jsm.direct.getBatch(stream, { start_time: since, batch: BATCH }))
      batch.push(logged<T>(message));
  } catch (thrown) {
    if (isEmpty(thrown)) return;
    throw fromJetStream(thrown, `read ${stream}`);
  }
  yield* batch;
  const last = batch.at(-1);
  if (last !== undefined && batch.length === BATCH) yield* readFrom<T>(bus, stream, ">", last.seq + 1);
}

function isEmpty(thrown: unknown): boolean {
  return (
    apiCodeOf(thrown) === apiCode.messageNotFound ||
    (thrown instanceof Error && /no results|no message|not found/i.test(thrown.message))
  );
}

function logged<T>(message: Raw): Logged<T> {
  return {
    subject: message.subject,
    seq: message.seq,
    at: Date.parse(message.timestamp),
    value: (message.string() === "" ? undefined : JSON.parse(message.string())) as T,
  };
}
