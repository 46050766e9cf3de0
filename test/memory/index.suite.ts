/** What every index must do, the same lines for each adapter. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createSeededRandom } from "../../runtime/ids.ts";
import type { Index, Vectored } from "../../workers/memory/ports.ts";
import { cosine, unit } from "../../workers/memory/index/score.ts";

export const DIMENSIONS = 32;
export const MODEL = "suite-model";

const random = createSeededRandom(7);
export const vector = (): Float32Array => unit(Array.from({ length: DIMENSIONS }, () => random.float() - 0.5));

export function doc(tenant: string, id: string, more: Partial<Vectored> = {}): Vectored {
  const text = more.text ?? `text of ${id}`;
  return {
    tenant,
    collection: "knowledge",
    id,
    seq: 1,
    at: 1_000,
    content: `content of ${id}`,
    text,
    metadata: { n: 1 },
    vector: vector(),
    ...more,
  };
}

/** @param open opens the adapter on what it kept before; called again to see what stays */
export function indexSuite(name: string, open: () => Promise<Index>): void {
  describe(name, () => {
    let index: Index;
    beforeAll(async () => {
      index = await open();
      await index.clear();
      await index.begin(0);
    }, 30_000);
    afterAll(async () => {
      await index.clear();
      await index.close();
    });

    test("what is put is found, as it was put, with the cosine of its vector", async () => {
      const one = doc("t-put", "a", { metadata: { tags: ["x", "y"], nested: { n: null } }, content: "naïve 多 🚀" });
      await index.put([one]);
      const query = vector();
      const [hit] = await index.search({
        tenant: "t-put",
        collections: ["knowledge"],
        vector: query,
        words: [],
        limit: 5,
      });
      expect(hit).toMatchObject({
        tenant: "t-put",
        collection: "knowledge",
        id: "a",
        seq: 1,
        at: 1_000,
        content: "naïve 多 🚀",
        metadata: one.metadata,
      });
      expect(hit?.cosine).toBeCloseTo(cosine(query, one.vector), 4);
    });

    test("the same key replaces, vector and words too; an older sequence does not", async () => {
      const old = doc("t-replace", "a", { text: "walrus", seq: 5 });
      const fresh = doc("t-replace", "a", { text: "penguin", seq: 9, content: "fresh" });
      await index.put([old]);
      await index.put([fresh]);
      await index.put([{ ...old, seq: 7 }]);
      const ask = (words: string[], of = old.vector) =>
        index.search({ tenant: "t-replace", collections: ["knowledge"], vector: of, words, limit: 5 });
      expect((await ask(["walrus"])).map(({ content, seq }) => [content, seq])).toEqual([["fresh", 9]]);
      const [hit] = await ask(["penguin"], fresh.vector);
      expect(hit?.cosine).toBeCloseTo(1, 4);
      expect(await index.seqs([old, { ...old, id: "unknown" }])).toEqual([9, 0]);
    });

    test("every row is searched: the nearest of hundreds are the ones a full comparison finds", async () => {
      const docs = Array.from({ length: 400 }, (_, n) =>
        doc("t-exact", `d${n}`, { collection: n % 2 === 0 ? "even" : "odd", seq: n + 1 }),
      );
      await index.put(docs);
      for (const collections of [["even"], ["odd"], ["even", "odd"]]) {
        const query = vector();
        const want = docs
          .filter(({ collection }) => collections.includes(collection))
          .toSorted((a, b) => cosine(query, b.vector) - cosine(query, a.vector))
          .slice(0, 10)
          .map(({ id }) => id);
        const found = await index.search({ tenant: "t-exact", collections, vector: query, words: [], limit: 10 });
        expect(found.toSorted((a, b) => b.cosine - a.cosine).map(({ id }) => id)).toEqual(want);
      }
    });

    test("a text that has the words is a candidate however far its vector is, with its true cosine", async () => {
      const near = Array.from({ length: 30 }, (_, n) => doc("t-words", `near${n}`, { text: "something else" }));
      const far = doc("t-words", "far", {
        text: "The error is ENOSPC: no space left.",
        vector: unit(Array.from({ length: DIMENSIONS }, () => -1)),
      });
      await index.put([...near, far]);
      const query = unit(Array.from({ length: DIMENSIONS }, () => 1));
      const found = await index.search({
        tenant: "t-words",
        collections: ["knowledge"],
        vector: query,
        words: ["enospc"],
        limit: 5,
      });
      expect(found.find(({ id }) => id === "far")?.cosine).toBeCloseTo(-1, 4);
    });

    test("words of any kind are words, never commands", async () => {
      await index.put([doc("t-syntax", "a", { text: 'say "hello" AND (NOT) text:* ^ - NEAR/2 it\'s 100% c++ {x}' })]);
      for (const word of [
        '"',
        "hello*",
        "text:x",
        "(",
        "not",
        "near",
        "c++",
        "100%",
        "it's",
        "a-b",
        "{x}",
        "*",
        "-",
        "^a",
        "a\u0000b",
        "\u{1E900}",
        "多",
      ]) {
        await index.search({
          tenant: "t-syntax",
          collections: ["knowledge"],
          vector: vector(),
          words: [word],
          limit: 5,
        });
      }
    });

    test("a tenant and a collection never show what belongs to another", async () => {
      const shared = { text: "shared secret", vector: vector() };
      await index.put([
        doc("t-wall", "a", shared),
        doc("t-wall'--", "b", shared),
        doc("t-wall", "c", { ...shared, collection: "incidents" }),
      ]);
      const ask = async (tenant: string, collections: string[]) =>
        (await index.search({ tenant, collections, vector: shared.vector, words: ["secret"], limit: 50 }))
          .map(({ id }) => id)
          .sort();
      expect(await ask("t-wall", ["knowledge"])).toEqual(["a"]);
      expect(await ask("t-wall'--", ["knowledge", "incidents"])).toEqual(["b"]);
      expect(await ask("t-wall", ["incidents", "knowledge"])).toEqual(["a", "c"]);
      expect(await ask("t-wall", [])).toEqual([]);
      expect(await ask("t-wal", ["knowledge"])).toEqual([]);
      expect(await ask("' OR 1=1 --", ["knowledge"])).toEqual([]);
      expect(
        (await index.newest({ tenant: "t-wall'--", collections: ["knowledge"], limit: 50 })).map(({ id }) => id),
      ).toEqual(["b"]);
    });

    test("the newest come newest first", async () => {
      await index.put([3, 1, 2].map((seq) => doc("t-newest", `s${seq}`, { seq })));
      const found = await index.newest({ tenant: "t-newest", collections: ["knowledge"], limit: 2 });
      expect(found.map(({ id }) => id)).toEqual(["s3", "s2"]);
    });

    test("what is removed is gone, unless it is newer than the removal", async () => {
      await index.put([doc("t-remove", "old", { seq: 4 }), doc("t-remove", "new", { seq: 8 })]);
      await index.remove([
        { tenant: "t-remove", collection: "knowledge", id: "old", seq: 6 },
        { tenant: "t-remove", collection: "knowledge", id: "new", seq: 6 },
      ]);
      expect(
        (await index.newest({ tenant: "t-remove", collections: ["knowledge"], limit: 9 })).map(({ id }) => id),
      ).toEqual(["new"]);
    });

    test("a vector of another dimension is refused, and nothing of its batch is stored", async () => {
      const wrong = doc("t-dims", "b", { vector: new Float32Array(DIMENSIONS + 1).fill(0.1) });
      await expect(index.put([doc("t-dims", "a"), wrong])).rejects.toMatchObject({ code: "failed_precondition" });
      expect(await index.seqs([doc("t-dims", "a")])).toEqual([0]);
    });

    test("watermark and documents stay when it is opened again, and go when it is cleared", async () => {
      await index.clear();
      expect([await index.applied(), await index.count()]).toEqual([undefined, 0]);
      await index.put([doc("t-stay", "a")]);
      await index.begin(41);
      await index.setApplied(42);
      await index.close();
      index = await open();
      expect([await index.applied(), await index.count()]).toEqual([42, 1]);
      await index.clear();
      expect([await index.applied(), await index.count()]).toEqual([undefined, 0]);
    });

    test("an index that is being filled is not called whole by who follows the log", async () => {
      await index.clear();
      await index.setApplied(42);
      expect(await index.applied()).toBeUndefined();
      await index.begin(0);
      expect(await index.applied()).toBe(0);
      await index.setApplied(42);
      expect(await index.applied()).toBe(42);
    });
  });
}
