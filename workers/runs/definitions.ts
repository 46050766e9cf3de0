/**
 * Workflows as they are stored: each version for good under its digest, and by id which digest is current. A run keeps the digest it
 * started with.
 */
import { createHash } from "node:crypto";
import { BeamlineError } from "../../contracts/errors.ts";
import { canonicalJson } from "../../contracts/openwop/json.ts";
import type { WorkflowDefinition } from "../../contracts/openwop/workflow.ts";
import { graphOf, type Graph } from "./engine/graph.ts";
import type { Records } from "./records.ts";

/** Workflows of everybody: fixtures, and what a file at start brings. */
export const SHARED_TENANT = "*";

/** Which version is current. */
export interface Current {
  readonly id: string;
  readonly tenant: string;
  readonly digest: string;
  readonly version: string;
  readonly name: string;
  readonly updatedAt: string;
  /** Digests before, newest first. */
  readonly history: readonly { readonly digest: string; readonly version: string }[];
}

const CACHED = 2_000;
/** How long a lookup by id is believed when no other worker says that something was registered, milliseconds. */
const FRESH_MS = 1_000;
const HISTORY = 50;

export class Definitions {
  readonly #versions: Records<WorkflowDefinition>;
  readonly #current: Records<Current>;
  readonly #graphs = new Map<string, Graph>();
  readonly #lookups = new Map<string, { readonly until: number; readonly found: Current | undefined }>();
  readonly #tell: () => void;
  /** Counts what was forgotten: a lookup that was under way meanwhile is not kept. */
  #forgotten = 0;

  /** @param tell has the other workers forget their lookups; who hears of it afterwards from anybody finds them forgotten */
  constructor(versions: Records<WorkflowDefinition>, current: Records<Current>, tell: () => void = () => undefined) {
    this.#versions = versions;
    this.#current = current;
    this.#tell = tell;
  }

  /** Something was registered: looks again. */
  forget(): void {
    this.#forgotten++;
    this.#lookups.clear();
  }

  /** Stores a checked definition and makes it the current one. Storing the same again changes nothing. */
  async register(
    tenant: string,
    definition: WorkflowDefinition,
    now: string,
  ): Promise<{ readonly current: Current; readonly changed: boolean }> {
    const digest = createHash("sha256").update(canonicalJson(definition)).digest("hex");
    for (;;) {
      const before = await this.#current.get(tenant, definition.id);
      if (before?.value.digest === digest) return { current: before.value, changed: false };
      await this.#versions.put([digest], definition);
      const history =
        before === undefined
          ? []
          : [{ digest: before.value.digest, version: before.value.version }, ...before.value.history].slice(0, HISTORY);
      const current = {
        id: definition.id,
        tenant,
        digest,
        version: definition.version,
        name: definition.name,
        updatedAt: now,
        history,
      };
      if ((await this.#current.swap([tenant, definition.id], current, before?.revision ?? 0)) === undefined) continue;
      this.forget();
      this.#tell();
      return { current, changed: true };
    }
  }

  /** The current version a tenant sees: its own, else a shared one. Undefined when there is neither. */
  async current(tenant: string, id: string): Promise<Current | undefined> {
    const key = `${tenant}\0${id}`;
    const known = this.#lookups.get(key);
    if (known !== undefined && known.until > performance.now()) return known.found;
    const before = this.#forgotten;
    const found = (await this.#current.get(tenant, id))?.value ?? (await this.#current.get(SHARED_TENANT, id))?.value;
    if (this.#lookups.size >= CACHED) this.#lookups.clear();
    // What is not there is looked for again: it may be registered by another process right now.
    if (found !== undefined && before === this.#forgotten)
      this.#lookups.set(key, { until: performance.now() + FRESH_MS, found });
    return found;
  }

  /** The graph of a stored version. Throws `data_loss` when it is gone. */
  async graph(digest: string): Promise<Graph> {
    let graph = this.#graphs.get(digest);
    if (graph === undefined) {
      const kept = await this.#versions.get(digest);
      if (kept === undefined) throw new BeamlineError("data_loss", "the workflow definition of the run is gone");
      graph = graphOf(kept.value);
      if (this.#graphs.size >= CACHED) this.#graphs.clear();
      this.#graphs.set(digest, graph);
    }
    return graph;
  }

  /** All current workflows a tenant sees, by id. */
  async list(tenant: string): Promise<Current[]> {
    const [own, shared] = await Promise.all([this.#current.list(tenant), this.#current.list(SHARED_TENANT)]);
    const byId = new Map([...shared, ...own].map(({ value }) => [value.id, value]));
    return [...byId.values()].toSorted((a, b) => a.id.localeCompare(b.id));
  }
}
