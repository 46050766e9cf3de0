/** What memory asks of its stores. Adapters: hot.redis, index.embedded, index.qdrant, embeddings.builtin, embeddings.openai. */
import type { JsonObject } from "../../contracts/codec.ts";
import type { Arrival } from "./arrival.ts";
import type { Kind, Logged } from "./record.ts";

/** A thing as hot state holds it. */
export interface Held {
  readonly id: string;
  readonly seq: number;
  /** When it was first written, microseconds since 1970. */
  readonly born: number;
  /** Undefined when it was given up. */
  readonly state: JsonObject | undefined;
}

export interface MetricSet {
  readonly tenant: string;
  readonly key: string;
  /** Arrival, microseconds since 1970: an earlier one never replaces a later one. */
  readonly at: number;
  readonly value: number;
  readonly timestamp: number | string;
}

/** Hot state: a projection of the log. Every method throws `unavailable` when it cannot be reached. */
export interface Hot {
  /** Applies records that are newer than what is there. */
  apply(records: readonly Logged[]): Promise<void>;
  push(events: readonly Arrival[], metrics: readonly MetricSet[]): Promise<void>;
  peek(tenant: string, wanted: readonly (readonly [Kind, string])[]): Promise<(Held | undefined)[]>;
  /** The things of a group that are not given up. */
  group(tenant: string, kind: Kind, group: string): Promise<Held[]>;
  /** Whether it is connected, as far as is known: asks nobody. */
  readonly up: boolean;
  /** Events as a JSON array, newest first. */
  events(tenant: string, count: number, category: string, source: string): Promise<string>;
  metrics(
    tenant: string,
    keys: readonly string[],
  ): Promise<({ value: number; timestamp: number | string } | undefined)[]>;
  pattern(tenant: string, trigger: string, leastRate: number): Promise<Held | undefined>;
}

/** One text that search finds. */
export interface Doc {
  readonly tenant: string;
  readonly collection: string;
  readonly id: string;
  /** Sequence of its record: an older one never replaces a newer one. */
  readonly seq: number;
  /** When it was written, milliseconds since 1970. */
  readonly at: number;
  /** What a hit shows. */
  readonly content: string;
  /** What is searched. */
  readonly text: string;
  /** What a hit tells about itself. */
  readonly metadata: JsonObject;
}

export interface Vectored extends Doc {
  readonly vector: Float32Array;
}

/** Where a document is in the index. */
export type DocKey = Pick<Doc, "tenant" | "collection" | "id">;

export interface Query {
  readonly tenant: string;
  readonly collections: readonly string[];
  readonly vector: Float32Array;
  /** Words worth looking for, in lower case. */
  readonly words: readonly string[];
  /** Nearest by meaning and by words, this many each. */
  readonly limit: number;
  readonly signal?: AbortSignal | undefined;
}

/** A document that may be an answer. Its final relevance is computed the same way whatever the index (score.ts). */
export interface Candidate extends Doc {
  /** Cosine similarity with the query's vector, -1 to 1. */
  readonly cosine: number;
}

/**
 * Nearest documents of one tenant. Every method throws `unavailable` when the store cannot be reached, `failed_precondition` when it holds
 * something else than what was asked for (another dimension).
 */
export interface Index {
  /** Whether all workers have the same one, so that what one has put every one finds. */
  readonly shared: boolean;
  /** Stores, replacing what has the same key and a smaller sequence. Durable when it resolves, or brought back by `applied`. */
  put(docs: readonly Vectored[], signal?: AbortSignal): Promise<void>;
  /** Takes out what has a smaller sequence than the one given. */
  remove(docs: readonly (DocKey & { readonly seq: number })[], signal?: AbortSignal): Promise<void>;
  /** Sequences of documents, 0 for the unknown. */
  seqs(keys: readonly DocKey[], signal?: AbortSignal): Promise<number[]>;
  search(query: Query): Promise<Candidate[]>;
  /** The newest documents, newest first, for queries without words; their cosine is 0. */
  newest(query: Pick<Query, "tenant" | "collections" | "limit" | "signal">): Promise<Candidate[]>;
  /** Every record of the log up to this sequence is in; undefined while it is being filled. */
  applied(): Promise<number | undefined>;
  /** It is filled up to this sequence. */
  begin(seq: number): Promise<void>;
  /** Moves what `applied` says; does nothing while it is being filled, so that no follower calls a cleared one whole. */
  setApplied(seq: number): Promise<void>;
  count(): Promise<number>;
  /** Empties it; `applied` is undefined then. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** Texts as vectors of length 1. */
export interface Embedder {
  /** Names the space of the vectors: another model, another space. */
  readonly model: string;
  readonly dimensions: number;
  /** Throws `unavailable` when the model cannot be reached in time. */
  embed(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]>;
  close(): Promise<void>;
}
