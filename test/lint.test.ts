/** The lint rules that everything durable hangs on really bite. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);

const bad = `
async function work(): Promise<number> {
  return 1;
}
export function forgets(): void {
  work();
}
export function forgetsEach(items: readonly number[]): void {
  items.forEach(async (item) => {
    await Promise.resolve(item);
  });
}
`;

test("a promise nobody waits for is refused, alone and inside a callback", async () => {
  const folder = await mkdtemp(join(root, "contracts", "lint-"));
  try {
    await writeFile(join(folder, "bad.ts"), bad);
    const report = await run(join(root, "node_modules/.bin/oxlint"), ["--type-aware", "--format=json", folder], {
      cwd: root,
    }).then(
      () => "",
      (failed: { stdout: string }) => failed.stdout,
    );
    expect(report).toContain("no-floating-promises");
    expect(report).toContain("no-misused-promises");
  } finally {
    await rm(folder, { recursive: true });
  }
});
