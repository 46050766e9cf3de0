/** The bare index: the same documents in an embedded index of its own, asked without anything around it. */
import { openEmbedded } from "../../workers/memory/index/index.embedded.ts";
import { wordsOf } from "../../workers/memory/index/score.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { memories, questions } from "../kit/memories.ts";
import { servePeer, setting } from "../kit/peer.ts";
import { STUB_DIMENSIONS, stubVector } from "../kit/stubvector.ts";

export interface IndexLoad {
  readonly limit: number;
  readonly inFlight: number;
  readonly count: number;
}

const index = await openEmbedded({ file: setting("BENCH_INDEX"), model: "stub", dimensions: STUB_DIMENSIONS });
const docs = memories(Number(setting("BENCH_MEMORIES"))).map(({ title, content, source }, n) => {
  const text = `[${source}] ${title}: ${content}`;
  return {
    tenant: "default",
    collection: "knowledge",
    id: `m${n}`,
    seq: n + 1,
    at: 0,
    content: text,
    text,
    metadata: {},
    vector: stubVector(text),
  };
});
for (let at = 0; at < docs.length; at += 500) await index.put(docs.slice(at, at + 500));
const queries = questions.map((question) => ({ vector: stubVector(question), words: wordsOf(question) }));

servePeer({}, ({ limit, inFlight, count }: IndexLoad): Promise<Load> =>
  runLoad(
    count,
    inFlight,
    awaited((n) =>
      index.search({
        tenant: "default",
        collections: ["knowledge"],
        limit,
        ...(queries[n % queries.length] ?? { vector: new Float32Array(STUB_DIMENSIONS), words: [] }),
      }),
    ),
  ),
);
