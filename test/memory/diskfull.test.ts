/** The embedded index on a disk that is full: a small one of its own, in namespaces. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

interface Outcome {
  readonly failures: readonly string[];
  readonly stored: number;
  readonly kept: number;
  readonly found: number;
  readonly after: number;
}

const run = promisify(execFile);
const OWN_MOUNTS = ["--user", "--map-root-user", "--mount"];
const possible = await run("unshare", [...OWN_MOUNTS, "mount", "-t", "tmpfs", "none", tmpdir()]).then(
  () => true,
  () => false,
);

test.skipIf(!possible)(
  "memory: an index whose disk is full says so, answers searches, and goes on once there is room (needs user namespaces)",
  async () => {
    const disk = await mkdtemp(join(tmpdir(), "beamline-full-"));
    try {
      const program = fileURLToPath(new URL("diskfull.process.ts", import.meta.url));
      const { stdout } = await run("unshare", [...OWN_MOUNTS, process.execPath, program, disk]);
      const { failures, stored, kept, found, after } = JSON.parse(stdout) as Outcome;
      expect(failures.length).toBeGreaterThanOrEqual(4);
      for (const failure of failures)
        expect(failure).toMatch(/^the embedded index .*index\.sqlite cannot be used now: database or disk is full$/);
      expect(stored).toBeGreaterThan(10);
      expect(kept).toBe(stored);
      expect(found).toBeGreaterThan(0);
      expect(after).toBe(kept + 1);
    } finally {
      await rm(disk, { recursive: true, force: true });
    }
  },
  60_000,
);
