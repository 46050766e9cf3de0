/**
 * Reading what a stream holds, without a consumer: everything on some subjects from a sequence or a moment on, page by page.
 *
 * A page is cut by its count and by its bytes, whichever comes first: whether there is more is what the server says, never how full a page is.
 */
import type { StoredMsg } from "@nats-io/jetstream";
import { apiCode, apiCodeOf, fromJetStream } from "./apierror.ts";
import type { Bus } from "./connect.ts";

export interface ReadOptions {
  /** Subjects read, wildcards allowed. Default: all. */
  readonly subject?: string;
  /** First stream sequence. Default 1. */
  readonly from?: number;
}

/** Messages asked for at once. */
const PAGE = 500;

/**
 * Messages in order, up to the end as it is then; none when there are none. Throws `unavailable` when no stream of that name answers.
 */
export async function* readStream(
  bus: Bus,
  stream: string,
  { subject = ">", from = 1 }: ReadOptions = {},
): AsyncGenerator<StoredMsg> {
  for (let seq: number | undefined = Math.max(1, from); seq !== undefined;) {
    const page: StoredMsg[] = await readPage(bus, stream, subject, seq);
    yield* page;
    const last = page.at(-1);
    seq = last === undefined || last.pending === 0 ? undefined : last.seq + 1;
  }
}

/** The sequence of the first message stored at a moment or later; undefined when there is none. */
export async function firstSince(bus: Bus, stream: string, since: Date): Promise<number | undefined> {
  const [first] = await answered(`read ${stream}`, async () =>
    Array.fromAsync(await bus.jsm.direct.getBatch(stream, { start_time: since, batch: 1 })),
  );
  return first?.seq;
}

function readPage(bus: Bus, stream: string, subject: string, seq: number): Promise<StoredMsg[]> {
  return answered(`read ${subject === ">" ? stream : subject}`, async () =>
    Array.fromAsync(await bus.jsm.direct.getBatch(stream, { seq, batch: PAGE, next_by_subj: subject })),
  );
}

/** That there is no message is an answer. */
async function answered(what: string, ask: () => Promise<StoredMsg[]>): Promise<StoredMsg[]> {
  try {
    return await ask();
  } catch (thrown) {
    if (apiCodeOf(thrown) === apiCode.messageNotFound || (thrown instanceof Error && EMPTY.test(thrown.message)))
      return [];
    throw fromJetStream(thrown, what);
  }
}

const EMPTY = /no results|message not found/i;
