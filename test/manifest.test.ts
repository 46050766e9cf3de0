/** Every promise of the design is shown by a test, and every promise a test shows is one of the design's. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { promises } from "./kit/verifies.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const skipped = new Set(["node_modules", ".beamline", ".git", "coverage"]);

function testFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (skipped.has(entry.name)) return [];
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return testFiles(path);
    return entry.name.endsWith(".test.ts") ? [path] : [];
  });
}

const cited = new Set(
  testFiles(root).flatMap((path) =>
    [...readFileSync(path, "utf8").matchAll(/verifies\(\s*"([a-z-]+)"/g)].map((match) => match[1] ?? ""),
  ),
);

test.each(promises)("%s is cited by a test", (promise) => expect(cited).toContain(promise));

test("the promises are those of the design page", () => {
  const design = readFileSync(join(root, "docs", "design.md"), "utf8");
  const listed = [...(design.split("## 2.")[0] ?? "").matchAll(/^\| ([a-z-]+-[a-z-]+) \|/gm)].map((match) => match[1]);
  expect(listed).toEqual([...promises]);
});
