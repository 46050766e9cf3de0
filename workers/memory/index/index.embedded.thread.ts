/**
 * The thread of the embedded index: the only place that speaks SQL.
 *
 * E1 The connection holds the file's exclusive lock from open to close: a second worker is refused, a killed one leaves nothing behind.
 * E2 A call is one transaction. The watermark is in the same file, so a power cut takes back both or neither, and the log brings the rest.
 * E3 A file that is damaged is removed: found when it is opened, another one is made at once; found later, the call fails with
 *    `details.gone`, and the index has to be opened again.
 * E4 A file that cannot be written, its disk being full above all, is as it was: reads go on, and writes as soon as they can.
 */
import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { DatabaseSync } from "node:sqlite";
import { load } from "sqlite-vec";
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { EmbeddedOptions } from "./index.embedded.ts";
import type { Candidate, DocKey, Query, Vectored } from "../ports.ts";
import { answerCalls } from "./thread.ts";

const { file, model, dimensions } = workerData as EmbeddedOptions;

/** Most neighbours sqlite-vec looks for at once. */
const MAX_NEIGHBOURS = 4_096;
/** Vectors stored next to one another per tenant: small, so that many small tenants take little room. */
const CHUNK = 128;
const LAYOUT = "1";

let opened: DatabaseSync | undefined;
let removed = false;

function db(): DatabaseSync {
  if (removed) throw gone();
  return (opened ??= openOrRemake());
}

/** E3. */
function openOrRemake(): DatabaseSync {
  try {
    return open();
  } catch (thrown) {
    if (!isDamage(thrown)) throw thrown;
    removeFile();
    return open();
  }
}

/** SQLite's codes for a file that is no database, or is one no longer; sqlite-vec says only that something went wrong. */
function isDamage(thrown: unknown): boolean {
  const code = (thrown as { errcode?: unknown } | null)?.errcode;
  if (typeof code !== "number") return false;
  return [11, 26].includes(code & 0xff) || (code === 1 && opened !== undefined && !isWhole(opened));
}

function isWhole(on: DatabaseSync): boolean {
  try {
    return on.prepare("PRAGMA quick_check(1)").get()?.["quick_check"] === "ok";
  } catch {
    return false;
  }
}

function removeFile(): void {
  for (const end of ["", "-wal", "-shm"]) rmSync(`${file}${end}`, { force: true });
}

function unusable(cause: unknown): BeamlineError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new BeamlineError("unavailable", `the embedded index ${file} cannot be used now: ${why}`, { cause });
}

function gone(): BeamlineError {
  return new BeamlineError("unavailable", `the embedded index ${file} was damaged; it is made again from the log`, {
    details: { gone: true },
  });
}

/** SQLite's codes for a disk that is full, and for one that does not do what it is told (E4). */
function isOfDisk(thrown: unknown): boolean {
  const code = (thrown as { errcode?: unknown } | null)?.errcode;
  return typeof code === "number" && [10, 13].includes(code & 0xff);
}

/** A method that finds the file damaged removes it (E3). */
function watched<A, T>(run: (argument: A) => T): (argument: A) => T {
  return (argument) => {
    try {
      return run(argument);
    } catch (thrown) {
      if (isOfDisk(thrown)) throw unusable(thrown);
      if (!isDamage(thrown)) throw thrown;
      opened?.close();
      opened = undefined;
      removeFile();
      removed = true;
      throw gone();
    }
  };
}

function open(): DatabaseSync {
  const made = new DatabaseSync(file, { allowExtension: true });
  try {
    load(made);
    made.exec(
      "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536",
    );
    made.exec("BEGIN EXCLUSIVE; CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL); COMMIT"); // E1
    const space = `${LAYOUT}:${model}:${dimensions}`;
    if (meta(made, "space") !== space) rebuildTables(made, space);
    return made;
  } catch (thrown) {
    made.close();
    if (thrown instanceof Error && /locked|busy/i.test(thrown.message)) {
      throw new BeamlineError(
        "failed_precondition",
        `the embedded index ${file} is in use by another memory worker: give each its own BEAMLINE_DATA_DIR, or all of them one QDRANT_URL`,
      );
    }
    throw thrown;
  }
}

function rebuildTables(made: DatabaseSync, space: string): void {
  transaction(made, () => {
    made.exec(`
    DROP TABLE IF EXISTS doc; DROP TABLE IF EXISTS vec; DROP TABLE IF EXISTS words; DELETE FROM meta;
    CREATE TABLE doc (
      row INTEGER PRIMARY KEY, tenant TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
      content TEXT NOT NULL, text TEXT NOT NULL, metadata TEXT NOT NULL, UNIQUE (tenant, collection, id)
    );
    CREATE INDEX doc_newest ON doc (tenant, collection, seq);
    CREATE VIRTUAL TABLE vec USING vec0(
      tenant TEXT PARTITION KEY, collection TEXT, embedding FLOAT[${dimensions}] distance_metric=cosine, chunk_size=${CHUNK}
    );
    CREATE VIRTUAL TABLE words USING fts5(scope, text, content='', contentless_delete=1, tokenize="unicode61 remove_diacritics 2");
  `);
    setMeta(made, "space", space);
  });
}

function meta(made: DatabaseSync, name: string): string | undefined {
  return (made.prepare("SELECT value FROM meta WHERE name = ?").get(name) as { value: string } | undefined)?.value;
}

function setMeta(made: DatabaseSync, name: string, value: string): void {
  made.prepare("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value").run(name, value);
}

function transaction(on: DatabaseSync, run: (on: DatabaseSync) => void): void {
  on.exec("BEGIN");
  try {
    run(on);
    on.exec("COMMIT");
  } catch (thrown) {
    if (on.isTransaction) on.exec("ROLLBACK"); // some failures have done so
    throw thrown;
  }
}

/** A tenant's collection as one word of the full-text table, so that its filter is part of the search. */
function scope(tenant: string, collection: string): string {
  return `s${createHash("sha256").update(`${tenant}\u0000${collection}`).digest("hex").slice(0, 32)}`;
}

interface Row {
  readonly row: number;
  readonly seq: number;
}

function find(on: DatabaseSync, { tenant, collection, id }: DocKey): Row | undefined {
  return on
    .prepare("SELECT row, seq FROM doc WHERE tenant = ? AND collection = ? AND id = ?")
    .get(tenant, collection, id) as Row | undefined;
}

function take(on: DatabaseSync, row: number): void {
  for (const table of ["doc WHERE row", "vec WHERE rowid", "words WHERE rowid"])
    on.prepare(`DELETE FROM ${table} = ?`).run(BigInt(row));
}

function put(docs: readonly Vectored[]): void {
  transaction(db(), (on) => {
    const insert = on.prepare(
      "INSERT INTO doc (tenant, collection, id, seq, at, content, text, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    );
    const vector = on.prepare("INSERT INTO vec (rowid, tenant, collection, embedding) VALUES (?, ?, ?, ?)");
    const words = on.prepare("INSERT INTO words (rowid, scope, text) VALUES (?, ?, ?)");
    for (const doc of docs) {
      const { tenant, collection, id, seq, at, content, text, metadata } = doc;
      if (doc.vector.length !== dimensions) {
        throw new BeamlineError(
          "failed_precondition",
          `a vector has ${doc.vector.length} dimensions, the index ${dimensions}`,
        );
      }
      const old = find(on, doc);
      if (old !== undefined && old.seq >= seq) continue;
      if (old !== undefined) take(on, old.row);
      const { lastInsertRowid } = insert.run(tenant, collection, id, seq, at, content, text, JSON.stringify(metadata));
      const row = BigInt(lastInsertRowid);
      vector.run(row, tenant, collection, doc.vector);
      words.run(row, scope(tenant, collection), text);
    }
  });
}

interface DocRow {
  readonly row: number;
  readonly tenant: string;
  readonly collection: string;
  readonly id: string;
  readonly seq: number;
  readonly at: number;
  readonly content: string;
  readonly text: string;
  readonly metadata: string;
}

function candidate({ row: _row, metadata, ...doc }: DocRow, cosine: number): Candidate {
  return { ...doc, metadata: JSON.parse(metadata) as JsonObject, cosine };
}

const marks = (things: readonly unknown[]): string => things.map(() => "?").join(", ");

function search({ tenant, collections, vector, words, limit: wanted }: Query): Candidate[] {
  const limit = Math.min(wanted, MAX_NEIGHBOURS);
  const on = db();
  if (collections.length === 0) return [];
  // A tenant and a text column per filter, pushed down into the scan: only the tenant's own vectors are looked at.
  const near = on
    .prepare(
      `SELECT rowid AS row FROM vec WHERE embedding MATCH ? AND k = ? AND tenant = ? AND collection IN (${marks(collections)})`,
    )
    .all(vector, limit, tenant, ...collections) as unknown as { row: number }[];
  const rows = new Set(near.map(({ row }) => row));
  if (words.length > 0) {
    const scopes = collections.map((collection) => scope(tenant, collection)).join(" OR ");
    // In quotes nothing is a command; a zero would end the text of the query, quotes or not.
    const wanted = words.map((word) => `"${word.replaceAll("\0", " ").replaceAll('"', '""')}"*`).join(" OR ");
    const found = on
      .prepare("SELECT rowid AS row FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?")
      .all(`scope:(${scopes}) AND text:(${wanted})`, limit) as unknown as { row: number }[];
    for (const { row } of found) rows.add(row);
  }
  if (rows.size === 0) return [];
  const all = [...rows];
  const distances = on
    .prepare(
      `SELECT rowid AS row, vec_distance_cosine(embedding, ?) AS distance FROM vec WHERE rowid IN (${marks(all)})`,
    )
    .all(vector, ...all) as unknown as { row: number; distance: number | null }[];
  const cosines = new Map(distances.map(({ row, distance }) => [row, distance === null ? 0 : 1 - distance]));
  const docs = on
    .prepare(`SELECT * FROM doc WHERE row IN (${marks(all)}) AND tenant = ?`)
    .all(...all, tenant) as unknown as DocRow[];
  return docs.map((doc) => candidate(doc, cosines.get(doc.row) ?? 0));
}

answerCalls({
  open: () => void db(),
  put: watched(put),
  remove: watched((docs: readonly (DocKey & { readonly seq: number })[]) => {
    transaction(db(), (on) => {
      for (const doc of docs) {
        const old = find(on, doc);
        if (old !== undefined && old.seq < doc.seq) take(on, old.row);
      }
    });
  }),
  seqs: watched((keys: readonly DocKey[]) => keys.map((key) => find(db(), key)?.seq ?? 0)),
  search: watched(search),
  newest: watched(({ tenant, collections, limit }: Pick<Query, "tenant" | "collections" | "limit">) => {
    if (collections.length === 0) return [];
    const rows = db()
      .prepare(`SELECT * FROM doc WHERE tenant = ? AND collection IN (${marks(collections)}) ORDER BY seq DESC LIMIT ?`)
      .all(tenant, ...collections, limit) as unknown as DocRow[];
    return rows.map((row) => candidate(row, 0));
  }),
  applied: watched(() => {
    const text = meta(db(), "applied");
    return text === undefined ? undefined : Number(text);
  }),
  begin: watched((seq: number) => setMeta(db(), "applied", String(seq))),
  setApplied: watched((seq: number) => {
    db().prepare("UPDATE meta SET value = ? WHERE name = 'applied'").run(String(seq));
  }),
  count: watched(() => (db().prepare("SELECT count(*) AS n FROM doc").get() as { n: number }).n),
  clear: watched(() => {
    rebuildTables(db(), meta(db(), "space") ?? "");
  }),
  close() {
    opened?.close();
    opened = undefined;
  },
});
