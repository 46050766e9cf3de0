/**
 * Keeps one projection up to the log: from its watermark to the end, then for ever as the log grows.
 *
 * T1 The watermark is part of the projection: what a crash or a power cut took from it is read again.
 * T2 In order, in batches; a batch that cannot be applied now is tried again until it can. Nothing is skipped, except
 * T3 what can never be applied, which becomes a dead letter.
 * T4 A projection that is ahead of the log is one of another log (it was restored, or made anew), and is worth nothing: it is built again.
 */
import { BeamlineError, meaning } from "../../contracts/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Entry, MemoryLog, Watch } from "./log.ts";

export interface Progress {
  readonly done: number;
  readonly total: number;
}

export interface Projection {
  readonly name: string;
  readonly subjects: readonly string[];
  /** Undefined when there is nothing yet and it has to be built. Throws while it cannot be reached. */
  applied(): Promise<number | undefined>;
  /** Builds it from nothing; the watermark is set when it resolves. */
  build(): Promise<void>;
  /** Empties it. */
  empty(): Promise<void>;
  apply(entries: readonly Entry[], signal: AbortSignal): Promise<void>;
  setApplied(seq: number): Promise<void>;
  /** For a projection that has to know how far it is (current.ts). */
  readonly watch?: Watch;
  /** Aborts when the projection was emptied or lost, and has to be begun anew. */
  renewed?(): AbortSignal;
  /** Called as it goes, and with undefined when everything that was there at the start is in. */
  report(progress: Progress | undefined): void;
}

export interface TailParts {
  readonly log: MemoryLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Keeps what can never be applied (T3). */
  readonly bury: (projection: string, entry: Entry, error: BeamlineError) => Promise<void>;
}

const BATCH = 256;
/**
 * How long a record at the end of the log waits for company, milliseconds. Nobody waits for it: whoever wrote it has applied it before it was
 * acknowledged, and this one would apply it a second time.
 */
const COMPANY_MS = 20;
const LONGEST_PAUSE_MS = 5_000;

/** Runs until the signal. Never throws. */
export async function follow(projection: Projection, parts: TailParts, signal: AbortSignal): Promise<void> {
  const { clock, logger } = parts;
  let pause = 100;
  while (!signal.aborted) {
    const renewed = projection.renewed?.();
    try {
      await once(
        projection,
        parts,
        renewed === undefined ? signal : AbortSignal.any([signal, renewed]),
        () => (pause = 100),
      );
    } catch (error) {
      if (signal.aborted) return;
      if (renewed?.aborted === true) continue;
      if (pause === 100) logger.warn(`${projection.name} cannot follow the memory log now`, { error });
    }
    const ends = renewed === undefined ? signal : AbortSignal.any([signal, renewed]);
    if (!ends.aborted) await clock.sleep(pause, ends).catch(() => undefined);
    pause = renewed?.aborted === true ? 100 : Math.min(LONGEST_PAUSE_MS, pause * 2);
  }
}

async function once(projection: Projection, parts: TailParts, signal: AbortSignal, going: () => void): Promise<void> {
  let applied = await projection.applied();
  if (applied !== undefined && applied > (await parts.log.bounds("MEMORY")).last) {
    parts.logger.warn(`${projection.name} is ahead of the memory log, which is another one: it is built anew`, {
      applied,
    });
    await projection.empty();
    applied = undefined;
  }
  if (applied === undefined) {
    await projection.build();
    applied = (await projection.applied()) ?? 0;
  }
  signal.throwIfAborted();
  const { last } = await parts.log.bounds("MEMORY");
  const total = Math.max(0, last - applied);
  const begun = applied;
  let complete = false;
  const told = (at: number): void => {
    if (complete) return;
    complete = at >= last;
    projection.report(complete ? undefined : { done: at - begun, total });
  };
  told(applied);
  const reading = new AbortController();
  // Ends of the stream that other subjects hold are no news for this projection: it is complete when nothing is pending.
  const entries = parts.log.read({
    stream: "MEMORY",
    subjects: projection.subjects,
    from: applied + 1,
    follow: true,
    watch: projection.watch,
    signal: AbortSignal.any([signal, reading.signal]),
  });
  if (!complete && (await nothingBetween(parts.log, projection.subjects, applied + 1))) told(last);
  const company = (): Promise<void> => parts.clock.sleep(COMPANY_MS, signal).catch(() => undefined);
  for await (const batch of gathered(entries, company, () => reading.abort())) {
    going();
    await applyAll(projection, parts, batch, signal);
    const end = batch.at(-1);
    if (end === undefined) continue;
    await projection.setApplied(end.seq);
    told(end.pending === 0 ? Math.max(last, end.seq) : end.seq);
  }
}

async function nothingBetween(log: MemoryLog, subjects: readonly string[], from: number): Promise<boolean> {
  for await (const _entry of log.read({ stream: "MEMORY", subjects, from })) return false;
  return true;
}

/** Applies a batch; when that can never succeed, entry by entry, so that only the bad one is buried. */
async function applyAll(
  projection: Projection,
  parts: TailParts,
  batch: readonly Entry[],
  signal: AbortSignal,
): Promise<void> {
  try {
    await projection.apply(batch, signal);
  } catch (thrown) {
    const error = BeamlineError.from(thrown);
    if (signal.aborted || mayPass(error)) throw error;
    const [only] = batch;
    if (batch.length > 1) {
      for (const entry of batch) await applyAll(projection, parts, [entry], signal);
    } else if (only !== undefined) {
      parts.logger.error(`${projection.name} cannot apply a record of the memory log`, { seq: only.seq, error });
      await parts.bury(projection.name, only, error);
    }
  }
}

/** Whether another try may help. */
function mayPass({ code }: BeamlineError): boolean {
  return meaning(code).outcome === "retry" || code === "failed_precondition" || code === "cancelled";
}

/** What `read` makes of each entry; those it can never make anything of go to `bury` and are left out (T3), while a projection is built as well. */
export async function readable<T>(
  entries: readonly Entry[],
  read: (entry: Entry) => Promise<T>,
  bury: (entry: Entry, error: BeamlineError) => Promise<void>,
): Promise<T[]> {
  const made = await Promise.all(
    entries.map(async (entry) => {
      try {
        return [await read(entry)] as const;
      } catch (thrown) {
        const error = BeamlineError.from(thrown);
        if (mayPass(error)) throw error;
        await bury(entry, error);
        return [];
      }
    }),
  );
  return made.flat();
}

/** Entries in groups while the log is followed: what arrives within `company` comes along. `stop` must end the entries. */
export async function* gathered(
  entries: AsyncIterable<Entry>,
  company: () => Promise<void>,
  stop: () => void,
): AsyncGenerator<Entry[]> {
  const waiting: Entry[] = [];
  let news = Promise.withResolvers<void>();
  let room = Promise.withResolvers<void>();
  let over = false;
  const pump = async (): Promise<void> => {
    try {
      for await (const entry of entries) {
        waiting.push(entry);
        news.resolve();
        if (waiting.length >= 2 * BATCH) await room.promise;
      }
    } finally {
      over = true;
      news.resolve();
    }
  };
  const pumped = pump();
  pumped.catch(() => undefined); // awaited below
  try {
    for (;;) {
      if (waiting.length === 0 && !over) await news.promise;
      if (waiting.length < BATCH && !over) await company();
      if (waiting.length === 0 && over) break;
      news = Promise.withResolvers();
      const batch = waiting.splice(0, BATCH);
      if (waiting.length > 0) news.resolve();
      room.resolve();
      room = Promise.withResolvers();
      if (batch.length > 0) yield batch;
    }
    await pumped;
  } finally {
    stop();
    room.resolve();
    over = true;
    await pumped.catch(() => undefined);
  }
}

/** Entries in groups: as many as have arrived, at most `BATCH`. */
export async function* batches(entries: AsyncIterable<Entry>): AsyncGenerator<Entry[]> {
  let batch: Entry[] = [];
  for await (const entry of entries) {
    batch.push(entry);
    if (batch.length < BATCH && entry.pending > 0) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
