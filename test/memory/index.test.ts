/** Both indexes through one suite, and what is special about each. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openEmbedded } from "../../workers/memory/index/index.embedded.ts";
import { openQdrant } from "../../workers/memory/index/index.qdrant.ts";
import { DIMENSIONS, doc, indexSuite, MODEL, vector } from "./index.suite.ts";

const directory = await mkdtemp(join(tmpdir(), "beamline-index-"));
afterAll(() => rm(directory, { recursive: true, force: true }));

const embedded = (file = "suite", model = MODEL, dimensions = DIMENSIONS) =>
  openEmbedded({ file: join(directory, `${file}.sqlite`), model, dimensions });

indexSuite("the embedded index", () => embedded());

describe("the embedded index alone", () => {
  test("a second worker is refused while the first has it, and not afterwards", async () => {
    const first = await embedded("lock");
    await expect(embedded("lock")).rejects.toMatchObject({
      code: "failed_precondition",
      message: expect.stringContaining("QDRANT_URL") as string,
    });
    await first.put([doc("t", "a")]);
    await first.close();
    const second = await embedded("lock");
    expect(await second.count()).toBe(1);
    await second.close();
  });

  test("another model or dimension empties it, so that the log fills it again", async () => {
    const first = await embedded("model");
    await first.put([doc("t", "a")]);
    await first.begin(7);
    await first.close();
    const second = await embedded("model", "another", 8);
    expect([await second.applied(), await second.count()]).toEqual([undefined, 0]);
    await second.put([doc("t", "a", { vector: new Float32Array(8).fill(0.3) })]);
    await second.close();
  });

  test("a damaged file is made anew, whether that is seen at once or later", async () => {
    const file = join(directory, "damaged.sqlite");
    const damage: readonly ((bytes: Buffer) => Buffer)[] = [
      () => Buffer.from("this is no database ".repeat(1_000)),
      (bytes) => bytes.subarray(0, 5_000),
      (bytes) => bytes.fill(0x5a, 4_096 * 8, bytes.length - 4_096),
    ];
    for (const damaged of damage) {
      const first = await embedded("damaged");
      await first.put(Array.from({ length: 300 }, (_, n) => doc("t", `d${n}`, { seq: n + 1 })));
      await first.begin(300);
      await first.close();
      await writeFile(file, damaged(await readFile(file)));
      let index = await embedded("damaged");
      const ask = { tenant: "t", collections: ["knowledge"], vector: new Float32Array(DIMENSIONS).fill(0.1) };
      const whole = async (): Promise<number> => (await index.search({ ...ask, words: ["text"], limit: 300 })).length;
      if ((await index.applied()) !== undefined) {
        const gone = { code: "unavailable", details: { gone: true } };
        await expect(whole()).rejects.toMatchObject(gone);
        await expect(index.applied()).rejects.toMatchObject(gone);
        await index.close();
        index = await embedded("damaged");
      }
      expect([await index.applied(), await index.count(), await whole()]).toEqual([undefined, 0, 0]);
      await index.put([doc("t", "after")]);
      expect(await whole()).toBe(1);
      await index.clear();
      await index.close();
    }
  });
});

const qdrant = process.env["QDRANT_URL"];
const prefix = `beamline_test_${process.pid}`;
const connect = (model = MODEL, dimensions = DIMENSIONS) =>
  openQdrant({ url: qdrant ?? "", key: process.env["QDRANT_API_KEY"], collection: prefix, model, dimensions });

describe.skipIf(qdrant === undefined)(
  "Qdrant (runs when QDRANT_URL names a server; there is no stand-in for it)",
  () => {
    indexSuite("the Qdrant index", () => connect());

    test("a collection of other vectors is refused with both dimensions named", async () => {
      const first = await connect("dims");
      await expect(connect("dims", DIMENSIONS * 2)).rejects.toMatchObject({
        code: "failed_precondition",
        message: expect.stringMatching(new RegExp(`${DIMENSIONS}.*${DIMENSIONS * 2}`)) as string,
      });
      await first.clear();
    });

    test("an index that another worker is filling anew answers nothing, and says so", async () => {
      const [one, two] = [await connect("shared"), await connect("shared")];
      await one.clear();
      await one.begin(1);
      const query = { tenant: "t", collections: ["knowledge"], limit: 5 };
      expect(await two.newest(query)).toEqual([]);
      await one.clear();
      await two.setApplied(7);
      const gone = { code: "unavailable", details: { gone: true } };
      await expect(two.newest(query)).rejects.toMatchObject(gone);
      await expect(two.search({ ...query, vector: vector(), words: ["a"] })).rejects.toMatchObject(gone);
    });
  },
);

test("a Qdrant that is not there is unavailable", async () => {
  const away = openQdrant({ url: "http://127.0.0.1:1", collection: "x", model: "m", dimensions: 8, timeoutMs: 2_000 });
  await expect(away).rejects.toMatchObject({ code: "unavailable" });
});
