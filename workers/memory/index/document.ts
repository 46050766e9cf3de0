/** What of a record search finds: its collection, its text, and what a hit tells about itself (aiOS, memory, semantic search). */
import type { JsonObject } from "../../../contracts/codec.ts";
import type { Doc } from "../ports.ts";
import type { Kind, Logged } from "../record.ts";

/** Collections of long-term memory, by the kind of record they hold. */
export const collections: Readonly<Partial<Record<Kind, string>>> = {
  decision: "decisions",
  incident: "incidents",
  procedure: "procedures",
  config_change: "config_changes",
  knowledge: "knowledge",
};

export const collectionNames: readonly string[] = Object.values(collections);

/** Kinds whose records are documents. */
export const searchable = Object.keys(collections) as readonly Kind[];

interface Shown {
  readonly content: string;
  /** Searched besides the content. */
  readonly more?: string;
  /** The contract's own moment, seconds. */
  readonly timestamp: unknown;
  readonly facts: JsonObject;
}

const shown: Readonly<Partial<Record<Kind, (state: JsonObject) => Shown>>> = {
  procedure: (state) => ({
    content: `${text(state, "name")}: ${text(state, "description")}`,
    more: tags(state).join(" "),
    timestamp: state["last_used"] ?? state["created_at"],
    facts: {
      name: text(state, "name"),
      tags: tags(state),
      success_count: state["success_count"] ?? 0,
      fail_count: state["fail_count"] ?? 0,
    },
  }),
  incident: (state) => ({
    content: `${text(state, "description")} | Cause: ${text(state, "root_cause")} | Resolution: ${text(state, "resolution")}`,
    timestamp: state["timestamp"],
    facts: { source: text(state, "resolved_by"), prevention: text(state, "prevention") },
  }),
  config_change: (state) => ({
    content: `${text(state, "file_path")}: ${text(state, "reason")}`,
    timestamp: state["timestamp"],
    facts: { source: text(state, "changed_by"), file_path: text(state, "file_path") },
  }),
  decision: (state) => ({
    content: `${text(state, "context")} | Chosen: ${text(state, "chosen")} | Because: ${text(state, "reasoning")}`,
    timestamp: state["timestamp"],
    facts: {
      chosen: text(state, "chosen"),
      outcome: text(state, "outcome"),
      intelligence_level: text(state, "intelligence_level"),
      model_used: text(state, "model_used"),
    },
  }),
  knowledge: (state) => ({
    content: `[${text(state, "source")}] ${text(state, "title")}: ${text(state, "content")}`,
    more: tags(state).join(" "),
    timestamp: undefined,
    facts: { source: text(state, "source"), title: text(state, "title"), tags: tags(state) },
  }),
};

/** The document of a record; undefined for one that search does not find. */
export function docOf(record: Logged): Doc | undefined {
  const { tenant, kind, id, seq, at, born, by, task, trace, state } = record;
  const collection = collections[kind];
  if (collection === undefined || state === undefined) return undefined;
  const of = shown[kind];
  if (of === undefined) return undefined;
  const { content, more = "", timestamp, facts } = of(state);
  const told = Object.entries(facts).filter(
    ([, value]) => value !== "" && !(Array.isArray(value) && value.length === 0),
  );
  const metadata: JsonObject = {
    id,
    collection,
    ...Object.fromEntries(told),
    timestamp: timestamp ?? Math.floor(born / 1_000_000),
    // Provenance: who wrote it, when, as part of what.
    stored_at: Math.floor(at / 1000),
    ...(by !== "" && { stored_by: by }),
    ...(task !== "" && { task_id: task }),
    ...(trace !== "" && { trace_id: trace }),
  };
  return { tenant, collection, id, seq, at, content, text: more === "" ? content : `${content} ${more}`, metadata };
}

function text(state: JsonObject, field: string): string {
  const value = state[field];
  return typeof value === "string" ? value : "";
}

function tags(state: JsonObject): string[] {
  const value = state["tags"];
  return Array.isArray(value) ? value.filter((tag) => typeof tag === "string") : [];
}
