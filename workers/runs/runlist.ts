/**
 * The runs of a tenant by when they were made, newest first, out of their logs: the stream's order is that of their making, and no later run
 * changes it. Read backwards, stretch by stretch; what others wrote costs little, for the server skips it.
 */
import { asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { partOf, tokenOf } from "../../bus/keys.ts";
import { readStream } from "../../bus/read.ts";
import { parseEntry, RUNS_STREAM, wakeSubject } from "../../contracts/openwop/log.ts";

/** A run, and where its log begins. */
export interface Made {
  readonly runId: string;
  readonly streamSeq: number;
}

/** Sequences of the stream in the shortest stretch. */
const SHORTEST = 256;
/** Messages of the tenant after which a longer stretch is cut down. */
const DENSE = 1_000;

/** Runs made before a sequence of the stream, stretch by stretch, some of them empty. Throws `unavailable`. */
export async function* runsBefore(bus: Bus, tenant: string, before: number): AsyncGenerator<readonly Made[]> {
  const { state } = await asking("list the runs of a tenant", () => bus.jsm.streams.info(RUNS_STREAM));
  let width = SHORTEST;
  for (let end = Math.min(before, state.last_seq + 1); end > state.first_seq;) {
    const from = Math.max(state.first_seq, end - width);
    const made = await madeIn(bus, tenant, from, end, width > SHORTEST ? DENSE : Infinity);
    if (made === undefined) {
      width = Math.max(SHORTEST, Math.floor(width / 4));
      continue;
    }
    yield made.toReversed();
    end = from;
    if (made.length === 0) width *= 4;
  }
}

/** Undefined when there is more to read than `most` messages. */
async function madeIn(bus: Bus, tenant: string, from: number, end: number, most: number): Promise<Made[] | undefined> {
  const made: Made[] = [];
  let read = 0;
  for await (const message of readStream(bus, RUNS_STREAM, { subject: wakeSubject(tokenOf(tenant), "*"), from })) {
    if (message.seq >= end) break;
    if (++read > most) return undefined;
    const runId = partOf(message.subject.split(".")[3] ?? "");
    if (begins(message.string())) made.push({ runId, streamSeq: message.seq });
  }
  return made;
}

/** Whether a message is the first of a run; one that cannot be read must not hide the others. */
function begins(text: string): boolean {
  try {
    return parseEntry(text).run !== undefined;
  } catch {
    return false;
  }
}
