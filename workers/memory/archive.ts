/**
 * Long-term memory: what the log keeps, findable by meaning and by words.
 *
 * A1 A write is accepted when the log has it. It is indexed at once when that works, and by the tail of the log otherwise.
 * A2 A search answers from a complete index or not at all: while the tail is behind it waits, and says how far it is when it cannot.
 *    Where each worker has an index of its own, it waits for what the others wrote (current.ts); where they share one, for what a call of this
 *    worker could not index.
 * A3 Texts are embedded once: the tail leaves alone what is being indexed by a call, and what is in the index already; a call leaves to a tail that is
 *    behind what it has to bring anyway.
 */
import { BeamlineError } from "../../contracts/errors.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { orAborted } from "../../runtime/aborted.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import { Current } from "./index/current.ts";
import { docOf, searchable, collections as collectionOf } from "./index/document.ts";
import type { Candidate, Doc, Embedder, Index } from "./ports.ts";
import type { Logged } from "./record.ts";
import { keywordScore, relevance, wordsOf } from "./index/score.ts";

/** Index and model, opened together: the one is made for the other. */
export interface Shelf {
  readonly embedder: Embedder;
  readonly index: Index;
}

export interface Hit {
  readonly id: string;
  readonly collection: string;
  readonly content: string;
  readonly metadata: JsonObject;
  readonly relevance: number;
  readonly seq: number;
}

export interface Wanted {
  readonly query: string;
  readonly collections: readonly string[];
  readonly limit: number;
  /** Inclusive. */
  readonly minRelevance: number;
  /** When the caller stops waiting, milliseconds since 1970. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
}

export interface ArchiveOptions {
  /** How long a write waits for its indexing before the tail takes over, milliseconds. */
  readonly indexWaitMs: number;
}

/** Candidates per wanted hit: the blend may put one first that is neither nearest nor best by words. */
const WIDEN = 5;
const LEAST_CANDIDATES = 50;
const EMBED_BATCH = 32;
const KNOWN_QUERIES = 512;

export class Archive {
  /** What the index has of the log. */
  readonly current: Current;
  readonly #open: () => Promise<Shelf>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #options: ArchiveOptions;
  readonly #underway = new Map<number, Promise<void>>();
  /** Records that calls of this worker have left to the tail. */
  readonly #late = new Set<number>();
  readonly #queries = new Map<string, Float32Array>();
  #shelf: Promise<Shelf> | undefined;
  #complete = Promise.withResolvers<void>();
  #isComplete = false;
  #progress: { readonly done: number; readonly total: number } | undefined;
  #renew = new AbortController();
  #clearing: Promise<void> = Promise.resolve();
  readonly #watchers = new Set<(progress: { readonly done: number; readonly total: number }) => void>();

  constructor(open: () => Promise<Shelf>, clock: Clock, logger: Logger, options: ArchiveOptions) {
    this.#open = open;
    this.#clock = clock;
    this.current = new Current(clock);
    this.#logger = logger;
    this.#options = options;
  }

  /** Index and model; opened on first use, and again after a failure. */
  shelf(): Promise<Shelf> {
    this.#shelf ??= this.#open().catch((thrown: unknown) => {
      this.#shelf = undefined;
      throw thrown;
    });
    return this.#shelf;
  }

  /** The same, once nothing is emptying it. */
  async cleared(): Promise<Shelf> {
    await this.#clearing;
    return this.shelf();
  }

  /** Indexes a record that is in the log (A1); `fresh` when it cannot be in the index yet. True when it is in the index now. */
  async put(record: Logged, fresh = true): Promise<boolean> {
    const doc = docOf(record);
    if (doc === undefined || (!fresh && this.#progress !== undefined)) return false;
    const patience = AbortSignal.timeout(this.#options.indexWaitMs);
    const work = orAborted(patience, fresh ? this.index([doc], patience) : this.apply([record], patience));
    const settled = work.catch(() => undefined);
    this.#underway.set(record.seq, settled);
    void settled.finally(() => this.#underway.delete(record.seq));
    try {
      await work;
      this.current.put(record.seq);
      return true;
    } catch (error) {
      this.#late.add(record.seq);
      this.#logger.warn("a memory is stored and will be indexed later", { kind: record.kind, seq: record.seq, error });
      return false;
    }
  }

  /** Embeds and stores documents that are not in the index yet. */
  async index(docs: readonly Doc[], signal?: AbortSignal): Promise<void> {
    for (let at = 0; at < docs.length; at += EMBED_BATCH) {
      const batch = docs.slice(at, at + EMBED_BATCH);
      await this.#on(async ({ embedder, index }) => {
        const vectors = await embedder.embed(
          batch.map(({ text }) => text),
          signal,
        );
        await index.put(
          batch.map((doc, i) => Object.assign({ vector: vectors[i] ?? new Float32Array(embedder.dimensions) }, doc)),
          signal,
        );
      });
    }
  }

  /** What the tail of the log brings: indexes what is missing, takes out what was given up (A3). */
  async apply(records: readonly Logged[], signal?: AbortSignal): Promise<void> {
    const mine = records.filter(({ kind }) => searchable.includes(kind));
    for (const { seq } of mine) await this.#underway.get(seq);
    const gone = mine.filter(({ state }) => state === undefined);
    const keys = gone.map(({ tenant, kind, id, seq }) => ({ tenant, collection: collectionOf[kind] ?? "", id, seq }));
    if (keys.length > 0) await this.#on(({ index }) => index.remove(keys, signal));
    const docs = mine.map(docOf).filter((doc) => doc !== undefined);
    const known = await this.#on(({ index }) => index.seqs(docs, signal));
    const latest = new Map<string, Doc>();
    docs.forEach((doc, at) => {
      if ((known[at] ?? 0) < doc.seq) latest.set(`${doc.tenant}\u0000${doc.collection}\u0000${doc.id}`, doc);
    });
    await this.index([...latest.values()], signal);
  }

  /** Everything in the log up to this record is in. */
  passed(seq: number): void {
    this.current.passed(seq);
    for (const late of this.#late) if (late <= seq) this.#late.delete(late);
  }

  /** How far the tail is; undefined once it has everything there was. */
  report(progress: { readonly done: number; readonly total: number } | undefined): void {
    this.#progress = progress;
    if (progress !== undefined) for (const watch of this.#watchers) watch(progress);
    if (progress === undefined && !this.#isComplete) {
      this.#isComplete = true;
      this.#complete.resolve();
    } else if (progress !== undefined && this.#isComplete) {
      this.#isComplete = false;
      this.#complete = Promise.withResolvers();
    }
  }

  /** Records the tail still has to bring. */
  get behind(): number {
    return this.#progress === undefined ? 0 : this.#progress.total - this.#progress.done;
  }

  /** Aborts when the index has been emptied or lost: the tail begins anew. */
  get renewed(): AbortSignal {
    return this.#renew.signal;
  }

  /** Empties the index and waits until the tail has filled it again. */
  async rebuild(watch: (progress: { readonly done: number; readonly total: number }) => void): Promise<void> {
    const { index } = await this.shelf();
    this.#watchers.add(watch);
    try {
      // Told before it is emptied: who fills it now must not call it whole afterwards.
      this.#beginAnew();
      const clearing = index.clear();
      this.#clearing = clearing.catch(() => undefined);
      await clearing;
      await this.#complete.promise;
    } finally {
      this.#watchers.delete(watch);
    }
  }

  #beginAnew(): void {
    const old = this.#renew;
    this.#renew = new AbortController();
    this.report({ done: 0, total: 0 });
    old.abort();
  }

  /** Runs a step of the index; one that finds the index gone has it made again. */
  async #on<T>(run: (shelf: Shelf) => Promise<T>): Promise<T> {
    const shelf = await this.shelf();
    try {
      return await run(shelf);
    } catch (thrown) {
      if (
        thrown instanceof BeamlineError &&
        thrown.details["gone"] === true &&
        this.#shelf !== undefined &&
        (await this.#shelf) === shelf
      ) {
        this.#shelf = undefined;
        void closed(shelf);
        this.#beginAnew();
      }
      throw thrown;
    }
  }

  /** Hits by relevance, equal ones newest first; equal content of a collection once. Throws `unavailable` when it cannot know (A2). */
  async search(tenant: string, wanted: Wanted): Promise<Hit[]> {
    const { query, collections, limit, minRelevance, signal } = wanted;
    if (collections.length === 0) return [];
    await this.#caughtUp(wanted.deadline, signal);
    const words = wordsOf(query);
    const many = Math.max(LEAST_CANDIDATES, limit * WIDEN);
    const vector = words.length === 0 ? undefined : await this.#vectorOf(query, signal);
    const found: Candidate[] = await this.#on(({ index }) =>
      vector === undefined
        ? index.newest({ tenant, collections, limit: many, signal })
        : index.search({ tenant, collections, vector, words, limit: many, signal }),
    );
    const hits = found
      .filter((one) => one.tenant === tenant)
      .map((one) => Object.assign(one, { relevance: relevance(one.cosine, keywordScore(words, one.text)) }))
      .filter((hit) => hit.relevance >= minRelevance)
      .sort((a, b) => b.relevance - a.relevance || b.seq - a.seq || (a.id < b.id ? -1 : 1));
    const once = new Set<string>();
    const distinct = hits.filter(({ collection, content }) => {
      const key = `${collection}\u0000${content}`;
      return once.has(key) ? false : once.add(key);
    });
    return distinct.slice(0, limit);
  }

  async #vectorOf(query: string, signal?: AbortSignal): Promise<Float32Array> {
    const known = this.#queries.get(query);
    if (known !== undefined) return known;
    const { embedder } = await this.shelf();
    const [vector] = await embedder.embed([query], signal);
    if (vector === undefined) throw new BeamlineError("internal", "the embedding model gave no vector");
    if (this.#queries.size >= KNOWN_QUERIES) this.#queries.delete(this.#queries.keys().next().value ?? "");
    if (query.length < 1_000) this.#queries.set(query, vector);
    return vector;
  }

  /** A2. */
  async #caughtUp(deadline: number, signal?: AbortSignal): Promise<void> {
    const idle = this.#isComplete && this.#late.size === 0;
    if (idle && this.#shelf !== undefined && (await this.#shelf).index.shared) return;
    const patience = new AbortController();
    const wait = this.#clock.sleep(Math.max(0, deadline - this.#clock.now() - 500), patience.signal);
    void wait.then(
      () => patience.abort(),
      () => undefined,
    );
    const ends = signal === undefined ? patience.signal : AbortSignal.any([patience.signal, signal]);
    try {
      const { index } = await orAborted(ends, this.shelf()); // what cannot be reached is said at once
      await orAborted(ends, this.#complete.promise);
      if (!index.shared || this.#late.size > 0) await orAborted(ends, this.current.reached(ends));
    } catch (thrown) {
      if (!patience.signal.aborted) throw thrown;
      const { done, total } = this.#progress ?? { done: 0, total: 0 };
      const far = this.#progress === undefined ? "the newest records are not in yet" : `${done} of ${total}`;
      throw new BeamlineError("unavailable", `the search index is catching up with the log (${far})`, {
        retryAfterSeconds: 5,
        details: { done, total },
      });
    } finally {
      patience.abort();
    }
  }

  async close(): Promise<void> {
    const shelf = await this.#shelf?.catch(() => undefined);
    if (shelf !== undefined) await closed(shelf);
  }
}

async function closed({ index, embedder }: Shelf): Promise<void> {
  await index.close();
  await embedder.close();
}
