import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempDisposableSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const script = fileURLToPath(import.meta.resolve("./bootstrap.mjs"));

/** A project with one dependency, a folder of its own: installing it needs no network. */
function project() {
  const directory = mkdtempDisposableSync(join(tmpdir(), "beamline-bootstrap-"));
  const write = (path: string, content: unknown) => {
    mkdirSync(dirname(join(directory.path, path)), { recursive: true });
    writeFileSync(join(directory.path, path), typeof content === "string" ? content : JSON.stringify(content));
  };
  const root = { name: "sample", version: "1.0.0", dependencies: { left: "file:left" } };
  write("package.json", root);
  write("left/package.json", { name: "left", version: "1.0.0" });
  write("package-lock.json", {
    name: "sample",
    version: "1.0.0",
    lockfileVersion: 3,
    requires: true,
    packages: { "": root, left: { version: "1.0.0" }, "node_modules/left": { resolved: "left", link: true } },
  });
  return { path: directory.path, write, [Symbol.dispose]: () => directory.remove() };
}

/** Runs it to its end; resolves with what it wrote. */
function bootstrap(
  root: string,
  env: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, root], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk));
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk));
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

const reasons = (output: string) => output.split("\n").filter((line) => line.startsWith("npm ci:"));

test("installs once, saying why, and then has nothing to say", { timeout: 30_000 }, async () => {
  using sample = project();
  const first = await bootstrap(sample.path);
  expect(first).toMatchObject({ code: 0 });
  expect(reasons(first.stdout)).toEqual(["npm ci: dependencies are not installed yet"]);
  expect(existsSync(join(sample.path, "node_modules/left/package.json"))).toBe(true);
  expect(await bootstrap(sample.path)).toEqual({ code: 0, stdout: "", stderr: "" });
});

/** Stands for an npm that takes a moment to install, and fails when another one is at it. */
const jealousNpm = `
  const { appendFileSync, mkdirSync, rmdirSync, writeFileSync } = require("node:fs");
  mkdirSync("at-it");
  appendFileSync("calls", "ci\\n");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  mkdirSync("node_modules");
  writeFileSync("node_modules/.package-lock.json", JSON.stringify({ packages: { left: { version: "1.0.0" } } }));
  rmdirSync("at-it");
`;

test("several at once install once; whoever is gone stops nobody", { timeout: 60_000 }, async () => {
  const gone = spawnSync(process.execPath, ["-e", "0"]).pid;
  for (let round = 0; round < 5; round++) {
    using sample = project();
    sample.write("npm-cli.js", jealousNpm);
    sample.write(`.beamline/installing/${gone}.0`, "");
    const npm = { npm_execpath: join(sample.path, "npm-cli.js") };
    const all = await Promise.all(Array.from({ length: 6 }, () => bootstrap(sample.path, npm)));
    expect(all.map(({ code, stderr }) => ({ code, stderr }))).toEqual(all.map(() => ({ code: 0, stderr: "" })));
    expect(reasons(all.map(({ stdout }) => stdout).join(""))).toHaveLength(1);
    expect(readFileSync(join(sample.path, "calls"), "utf8")).toBe("ci\n");
    expect(readdirSync(join(sample.path, ".beamline/installing"))).toEqual([]);
  }
});

test("an unreadable lock file is said", async () => {
  using sample = project();
  sample.write("package-lock.json", "{");
  const { code, stderr } = await bootstrap(sample.path);
  expect(code).toBe(1);
  expect(stderr).toMatch(/package-lock\.json in .* cannot be read/);
});

/** Stands for an npm that runs no install scripts: it notes how it was called and ends well. */
const idleNpm = `require("node:fs").appendFileSync("calls", process.argv.slice(2).join(" ") + "\\n");`;

function pinnedSample() {
  const sample = project();
  const packages = {
    "node_modules/node": { version: "24.0.0", integrity: "sha512-x" },
    "node_modules/a": { version: "1.0.0", integrity: "sha512-y" },
  };
  sample.write("package-lock.json", {
    packages: { "": {}, ...packages, "node_modules/other-os": { version: "1.0.0", optional: true } },
  });
  sample.write("node_modules/.package-lock.json", { packages });
  sample.write("npm-cli.js", idleNpm);
  return Object.assign(sample, { packages, env: { npm_execpath: join(sample.path, "npm-cli.js") } });
}

test("a pinned Node that did not come along is said, with what to do", async () => {
  using sample = pinnedSample();
  const { code, stdout, stderr } = await bootstrap(sample.path, sample.env);
  expect(code).toBe(1);
  expect(reasons(stdout)).toEqual(["npm ci: node_modules/.bin/node does not run"]);
  expect(stderr).toContain(`"allowScripts" in package.json`);
  expect(stderr).toContain("npm rebuild node");
});

test("a changed version is a reason; what is optional and absent is none; development dependencies always come", async () => {
  using sample = pinnedSample();
  sample.write("node_modules/.package-lock.json", {
    packages: { ...sample.packages, "node_modules/a": { version: "0.9.0", integrity: "sha512-z" } },
  });
  const { stdout } = await bootstrap(sample.path, { ...sample.env, NODE_ENV: "production" });
  expect(reasons(stdout)).toEqual(["npm ci: a is 0.9.0, the lock file says 1.0.0"]);
  expect(readFileSync(join(sample.path, "calls"), "utf8")).toMatch(/^ci --include=dev /);
});
