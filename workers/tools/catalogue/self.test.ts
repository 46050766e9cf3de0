/** The product looking at itself and changing itself, where the operator allows it; with a source directory made for the test. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { neighbours } from "../neighbours.ts";
import { startTestbed, type Testbed } from "../testbed.ts";

let bed: Testbed;
let home: string;
let source: string;
let origin: string;

const git = async (cwd: string, ...args: string[]): Promise<string> =>
  (await promisify(execFile)("git", ["-c", "user.name=x", "-c", "user.email=x@y", ...args], { cwd })).stdout.trim();

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "beamline-self-"));
  [origin, source] = [join(home, "origin"), join(home, "source")];
  await git(home, "init", "-q", "-b", "main", origin);
  const manifest = { name: "product", version: "1.2.3", lockfileVersion: 3, requires: true, packages: {} };
  await writeFile(join(origin, "package.json"), JSON.stringify({ name: "product", version: "1.2.3" }));
  await writeFile(join(origin, "package-lock.json"), JSON.stringify(manifest));
  await git(origin, "add", "--all");
  await git(origin, "commit", "-qm", "first");
  await git(home, "clone", "-q", origin, source);
  bed = await startTestbed({ BEAMLINE_TOOLS_SELF_PATH: source, BEAMLINE_TOOLS_SELF_UPDATE: "true" });
}, 60_000);
afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  await rm(home, { recursive: true, force: true });
});

test("it knows its version and where it stands, pulls forward and only forward, and installs what the lock file says", async () => {
  const first = await git(source, "rev-parse", "HEAD");
  const seen = { version: "1.2.3", git_revision: first, git_branch: "main", source_path: source };
  expect((await bed.run("self.inspect")).output).toMatchObject(seen);
  expect((await bed.run("self.update")).output).toMatchObject({ success: true, files_changed: 0, current_rev: first });
  await writeFile(join(origin, "new.txt"), "new");
  await git(origin, "add", "--all");
  await git(origin, "commit", "-qm", "second");
  const second = await git(origin, "rev-parse", "HEAD");
  expect((await bed.run("self.update")).output).toMatchObject({
    success: true,
    previous_rev: first,
    current_rev: second,
    files_changed: 1,
  });
  expect(await readFile(join(source, "new.txt"), "utf8")).toBe("new");
  expect((await bed.run("self.rebuild")).output).toMatchObject({ success: true, components_built: ["all"] });
  await writeFile(join(source, "mine.txt"), "mine");
  await git(source, "add", "--all");
  await git(source, "commit", "-qm", "here");
  await git(origin, "commit", "-q", "--allow-empty", "-m", "there");
  const here = await git(source, "rev-parse", "HEAD");
  expect(await bed.run("self.update")).toMatchObject({
    success: false,
    error: expect.stringContaining("git failed") as string,
  });
  expect(await git(source, "rev-parse", "HEAD")).toBe(here);
}, 60_000);

test("its health is that of the servers in use, and of the edge where its address is known", async () => {
  const { port } = new URL(`tcp://${bed.bus.nc.getServer()}`);
  const { output } = await bed.run("self.health");
  expect((output["issues"] as string[]).filter((issue) => !issue.startsWith("the disk is"))).toEqual([]);
  expect(output["services"]).toEqual([
    { name: "nats", port: Number(port), reachable: true },
    { name: "redis", port: expect.any(Number) as number, reachable: true },
  ]);
  const env = { BEAMLINE_GRPC_ADDR: "[::1]:50052", BEAMLINE_HTTP_ADDR: "127.0.0.1:8081" };
  expect(neighbours("10.0.0.1:4222", "unix:///run/redis.sock", env)).toEqual([
    { name: "edge-grpc", host: "::1", port: 50_052 },
    { name: "edge-http", host: "127.0.0.1", port: 8_081 },
    { name: "nats", host: "10.0.0.1", port: 4_222 },
  ]);
  expect(neighbours("n:1", "rediss://[::1]", {}).at(-1)).toEqual({ name: "redis", host: "::1", port: 6_379 });
});

test("elsewhere than in its source directory and the roots it does nothing", async () => {
  for (const tool of ["self.update", "self.rebuild", "self.inspect"])
    expect(await bed.run(tool, { source_path: "/etc" })).toMatchObject({
      success: false,
      error: expect.stringContaining("outside the allowed roots") as string,
    });
  expect(await bed.run("self.update", { remote: "--upload-pack=touch" })).toMatchObject({ success: false });
});
