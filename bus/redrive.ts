/**
 * Dead letters looked through, and sent back to where they came from.
 *
 * V1 A letter is removed only after its message is stored again.
 * V2 Redriving the same letter twice stores the message once (inside the duplicate window of its stream): the message id is made of the letter.
 * V3 A letter is believed only where our own processes alone may write.
 * V4 The message goes out as it was: subject, payload byte for byte, headers; only its id is new, and `x-original-msg-id` tells the old one.
 */
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import { streams, type StreamSpec } from "../contracts/streams.ts";
import { apiCode, apiCodeOf, asking } from "./apierror.ts";
import { redeem, release } from "./claims.ts";
import type { Bus } from "./connect.ts";
import { payloadIn, readLetter, type Letter } from "./letter.ts";
import { toldBy } from "./otherletters.ts";
import { publishRetrying } from "./retrying.ts";
import { withoutControl } from "./retry.ts";

export interface DeadLetterEntry {
  /** Its name: the sequence in the dead-letter stream. */
  readonly seq: number;
  /** Subject it lies under. */
  readonly subject: string;
  /** When it was stored, epoch milliseconds. */
  readonly timestampMs: number;
  readonly reason: string;
  /** Empty when it does not say. */
  readonly tenantId: string;
  /** What was wrong, for people; empty when it does not say. */
  readonly error: string;
  /** Undefined for the other forms (BeamLine, intake validation and worker forms): they do not hold their message and cannot be redriven. */
  readonly letter: Letter | undefined;
  readonly body: Uint8Array;
}

export interface DeadLetterFilter {
  /** Subject of the original message, `*` and `>` allowed; of the dead letter itself where the form is not ours. */
  readonly subject?: string;
  readonly reason?: string;
  readonly tenantId?: string;
  /** Stored at or after this time, epoch milliseconds. */
  readonly sinceMs?: number;
}

export interface DeadLetterPage {
  readonly entries: readonly DeadLetterEntry[];
  /** Give it as `after` for the next page; undefined when there are no more. */
  readonly next: number | undefined;
}

export interface RedriveResult {
  readonly seq: number;
  /** `duplicate`: an earlier redrive had stored it already. `gone`: there is no such letter any more. */
  readonly outcome: "redriven" | "duplicate" | "gone" | "failed";
  /** Where the message is now. */
  readonly stored?: { readonly stream: string; readonly seq: number };
  readonly error?: BeamlineError;
}

export interface LetterOptions {
  /** The stream that keeps dead letters. Default the one of the contracts. */
  readonly letters?: StreamSpec;
}

/** Letters in the order they were stored. `limit` 1 to 1000, default 50. Throws `invalid_argument`, `unavailable`, `not_found` without the stream. */
export async function listDeadLetters(
  bus: Bus,
  filter: DeadLetterFilter = {},
  { after = 0, limit = 50, letters = streams.deadLetters }: LetterOptions & { after?: number; limit?: number } = {},
): Promise<DeadLetterPage> {
  if (!(limit >= 1 && limit <= 1_000)) throw invalidArgument("limit", "must be from 1 to 1000");
  const matches = matcher(filter);
  const entries: DeadLetterEntry[] = [];
  let from = Math.max(after + 1, await firstSince(bus, letters, filter.sinceMs));
  for (;;) {
    const entry = await nextEntry(bus, letters, from);
    if (entry === undefined) return { entries, next: undefined };
    if (matches(entry)) {
      // One too many: there is a next page.
      if (entries.length === limit) return { entries, next: entries.at(-1)?.seq };
      entries.push(entry);
    }
    from = entry.seq + 1;
  }
}

/** One letter with its payload (undefined where the form is not ours). Throws `not_found`, `data_loss`, `unavailable`. */
export async function showDeadLetter(
  bus: Bus,
  seq: number,
  { letters = streams.deadLetters }: LetterOptions = {},
): Promise<DeadLetterEntry & { readonly payload: Uint8Array | undefined }> {
  const entry = await nextEntry(bus, letters, seq);
  if (entry?.seq !== seq) throw new BeamlineError("not_found", `there is no dead letter ${seq}`);
  return { ...entry, payload: entry.letter === undefined ? undefined : await payloadOf(bus, entry.body, entry.letter) };
}

/** Sends letters back, one after another; one that fails does not stop the others. Never throws. */
export async function redrive(bus: Bus, seqs: Iterable<number>, options: LetterOptions = {}): Promise<RedriveResult[]> {
  const results: RedriveResult[] = [];
  for (const seq of seqs) results.push(await redriveOne(bus, seq, options));
  return results;
}

/** Deletes letters for good. Says of each whether it was there. */
export async function discardDeadLetters(
  bus: Bus,
  seqs: Iterable<number>,
  { letters = streams.deadLetters }: LetterOptions = {},
): Promise<Map<number, boolean>> {
  const done = new Map<number, boolean>();
  for (const seq of seqs) {
    const entry = await nextEntry(bus, letters, seq);
    done.set(seq, entry?.seq === seq && (await remove(bus, letters, entry)));
  }
  return done;
}

async function redriveOne(
  bus: Bus,
  seq: number,
  { letters = streams.deadLetters }: LetterOptions,
): Promise<RedriveResult> {
  try {
    const entry = await nextEntry(bus, letters, seq);
    if (entry?.seq !== seq) return { seq, outcome: "gone" };
    const { letter, body } = entry;
    if (letter === undefined) {
      throw new BeamlineError(
        "failed_precondition",
        `dead letter ${seq} does not hold its message: it was written by another program`,
      );
    }
    // A request subject has someone listening who is not a stream, and would do the work again instead of keeping it.
    const takers = await asking("look for a stream", () => bus.jsm.streams.names(letter.original_subject).next());
    if (takers.length === 0)
      throw new BeamlineError("failed_precondition", `no stream takes ${letter.original_subject}`);
    const {
      stream,
      seq: storedSeq,
      duplicate,
    } = await publishRetrying(bus, letter.original_subject, await payloadOf(bus, body, letter), {
      headers: headersOf(letter),
      msgId: `redrive:${letters.name}:${seq}:${letter.timestamp}`,
      timeoutMs: 10_000,
    });
    await remove(bus, letters, entry);
    return { seq, outcome: duplicate ? "duplicate" : "redriven", stored: { stream, seq: storedSeq } };
  } catch (thrown) {
    return { seq, outcome: "failed", error: BeamlineError.from(thrown) };
  }
}

/** V4. A deadline of long ago would fail it at once. */
function headersOf({ message, msg_id }: Letter): Headers {
  const { [header.deadline]: _deadline, ...headers } = withoutControl(message.headers);
  return { ...headers, [header.originalMsgId]: msg_id };
}

async function payloadOf(bus: Bus, body: Uint8Array, letter: Letter): Promise<Uint8Array> {
  const { payload_ref: claim } = letter.context;
  return claim === undefined ? payloadIn(body, letter) : redeem(bus, claim);
}

/** False when someone else was first: the server's own words for that are many, so it is asked. */
async function remove(bus: Bus, letters: StreamSpec, { seq, letter }: DeadLetterEntry): Promise<boolean> {
  let there = true;
  try {
    await asking(`delete dead letter ${seq}`, () => bus.jsm.streams.deleteMessage(letters.name, seq, false));
  } catch (thrown) {
    if ((await nextEntry(bus, letters, seq))?.seq === seq) throw thrown;
    there = false;
  }
  const claim = letter?.context.payload_ref;
  if (claim !== undefined) await release(bus, claim);
  return there;
}

async function firstSince(bus: Bus, letters: StreamSpec, sinceMs: number | undefined): Promise<number> {
  if (sinceMs === undefined) return 1;
  const message = await asking("read dead letters", () =>
    bus.jsm.direct.getMessage(letters.name, { start_time: new Date(sinceMs) }),
  );
  return message?.seq ?? Infinity;
}

/** The first letter at or after a sequence. */
async function nextEntry(bus: Bus, letters: StreamSpec, from: number): Promise<DeadLetterEntry | undefined> {
  if (!Number.isSafeInteger(from) || from < 1) return undefined;
  const message = await asking("read dead letters", async () => {
    try {
      return await bus.jsm.direct.getMessage(letters.name, { seq: from, next_by_subj: ">" });
    } catch (thrown) {
      if (apiCodeOf(thrown) === apiCode.messageNotFound) return null;
      throw thrown;
    }
  });
  if (message === null) return undefined;
  const letter = ownLetter(message.subject, readLetter(message.data));
  const told = letter === undefined ? toldBy(message.data) : undefined;
  return {
    seq: message.seq,
    subject: message.subject,
    timestampMs: message.time.getTime(),
    reason: letter?.reason ?? (message.header.get(header.dlqReason) || (told?.reason ?? "")),
    tenantId: letter?.tenant_id ?? told?.tenantId ?? "",
    error: letter?.context.error.message ?? told?.error ?? "",
    letter,
    body: message.data,
  };
}

/** V3. Only what lies where ours do is believed: outside programs may write to the other subjects, and would have us publish anywhere. */
function ownLetter(subject: string, letter: Letter | undefined): Letter | undefined {
  const ours = subject.startsWith("dlq.") || subject === `${letter?.original_subject ?? ""}.dlq`;
  return ours ? letter : undefined;
}

function matcher({ subject, reason, tenantId }: DeadLetterFilter): (entry: DeadLetterEntry) => boolean {
  const pattern = subject?.split(".");
  return (entry) =>
    (reason === undefined || entry.reason === reason) &&
    (tenantId === undefined || entry.tenantId === tenantId) &&
    (pattern === undefined || subjectMatches(pattern, entry.letter?.original_subject ?? entry.subject));
}

/** Whether a subject falls under a pattern, by the rules of NATS. */
function subjectMatches(pattern: readonly string[], subject: string): boolean {
  const tokens = subject.split(".");
  for (const [at, token] of pattern.entries()) {
    if (token === ">") return tokens.length > at;
    if (at >= tokens.length || (token !== "*" && token !== tokens[at])) return false;
  }
  return tokens.length === pattern.length;
}
