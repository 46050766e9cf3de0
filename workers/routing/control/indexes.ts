/**
 * Indexes of the control surface: documents of a project, put into the tenant's knowledge (aiOS, memory), where searches and agents find them.
 *
 * X1 The answer comes at once, the documents go one after another behind it. The same document again, by its id, replaces the former.
 * X2 A worker that dies leaves an index running without progress: after a while it counts as failed, and may be started again.
 */
import type { Caller } from "../../../bus/call.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { MemoryServiceDefinition } from "../../../contracts/gen/aios/memory.ts";
import { header } from "../../../contracts/headers.ts";
import { routesOf } from "../../../contracts/routes.ts";
import { isObject } from "../policies/fields.ts";
import { malformed, missing } from "../intake/refusal.ts";
import type { ControlRequest } from "./door.ts";
import type { Tell } from "./events.ts";
import { neededText, optionalList, optionalText } from "./inputs.ts";
import type { Index, Records } from "./records.nats.ts";

const MAX_DOCUMENTS = 500;
/** Without progress for so long an index has no worker any more, milliseconds (X2). */
const SILENCE_MS = 60_000;
const DOCUMENT_MS = 20_000;
const { subject, worker } = routesOf(MemoryServiceDefinition).addKnowledge;

interface Document {
  readonly title: string;
  readonly content: string;
}

export interface IndexPorts {
  readonly caller: Caller;
  readonly records: Records;
  readonly tell: Tell;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

export class Indexes {
  readonly #ports: IndexPorts;
  readonly #running = new Set<Promise<void>>();
  #stopping = false;

  constructor(ports: IndexPorts) {
    this.#ports = ports;
  }

  async start(request: ControlRequest, project_id: string): Promise<Index> {
    const { records, now } = this.#ports;
    const documents = optionalList(request.body, "documents", MAX_DOCUMENTS).map(documentIn);
    if (documents.length === 0) throw missing("documents");
    const { value, fresh } = await records.make("index", request, (index_id) => ({
      index_id,
      project_id,
      status: "running",
      documents: documents.length,
      indexed: 0,
      started_at_ms: now(),
      updated_at_ms: now(),
    }));
    if (fresh) {
      const work = this.#run(request, value, documents).finally(() => this.#running.delete(work));
      this.#running.add(work);
    }
    return value;
  }

  /** X2. */
  async status(tenant: string, id: string): Promise<Index> {
    const { records, now } = this.#ports;
    const index = await records.get("index", tenant, id);
    if (index.status !== "running" || now() - index.updated_at_ms < SILENCE_MS) return index;
    return this.#end(tenant, id, "failed", "the worker that indexed is gone; start it again with another key");
  }

  cancel(tenant: string, id: string): Promise<Index> {
    return this.#end(tenant, id, "cancelled");
  }

  /** Cancels what runs for a project. */
  async cancelOf(tenant: string, projectId: string): Promise<void> {
    for (const { index_id, project_id, status } of await this.#ports.records.list("index", tenant))
      if (project_id === projectId && status === "running") await this.cancel(tenant, index_id);
  }

  /** Ends what runs here as failed: it is said, not left to be noticed. */
  async drain(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#running);
  }

  /** X1. Never rejects. */
  async #run({ tenant, traceId, call }: ControlRequest, index: Index, documents: readonly Document[]): Promise<void> {
    const { caller, records, tell, now } = this.#ports;
    const { index_id, project_id } = index;
    try {
      for (const document of documents) {
        if (this.#stopping) throw new BeamlineError("unavailable", "the worker that indexed was stopped");
        const entry = { ...document, source: `project:${project_id}`, tags: [`project:${project_id}`] };
        const headers = { [header.tenantId]: tenant, [header.traceparent]: call.traceparent };
        await caller.request(subject, entry, { timeoutMs: DOCUMENT_MS, headers, worker });
        const { status, indexed } = await records.change("index", tenant, index_id, (one) =>
          one.status === "running" ? { ...one, indexed: one.indexed + 1, updated_at_ms: now() } : one,
        );
        if (status !== "running") return;
        tell(tenant, "index.progress", { index_id, project_id, indexed, documents: documents.length }, traceId);
      }
      tell(tenant, "index.finished", await this.#end(tenant, index_id, "completed"), traceId);
    } catch (thrown) {
      const { message } = BeamlineError.from(thrown);
      // When even this fails, X2.
      const failed = await this.#end(tenant, index_id, "failed", message).catch(() => undefined);
      if (failed !== undefined) tell(tenant, "index.finished", failed, traceId);
    }
  }

  #end(tenant: string, id: string, status: Index["status"], error?: string): Promise<Index> {
    return this.#ports.records.change("index", tenant, id, (one) =>
      one.status === "running"
        ? { ...one, status, updated_at_ms: this.#ports.now(), ...(error !== undefined && { error }) }
        : one,
    );
  }
}

function documentIn(given: unknown, at: number): Document {
  const path = `documents[${at}]`;
  if (!isObject(given)) throw malformed(path, "must be an object");
  const title = optionalText(given, "title", `${path}.title`, 255) ?? neededText(given, "id", `${path}.id`, 255);
  return { title, content: neededText(given, "text", `${path}.text`, 1_000_000) };
}
