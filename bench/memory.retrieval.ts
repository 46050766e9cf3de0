/** How well memories are found by what they mean: a hundred paraphrased questions to a hundred memories, none of them seen before. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../runtime/clock.ts";
import { silentLogger } from "../runtime/log.ts";
import { Archive } from "../workers/memory/archive.ts";
import { openBuiltin } from "../workers/memory/embeddings/embeddings.builtin.ts";
import { openEmbedded } from "../workers/memory/index/index.embedded.ts";
import type { Embedder } from "../workers/memory/ports.ts";
import type { BenchCase, BenchContext, Row } from "./case.ts";
import { texts } from "./memory.texts.ts";

const TENANT = "bench";

/** A model that understands nothing: memories point one way, questions another, and what is left of a search is its words. */
function blind(): Embedder {
  const memories = new Set(texts.map(([memory]) => memory));
  return {
    model: "none",
    dimensions: 8,
    embed: (given) =>
      Promise.resolve(
        given.map((text) => Float32Array.of(...(memories.has(text) ? [1, 0] : [0, 1]), 0, 0, 0, 0, 0, 0)),
      ),
    close: () => Promise.resolve(),
  };
}

interface Found {
  readonly at1: number;
  readonly at5: number;
}

/** Share of the questions whose memory is first, and among the first five. */
async function recall(embedder: Embedder, folder: string): Promise<Found> {
  const index = await openEmbedded({
    file: join(folder, `${embedder.dimensions}.sqlite`),
    model: embedder.model,
    dimensions: embedder.dimensions,
  });
  const archive = new Archive(() => Promise.resolve({ embedder, index }), systemClock, silentLogger, {
    indexWaitMs: 60_000,
  });
  archive.report(undefined);
  try {
    await archive.index(
      texts.map(([text], n) => ({
        tenant: TENANT,
        collection: "knowledge",
        id: `m${n}`,
        seq: n + 1,
        at: 0,
        content: text,
        text,
        metadata: {},
      })),
    );
    let first = 0;
    let five = 0;
    for (const [n, [, question]] of texts.entries()) {
      const hits = await archive.search(TENANT, {
        query: question,
        collections: ["knowledge"],
        limit: 5,
        minRelevance: 0,
        deadline: systemClock.now() + 60_000,
      });
      const place = hits.findIndex(({ id }) => id === `m${n}`);
      if (place === 0) first++;
      if (place >= 0) five++;
    }
    return { at1: first / texts.length, at5: five / texts.length };
  } finally {
    await archive.close();
  }
}

async function retrieval(ctx: BenchContext): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), "beamline-retrieval-"));
  ctx.defer(() => rm(folder, { recursive: true, force: true }));
  ctx.say(`${texts.length} questions, by the built-in model and words`);
  const model = await recall(openBuiltin(), folder);
  ctx.say("the same by words alone");
  const words = await recall(blind(), folder);
  return [
    { measure: "recall@5, built-in model and words", value: model.at5, unit: "of 1" },
    { measure: "recall@1, built-in model and words", value: model.at1, unit: "of 1" },
    { measure: "recall@5, words alone", value: words.at5, unit: "of 1", note: "for comparison" },
    { measure: "recall@1, words alone", value: words.at1, unit: "of 1", note: "for comparison" },
  ];
}

export const cases: readonly BenchCase[] = [
  { name: "memory-retrieval", title: "Paraphrased questions that find their memory", run: retrieval },
];
