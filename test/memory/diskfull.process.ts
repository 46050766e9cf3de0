/** The embedded index on a disk of three megabytes, mounted where the first argument says. Prints what came of it as JSON. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { openEmbedded } from "../../workers/memory/index/index.embedded.ts";

const [, , disk = ""] = process.argv;
execFileSync("mount", ["-t", "tmpfs", "-o", "size=3m", "none", disk]);
const index = await openEmbedded({ file: join(disk, "index", "index.sqlite"), model: "m", dimensions: 4 });
await index.begin(0);
const vector = Float32Array.of(1, 0, 0, 0);
const put = (n: number) => {
  const text = `${"word ".repeat(500)}${n}`;
  const where = { tenant: "t", collection: "knowledge", id: `d${n}`, seq: n + 1, at: 1 };
  return index.put([{ ...where, content: text, text, metadata: {}, vector }]);
};
const failures: string[] = [];
let stored = 0;
for (; failures.length === 0; stored++) await put(stored).catch((thrown: Error) => failures.push(thrown.message));
stored--;
for (let n = 0; n < 3; n++) await put(stored).catch((thrown: Error) => failures.push(thrown.message));
await index.clear().catch((thrown: Error) => failures.push(thrown.message));
const kept = await index.count();
const query = { tenant: "t", collections: ["knowledge"], vector, words: ["word"], limit: 1 };
const found = (await index.search(query)).length;
execFileSync("mount", ["-o", "remount,size=64m", disk]);
await put(stored);
process.stdout.write(JSON.stringify({ failures, stored, kept, found, after: await index.count() }));
await index.close();
