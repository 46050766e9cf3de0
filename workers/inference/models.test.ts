/** Models of a directory, served by real children. */
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { ModelHost } from "./models.ts";

const binary = fileURLToPath(new URL("../../test/inference/llamaserver.mjs", import.meta.url));

let directory: string;
let host: ModelHost;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "beamline-gguf-"));
  host = new ModelHost({ binary, directory, clock: systemClock, log: silentLogger });
});
afterEach(async () => {
  await host.close();
  await rm(directory, { recursive: true, force: true });
});

const names = (): readonly string[] => host.all.map(({ name, status }) => `${name} ${status}`);

verifies("crash-safe", "a model file that is a link to nowhere is passed over, and the worker lives", async () => {
  await symlink(join(directory, "nowhere"), join(directory, "a.gguf"));
  await writeFile(join(directory, "b.gguf"), "gguf");
  await host.loadDirectory();
  expect(names()).toEqual(["b ready"]);
});

verifies("crash-safe", "L3: a worker that stops while it loads models leaves no child behind", async () => {
  for (const name of ["a", "b"]) await writeFile(join(directory, `${name}.gguf`), "gguf");
  const loading = host.loadDirectory();
  await until(() => names().length === 1, "the first child");
  await host.close();
  await loading;
  expect(names()).toEqual([]);
  await expect(
    host.load({ name: "b", path: join(directory, "b.gguf"), contextLength: 512, gpuLayers: 0, threads: 1, port: 0 }),
  ).rejects.toMatchObject({ code: "unavailable" });
});
