/**
 * The index on Qdrant: one collection for all tenants, dense vectors for meaning and sparse ones for words.
 *
 * Q1 Tenant and collection are indexed payload; the tenant is the tenant index, so that each has its own part of the graph. Every request
 *    filters by tenant.
 * Q2 The collection is named after the embedding model, told apart by a digest of its exact name: another model gets another collection, filled
 *    from the log, and the old one stays until somebody removes it. A collection of the right name with other vectors is refused, never written to.
 * Q3 A collection that has gone missing is made again when the index is opened again (`details.gone` on the error says that this is needed).
 * Q4 The watermark is there from when the collection was filled until it is emptied. A search asks for it along the way: one worker sees by
 *    it that another one is filling the collection anew, and answers from nothing half.
 */
import { createHash } from "node:crypto";
import { QdrantClient, type Schemas } from "@qdrant/js-client-rest";
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { orAborted } from "../../../runtime/aborted.ts";
import type { Candidate, Doc, DocKey, Index, Query, Vectored } from "../ports.ts";

export interface QdrantOptions {
  readonly url: string;
  readonly key?: string | undefined;
  /** Start of the collection's name. */
  readonly collection: string;
  readonly model: string;
  readonly dimensions: number;
  /** One request, milliseconds. Default 10 000. */
  readonly timeoutMs?: number;
}

const DENSE = "dense";
const WORDS = "words";
/** The point that carries the watermark. It has no tenant, so no search finds it. */
const WATERMARK = "00000000-0000-4000-8000-000000000001";
const UPSERT = 64;

/** Name of the collection for a model: its name as far as Qdrant takes it, for people, and a digest of the exact one, so that `a-b` and `a_b` are two. */
export function collectionName(prefix: string, model: string): string {
  const readable = model.replaceAll(/[^a-zA-Z0-9]+/g, "-").toLowerCase();
  const digest = createHash("sha256").update(model).digest("hex");
  return `${prefix}_${readable.slice(0, 64)}_${digest.slice(0, 12)}`;
}

/** Connects, makes or checks the collection. Throws `unavailable`, and `failed_precondition` for a collection of other vectors (Q2). */
export async function openQdrant(options: QdrantOptions): Promise<Index> {
  const client = new QdrantClient({
    url: options.url,
    // A port of the scheme's own is dropped by every URL parser, and the client would take 6333 instead.
    ...(/^\w+:\/\/[^/]*:443(\/|$)/.test(options.url) && { port: 443 }),
    ...(/^\w+:\/\/[^/]*:80(\/|$)/.test(options.url) && { port: 80 }),
    ...(options.key !== undefined && { apiKey: options.key }),
    timeout: options.timeoutMs ?? 10_000,
    checkCompatibility: false,
  });
  const index = new QdrantIndex(
    client,
    collectionName(options.collection, options.model),
    options.dimensions,
    options.model,
  );
  await index.prepare();
  return index;
}

class QdrantIndex implements Index {
  readonly shared = true;
  readonly #client: QdrantClient;
  readonly #name: string;
  readonly #dimensions: number;
  readonly #model: string;

  constructor(client: QdrantClient, name: string, dimensions: number, model: string) {
    this.#client = client;
    this.#name = name;
    this.#dimensions = dimensions;
    this.#model = model;
  }

  /** Repeatable: what is there stays, what is missing is added. */
  async prepare(): Promise<void> {
    await this.#ask(async (client) => {
      const { exists } = await client.collectionExists(this.#name);
      if (exists) this.#check(await client.getCollection(this.#name));
      else await this.#create(client);
      const indexes: Schemas["CreateFieldIndex"][] = [
        { field_name: "tenant", field_schema: { type: "keyword", is_tenant: true } },
        { field_name: "collection", field_schema: "keyword" },
        { field_name: "seq", field_schema: { type: "integer", lookup: false, range: true } },
      ];
      for (const index of indexes) await client.createPayloadIndex(this.#name, { ...index, wait: true });
    });
  }

  async #create(client: QdrantClient): Promise<void> {
    try {
      await client.createCollection(this.#name, {
        vectors: { [DENSE]: { size: this.#dimensions, distance: "Cosine" } },
        sparse_vectors: { [WORDS]: { modifier: "idf" } },
        // Every search is within one tenant: a graph per tenant, none over all of them.
        hnsw_config: { m: 0, payload_m: 16 },
        on_disk_payload: true,
      });
    } catch (thrown) {
      if (statusOf(thrown) !== 409) throw thrown; // another worker was first
    }
  }

  #check(info: Schemas["CollectionInfo"]): void {
    const vectors = info.config.params.vectors as Readonly<Record<string, { size?: number }>> | undefined;
    const size = vectors?.[DENSE]?.size;
    const sparse = info.config.params.sparse_vectors;
    if (size === this.#dimensions && sparse !== null && sparse !== undefined && WORDS in sparse) return;
    throw new BeamlineError(
      "failed_precondition",
      `the Qdrant collection ${this.#name} holds vectors of ${size ?? "other"} dimensions, the embedding model ${this.#model} makes ${this.#dimensions}: remove it or set BEAMLINE_QDRANT_COLLECTION`,
    );
  }

  async put(docs: readonly Vectored[], signal?: AbortSignal): Promise<void> {
    for (const { vector } of docs) {
      if (vector.length !== this.#dimensions) {
        throw new BeamlineError(
          "failed_precondition",
          `a vector has ${vector.length} dimensions, the index ${this.#dimensions}`,
        );
      }
    }
    const known = await this.seqs(docs, signal);
    const newer = docs.filter((doc, at) => (known[at] ?? 0) < doc.seq);
    for (let at = 0; at < newer.length; at += UPSERT) {
      // A condition per document closes the gap between looking and writing, on servers that know it (1.16).
      const operations = newer.slice(at, at + UPSERT).map((doc) => ({
        upsert: { points: [pointOf(doc)], update_filter: { must: [{ key: "seq", range: { lt: doc.seq } }] } },
      }));
      await this.#ask((client) => client.batchUpdate(this.#name, { wait: true, operations }), signal);
    }
  }

  async remove(docs: readonly (DocKey & { readonly seq: number })[], signal?: AbortSignal): Promise<void> {
    for (const doc of docs) {
      const filter = { must: [{ has_id: [pointId(doc)] }, { key: "seq", range: { lt: doc.seq } }] };
      await this.#ask((client) => client.delete(this.#name, { wait: true, filter }), signal);
    }
  }

  async seqs(keys: readonly DocKey[], signal?: AbortSignal): Promise<number[]> {
    if (keys.length === 0) return [];
    const ids = keys.map(pointId);
    const found = await this.#ask(
      (client) => client.retrieve(this.#name, { ids, with_payload: ["seq"], with_vector: false }),
      signal,
    );
    const seqs = new Map(found.map(({ id, payload }) => [String(id), Number(payload?.["seq"] ?? 0)]));
    return ids.map((id) => seqs.get(id) ?? 0);
  }

  /** Nearest by meaning, and nearest by words with the likeness of their meaning: two queries, one request. */
  async search({ tenant, collections, vector, words, limit, signal }: Query): Promise<Candidate[]> {
    if (collections.length === 0) return [];
    const filter = within(tenant, collections);
    const query = Array.from(vector);
    const near = { query, using: DENSE, filter, limit, with_payload: true };
    const named = {
      prefetch: [{ query: sparse(words), using: WORDS, filter, limit }],
      query,
      using: DENSE,
      filter,
      limit,
      with_payload: true,
    };
    const searches = named.prefetch[0]?.query.indices.length === 0 ? [near] : [near, named];
    const answers = await this.#filled(searches, signal);
    const found = new Map(answers.flatMap(({ points }) => points.map((point) => [String(point.id), point] as const)));
    return [...found.values()].map(({ payload, score }) => candidateOf(payload, score));
  }

  async newest({
    tenant,
    collections,
    limit,
    signal,
  }: Pick<Query, "tenant" | "collections" | "limit" | "signal">): Promise<Candidate[]> {
    if (collections.length === 0) return [];
    const newest = {
      query: { order_by: { key: "seq", direction: "desc" as const } },
      filter: within(tenant, collections),
      limit,
      with_payload: true,
    };
    const answers = await this.#filled([newest], signal);
    return answers.flatMap(({ points }) => points.map(({ payload }) => candidateOf(payload, 0)));
  }

  /** Answers of a collection that has its watermark (Q4): asked for by its id, without a vector, in the same request. */
  async #filled(
    searches: readonly Schemas["QueryRequest"][],
    signal?: AbortSignal,
  ): Promise<Schemas["QueryResponse"][]> {
    const watermark = { filter: { must: [{ has_id: [WATERMARK] }] }, limit: 1 };
    const answers = await this.#ask(
      (client) => client.queryBatch(this.#name, { searches: [...searches, watermark] }),
      signal,
    );
    if (answers.pop()?.points.length !== 1) throw this.#gone();
    return answers;
  }

  async applied(): Promise<number | undefined> {
    const [point] = await this.#ask((client) => client.retrieve(this.#name, { ids: [WATERMARK], with_payload: true }));
    return point === undefined ? undefined : Number(point.payload?.["applied"] ?? 0);
  }

  async begin(seq: number): Promise<void> {
    const points = [{ id: WATERMARK, vector: {}, payload: { applied: seq, watermark: true } }];
    await this.#ask((client) => client.upsert(this.#name, { wait: true, points }));
  }

  async setApplied(seq: number): Promise<void> {
    const filter = { must: [{ has_id: [WATERMARK] }] }; // by its id alone it would be an error where there is none
    await this.#ask((client) => client.setPayload(this.#name, { wait: true, filter, payload: { applied: seq } }));
  }

  async count(): Promise<number> {
    const filter = { must_not: [{ has_id: [WATERMARK] }] };
    return (await this.#ask((client) => client.count(this.#name, { exact: true, filter }))).count;
  }

  async clear(): Promise<void> {
    await this.#ask((client) => client.deleteCollection(this.#name));
    await this.prepare();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #gone(cause?: unknown): BeamlineError {
    const message = `the Qdrant collection ${this.#name} is gone; it is made again from the log`;
    return new BeamlineError("unavailable", message, { cause, details: { gone: true } });
  }

  /** Runs one request; what the client throws becomes ours. The client cannot be stopped, so a signal only ends the waiting. */
  async #ask<T>(run: (client: QdrantClient) => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      signal?.throwIfAborted();
      const work = run(this.#client);
      return signal === undefined ? await work : await orAborted(signal, work);
    } catch (thrown) {
      if (thrown instanceof BeamlineError) throw thrown;
      if (signal?.aborted === true) throw new BeamlineError("cancelled", "the search was cancelled", { cause: thrown });
      const status = statusOf(thrown);
      if (status === 404) throw this.#gone(thrown);
      if (status === 401 || status === 403) {
        throw new BeamlineError("failed_precondition", "Qdrant refuses the key (QDRANT_API_KEY)", { cause: thrown });
      }
      if (status >= 400 && status < 500 && status !== 408 && status !== 429)
        throw new BeamlineError("internal", "internal error", { cause: thrown });
      throw new BeamlineError("unavailable", "the vector index (Qdrant) cannot be reached", {
        cause: thrown,
        retryAfterSeconds: 1,
      });
    }
  }
}

/** HTTP status behind a thrown thing, 0 when there was no answer. */
function statusOf(thrown: unknown): number {
  if (typeof thrown !== "object" || thrown === null) return 0;
  const { status, message } = thrown as { status?: unknown; message?: unknown };
  if (typeof status === "number") return status;
  return Number(/Unexpected Response: (\d{3})/.exec(String(message))?.[1] ?? 0);
}

/** Q1. */
function within(tenant: string, collections: readonly string[]): Schemas["Filter"] {
  return {
    must: [
      { key: "tenant", match: { value: tenant } },
      { key: "collection", match: { any: [...collections] } },
    ],
  };
}

/** A document's point id: made from its key, so that it replaces itself. */
function pointId({ tenant, collection, id }: DocKey): string {
  const hex = createHash("sha256")
    .update(JSON.stringify([tenant, collection, id]))
    .digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

function pointOf(doc: Vectored): Schemas["PointStruct"] {
  const { tenant, collection, id, seq, at, content, text, metadata, vector } = doc;
  const words = sparse([text.toLowerCase()]);
  return {
    id: pointId(doc),
    vector: { [DENSE]: Array.from(vector), ...(words.indices.length > 0 && { [WORDS]: words }) },
    payload: { tenant, collection, id, seq, at, content, text, metadata },
  };
}

/** Words as a sparse vector: a dimension per word, its count as the value; the server adds how rare the word is. */
export function sparse(words: readonly string[]): { indices: number[]; values: number[] } {
  const counts = new Map<number, number>();
  for (const whole of words) {
    for (const word of whole.split(/[^\p{L}\p{N}]+/u)) {
      if (word === "") continue;
      const dimension = createHash("sha256").update(word).digest().readUInt32BE(0);
      counts.set(dimension, (counts.get(dimension) ?? 0) + 1);
    }
  }
  return { indices: [...counts.keys()], values: [...counts.values()] };
}

function candidateOf(payload: Readonly<Record<string, unknown>> | null | undefined, cosine: number): Candidate {
  const { tenant, collection, id, seq, at, content, text, metadata } = (payload ?? {}) as unknown as Doc & {
    metadata?: JsonObject;
  };
  return { tenant, collection, id, seq, at, content, text, metadata: metadata ?? {}, cosine };
}
