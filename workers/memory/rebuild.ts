/** Projections built anew from the log, with progress: `beamline rebuild memory`, and the tail of the archive. */
import type { CallContext } from "../../contracts/handlers.ts";
import { invalidArgument } from "../../contracts/errors.ts";
import { parseRequest } from "../../bus/call.ts";
import type { StreamEndpoint } from "../../bus/endpoint.ts";
import type { Archive } from "./archive.ts";
import { searchable } from "./index/document.ts";
import type { RedisHot } from "./hot/hot.redis.ts";
import type { HotBuilder } from "./hot/hotbuild.ts";
import { RECORDS } from "./record.ts";
import { batches, readable, type Progress, type Projection, type TailParts } from "./tail.ts";

/** Where a rebuild is asked for; streamed progress comes back. Not part of a contract: for the command line and operators. */
export const REBUILD_SUBJECT = "beamline.memory.v1.rebuild";
const REBUILD_TIMEOUT_MS = 24 * 60 * 60 * 1000;
const TOLD_EVERY_MS = 5_000;

export interface RebuildParts {
  readonly redisHot: RedisHot;
  readonly builder: HotBuilder;
  readonly archive: Archive;
}

export type What = "hot" | "index";

export interface RebuildProgress extends Progress {
  readonly projection: What;
}

/**
 * Empties projections and builds them from the log; calls wait meanwhile. Progress comes through `told`. Throws `unavailable` when a store
 * cannot be reached; what is unfinished goes on by itself as soon as it can.
 */
export async function rebuildMemory(
  parts: RebuildParts,
  what: readonly What[],
  told: (progress: RebuildProgress) => void,
): Promise<void> {
  const { redisHot, builder, archive } = parts;
  if (what.includes("hot")) {
    await redisHot.clear();
    await builder.build((progress) => told({ projection: "hot", ...progress }));
  }
  if (what.includes("index")) await archive.rebuild((progress) => told({ projection: "index", ...progress }));
}

/** The rebuild as an endpoint: `{"what": ["hot", "index"]}`, both without it. */
export function rebuildEndpoint(parts: RebuildParts): StreamEndpoint {
  return {
    kind: "stream",
    subject: REBUILD_SUBJECT,
    name: "memory-rebuild",
    dialect: "aios",
    timeoutMs: REBUILD_TIMEOUT_MS,
    async *stream(text: string, _context: CallContext) {
      const { what = ["hot", "index"] } = parseRequest(text) as { what?: What[] };
      if (!Array.isArray(what) || !what.every((one) => one === "hot" || one === "index"))
        throw invalidArgument("what", "must be a list of hot and index");
      const waiting: RebuildProgress[] = [];
      let wake = (): void => undefined;
      let over = false;
      let failure: unknown;
      void rebuildMemory(parts, what, (progress) => {
        // Only the newest of a projection is worth sending to a slow reader.
        if (waiting.at(-1)?.projection === progress.projection) waiting.pop();
        waiting.push(progress);
        wake();
      }).then(
        () => {
          over = true;
          wake();
        },
        (error: unknown) => {
          over = true;
          failure = error;
          wake();
        },
      );
      for (;;) {
        const next = waiting.shift();
        if (next !== undefined) yield JSON.stringify(next);
        else if (over) break;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
      if (failure !== undefined) throw failure;
      yield JSON.stringify({ done: true });
    },
  };
}

/** What the tail of the log does with the archive. */
export function archiveProjection(archive: Archive, { log, clock, logger, bury }: TailParts): Projection {
  const name = "the search index";
  const subjects = searchable.map((kind) => `${RECORDS}.*.${kind}.>`);
  let toldAt = 0;
  const report = (progress: Progress | undefined): void => {
    archive.report(progress);
    if (progress === undefined || progress.done === 0 || clock.monotonic() - toldAt < TOLD_EVERY_MS) return;
    toldAt = clock.monotonic();
    logger.info("memories are being indexed", { ...progress });
  };
  return {
    name,
    subjects,
    renewed: () => archive.renewed,
    watch: archive.current,
    async applied() {
      const { index } = await archive.cleared();
      return index.applied();
    },
    async build() {
      const renewed = archive.renewed;
      const { last } = await log.bounds("MEMORY");
      let done = 0;
      archive.report({ done, total: last });
      for await (const batch of batches(log.read({ stream: "MEMORY", subjects, latest: true, signal: renewed }))) {
        await archive.apply(
          await readable(
            batch,
            (entry) => log.record(entry),
            (entry, error) => bury(name, entry, error),
          ),
        );
        done += batch.length;
        report({ done, total: done + (batch.at(-1)?.pending ?? 0) });
      }
      const { index } = await archive.shelf();
      if (renewed.aborted) return; // it has been emptied meanwhile, and the tail begins anew
      await index.begin(last);
      archive.passed(last);
    },
    async empty() {
      const { index } = await archive.cleared();
      await index.clear();
    },
    async apply(entries, signal) {
      await archive.apply(await Promise.all(entries.map((entry) => log.record(entry))), signal);
    },
    async setApplied(seq) {
      await (await archive.shelf()).index.setApplied(seq);
      archive.passed(seq);
    },
    report,
  };
}
