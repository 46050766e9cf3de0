/**
 * Writing long-term memory: procedures, incidents, config changes, knowledge (aiOS, memory, long-term tier and knowledge base).
 *
 * A write is accepted when the log has it; search sees it at once, or when the index is back (archive.ts, A1). Writing what is there
 * already stores nothing.
 */
import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { JsonObject } from "../../contracts/codec.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Archive } from "./archive.ts";
import type { MemoryLog } from "./log.ts";
import type { Kind, Logged } from "./record.ts";
import { refusedDuplicate, type Writer } from "./working.ts";

export class LongTerm {
  readonly archive: Archive;
  readonly #log: MemoryLog;
  readonly #clock: Clock;

  constructor(archive: Archive, log: MemoryLog, clock: Clock) {
    this.archive = archive;
    this.#log = log;
    this.#clock = clock;
  }

  /** Keeps a thing, replacing what has its id. Answers the record, whether its id is a new one, and whether search finds it already. */
  async put(
    writer: Writer,
    kind: Kind,
    id: string,
    state: JsonObject,
  ): Promise<{ readonly record: Logged; readonly fresh: boolean; readonly indexed: boolean }> {
    const known = await this.#log.last(writer.tenant, kind, id);
    const same = known?.state !== undefined && isDeepStrictEqual(known.state, state);
    const record = same ? known : await this.#append(writer, kind, id, state, known?.born, undefined);
    return { record, fresh: known === undefined, indexed: await this.archive.put(record, !same) };
  }

  /** What the log has of a thing, undefined when it has never heard of it. */
  last(tenant: string, kind: Kind, id: string): Promise<Logged | undefined> {
    return this.#log.last(tenant, kind, id);
  }

  /** Keeps a thing that must be new. Throws `already_exists` for an id the log knows. */
  async insert(writer: Writer, kind: Kind, id: string, state: JsonObject): Promise<void> {
    try {
      await this.archive.put(await this.#append(writer, kind, id, state, undefined, 0));
    } catch (thrown) {
      throw refusedDuplicate(thrown, kind, id);
    }
  }

  async #append(
    writer: Writer,
    kind: Kind,
    id: string,
    state: JsonObject,
    born: number | undefined,
    expect: number | undefined,
  ): Promise<Logged> {
    const { tenant, by, task, trace, key, signal } = writer;
    const record = {
      tenant,
      kind,
      id,
      by,
      task,
      trace,
      at: this.#clock.now(),
      born: born ?? this.#clock.micros(),
      state,
    };
    const msgId = key === "" ? undefined : `memory:${tenant}:${kind}:${id}:${key}`;
    const stored = await this.#log.append(record, { expect, msgId, signal });
    return stored.duplicate ? ((await this.#log.last(tenant, kind, id)) ?? stored) : stored;
  }
}

/** The id of a piece of knowledge: its title and source, so that the same again replaces (aiOS, memory, knowledge base). */
export function knowledgeId(title: string, source: string): string {
  return `k-${createHash("sha256").update(`${title}\u0000${source}`).digest("hex").slice(0, 24)}`;
}
