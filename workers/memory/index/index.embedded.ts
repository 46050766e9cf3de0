/**
 * The embedded index: one SQLite file with sqlite-vec and FTS5, in a thread of its own. Exact: every vector of the tenant is looked at.
 *
 * Each memory worker has its own, in its own data directory, which it enforces: the file is locked as long as it is open, and the lock goes with the process.
 */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Candidate, Index } from "../ports.ts";
import { Thread } from "./thread.ts";

export interface EmbeddedOptions {
  readonly file: string;
  /** Of the embedding model: another model empties the index, and the log fills it again. */
  readonly model: string;
  readonly dimensions: number;
}

/** Opens or makes it. Throws `failed_precondition` when another worker has it open. */
export async function openEmbedded(options: EmbeddedOptions): Promise<Index> {
  mkdirSync(dirname(options.file), { recursive: true, mode: 0o700 });
  const thread = new Thread(new URL("./index.embedded.thread.ts", import.meta.url), "the embedded index", options);
  try {
    await thread.call("open", undefined);
  } catch (thrown) {
    await thread.close();
    throw thrown;
  }
  return {
    shared: false,
    async put(docs, signal) {
      await thread.call("put", docs, signal);
    },
    async remove(docs, signal) {
      await thread.call("remove", docs, signal);
    },
    async seqs(keys, signal) {
      return (await thread.call("seqs", keys, signal)) as number[];
    },
    async search({ signal, ...query }) {
      return (await thread.call("search", query, signal)) as Candidate[];
    },
    async newest({ signal, ...query }) {
      return (await thread.call("newest", query, signal)) as Candidate[];
    },
    async applied() {
      return (await thread.call("applied", undefined)) as number | undefined;
    },
    async begin(seq) {
      await thread.call("begin", seq);
    },
    async setApplied(seq) {
      await thread.call("setApplied", seq);
    },
    async count() {
      return (await thread.call("count", undefined)) as number;
    },
    async clear() {
      await thread.call("clear", undefined);
    },
    close: () => thread.close(),
  };
}
