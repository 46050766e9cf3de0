/**
 * The audit ledger in JetStream: one chain per tenant, on one subject, continued by whichever worker has something to say.
 *
 * A1 A chain never forks: a message is stored only when the last one on the subject is the one it continues. Who loses the race reads the
 *    new head, chains anew and tries again.
 * A2 What happens while a message is under way goes into the next one together: one write carries many rows.
 * A3 `append` resolves when the row is on the disk. While the bus is away it is tried again: what was done is not to be forgotten.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Bus } from "../../../bus/connect.ts";
import { tokenOf } from "../../../bus/keys.ts";
import { publishRetrying, retrying } from "../../../bus/retrying.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { streams } from "../../../contracts/streams.ts";
import { systemIds } from "../../../runtime/ids.ts";
import { chained, emptyChain, flaw, headOf, type Happening, type Head, type Row } from "./chain.ts";
import { isObject, lastOf, readFrom } from "../journal.ts";

interface Page {
  readonly rows: readonly Row[];
}

interface Waiting {
  readonly happening: Happening;
  readonly resolve: (row: Row) => void;
  readonly reject: (error: unknown) => void;
}

/** What filters a query; everything exact, times inclusive (RFC 3339). */
export interface AuditQuery {
  readonly agent_id?: string | undefined;
  readonly tool_name?: string | undefined;
  readonly since?: string | undefined;
  readonly until?: string | undefined;
  /** Rows given, newest first. */
  readonly limit: number;
}

export interface Verdict {
  readonly ok: boolean;
  /** Rows looked at. */
  readonly rows: number;
  readonly problem?: string;
}

const { name: STREAM } = streams.toolAudit;
/** Rows in one message. */
const MAX_ROWS = 256;
/** Bytes of rows in one message, before escaping. */
const MAX_BYTES = 1024 * 1024;
const MAX_RACES = 100;
/** A3. How long the bus may be away, milliseconds. */
const AWAY_MS = 60_000;

/** The rows of one tenant under way. */
class Chain {
  readonly waiting: Waiting[] = [];
  head: (Head & { readonly seq: number }) | undefined;
  busy = false;
  /** Settles when nothing waits any more. Never rejects. */
  draining: Promise<void> = Promise.resolve();
}

export class Ledger {
  readonly #bus: Bus;
  readonly #chains = new Map<string, Chain>();

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  /** A3. Throws `unavailable` when it could not be stored for a minute. */
  append(tenant: string, happening: Happening): Promise<Row> {
    let chain = this.#chains.get(tenant);
    if (chain === undefined) this.#chains.set(tenant, (chain = new Chain()));
    const { waiting } = chain;
    const stored = new Promise<Row>((resolve, reject) => waiting.push({ happening, resolve, reject }));
    if (!chain.busy) {
      chain.busy = true;
      chain.draining = this.#drain(tenant, chain);
    }
    return stored;
  }

  /** Resolves when nothing waits to be stored, or when the signal says so. */
  async settled(late: AbortSignal): Promise<void> {
    const busy = [...this.#chains.values()].map(({ draining }) => draining);
    const stop = Promise.withResolvers<void>();
    const onAbort = (): void => stop.resolve();
    if (late.aborted) onAbort();
    late.addEventListener("abort", onAbort, { once: true });
    await Promise.race([Promise.all(busy), stop.promise]);
    late.removeEventListener("abort", onAbort);
  }

  /** Newest first. */
  async query(tenant: string, query: AuditQuery): Promise<Row[]> {
    const end = await lastOf(this.#bus, STREAM, subjectOf(tenant), isPage);
    const found: Row[] = [];
    // Backwards in growing windows: what is asked for is nearly always near the end.
    for (let until = end?.seq ?? 0, window = 64; until > 0 && found.length < query.limit; window *= 4) {
      const from = Math.max(1, until - window + 1);
      const rows: Row[] = [];
      for await (const page of readFrom(this.#bus, STREAM, subjectOf(tenant), isPage, from)) {
        if (page.seq > until) break;
        rows.push(...(page.value?.rows ?? []));
      }
      for (const row of rows.toReversed()) if (found.length < query.limit && matches(row, query)) found.push(row);
      until = from - 1;
    }
    return found;
  }

  /** Every row, oldest first. */
  async *rows(tenant: string): AsyncGenerator<Row> {
    for await (const page of readFrom(this.#bus, STREAM, subjectOf(tenant), isPage)) yield* page.value?.rows ?? [];
  }

  /** Rows from a place in the log on, whole messages at a time; `next` is where to go on. */
  async page(
    tenant: string,
    from: number,
    limit: number,
  ): Promise<{ readonly rows: readonly Row[]; readonly next?: number }> {
    const rows: Row[] = [];
    for await (const page of readFrom(this.#bus, STREAM, subjectOf(tenant), isPage, from)) {
      rows.push(...(page.value?.rows ?? []));
      if (rows.length >= limit) return { rows, next: page.seq + 1 };
    }
    return { rows };
  }

  /**
   * Walks both chains from the beginning. An empty ledger is right. Rows taken off the end leave a chain that is right as far as it goes, so the
   * stream is asked, too: nothing is ever deleted from it.
   */
  async verify(tenant: string): Promise<Verdict> {
    let head = emptyChain;
    for await (const { seq, value } of readFrom(this.#bus, STREAM, subjectOf(tenant), isPage)) {
      if (value === undefined)
        return { ok: false, rows: head.id, problem: `message ${seq} of the stream holds no rows: it is not ours` };
      for (const row of value.rows) {
        const problem = flaw(head, row);
        if (problem !== undefined) return { ok: false, rows: head.id, problem };
        head = headOf(row);
      }
    }
    const { state } = await this.#bus.jsm.streams.info(STREAM);
    const gone = state.first_seq - 1 + (state.num_deleted ?? 0);
    if (state.last_seq > 0 && gone > 0)
      return {
        ok: false,
        rows: head.id,
        problem: `${gone} messages were deleted from the stream of all ledgers: rows at the end of this one may be missing`,
      };
    return { ok: true, rows: head.id };
  }

  async #drain(tenant: string, chain: Chain): Promise<void> {
    // One turn of the loop first, so that what happens in this tick goes together (A2).
    await new Promise((resolve) => setImmediate(resolve));
    while (chain.waiting.length > 0) {
      const batch = takeBatch(chain.waiting);
      try {
        const rows = await this.#store(tenant, chain, batch);
        batch.forEach(({ resolve }, index) => resolve(rows[index] as Row));
      } catch (thrown) {
        chain.head = undefined;
        for (const { reject } of batch) reject(thrown);
      }
    }
    chain.busy = false;
  }

  async #store(tenant: string, chain: Chain, batch: readonly Waiting[]): Promise<Row[]> {
    const subject = subjectOf(tenant);
    const until = performance.now() + AWAY_MS;
    const timeoutMs = (): number => Math.max(1, until - performance.now());
    for (let race = 1; ; race++) {
      const read = { timeoutMs: timeoutMs() };
      const start = (chain.head ??= await retrying(this.#bus, read, () => this.#readHead(tenant)));
      const rows: Row[] = [];
      let head: Head = start;
      for (const { happening } of batch) {
        const row = chained(head, happening);
        rows.push(row);
        head = headOf(row);
      }
      try {
        const { seq } = await publishRetrying(this.#bus, subject, JSON.stringify({ rows }), {
          msgId: systemIds.v7(),
          expectLastSubjectSequence: start.seq,
          timeoutMs: timeoutMs(),
        });
        chain.head = { ...head, seq };
        return rows;
      } catch (thrown) {
        chain.head = undefined;
        if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted" || race >= MAX_RACES) throw thrown;
        await pause(Math.random() * Math.min(20, race)); // A1
      }
    }
  }

  /** The end of the chain. Where somebody else wrote behind it, it goes on all the same, and whoever verifies it is told. */
  async #readHead(tenant: string): Promise<Head & { readonly seq: number }> {
    const last = await lastOf(this.#bus, STREAM, subjectOf(tenant), isPage);
    let row = last?.value?.rows.at(-1);
    if (last !== undefined && row === undefined) for await (const each of this.rows(tenant)) row = each;
    return { ...(row === undefined ? emptyChain : headOf(row)), seq: last?.seq ?? 0 };
  }
}

function isPage(value: unknown): value is Page {
  return isObject(value) && Array.isArray(value["rows"]) && value["rows"].every(isRow);
}

function isRow(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { id, hash, full_hash } = value;
  return Number.isSafeInteger(id) && typeof hash === "string" && typeof full_hash === "string";
}

function takeBatch(waiting: Waiting[]): Waiting[] {
  let bytes = 0;
  let count = 0;
  for (const { happening } of waiting) {
    bytes +=
      512 +
      (happening.input?.length ?? 0) +
      (happening.output?.length ?? 0) +
      (happening.error?.length ?? 0) +
      happening.reason.length;
    if (count > 0 && (count >= MAX_ROWS || bytes > MAX_BYTES)) break;
    count++;
  }
  return waiting.splice(0, count);
}

function matches(row: Row, { agent_id, tool_name, since, until }: AuditQuery): boolean {
  return (
    (agent_id === undefined || agent_id === "" || row.agent_id === agent_id) &&
    (tool_name === undefined || tool_name === "" || row.tool_name === tool_name) &&
    (since === undefined || since === "" || Date.parse(row.timestamp) >= Date.parse(since)) &&
    (until === undefined || until === "" || Date.parse(row.timestamp) <= Date.parse(until))
  );
}

function subjectOf(tenant: string): string {
  return `log.tools.audit.${tokenOf(tenant)}`;
}
