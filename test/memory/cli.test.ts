/** The commands, as they are typed, against a running worker. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "../kit/until.ts";
import { startWorld, type World } from "./world.ts";

let world: World;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await world.worker();
}, 60_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

function start(...args: string[]) {
  const { user, password, inboxPrefix } = world.nats.credentials.operator;
  const file = fileURLToPath(new URL("cli.process.ts", import.meta.url));
  const login = {
    NATS_URL: world.nats.server.url,
    NATS_USER: user,
    NATS_PASSWORD: password,
    NATS_INBOX_PREFIX: inboxPrefix,
  };
  const child = spawn(process.execPath, [file, ...args], {
    env: { PATH: process.env["PATH"], ...login },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const said = { out: "", err: "" };
  child.stdout.on("data", (data: Buffer) => (said.out += data.toString("utf8")));
  child.stderr.on("data", (data: Buffer) => (said.err += data.toString("utf8")));
  const ended = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  return { child, said, ended };
}

async function run(...args: string[]): Promise<string> {
  const { child, said, ended } = start(...args);
  child.stdin.end("text from standard input");
  expect(await ended, said.err).toBe(0);
  return said.out;
}

test("add, search and context", async () => {
  await run("memory", "add", "Backups", "They run at night.", "--source", "manual", "--tags", "ops,nightly");
  await run("memory", "add", "Piped", "--source", "pipe");
  const found = JSON.parse(await run("--json", "memory", "search", "when are copies made", "-c", "knowledge")) as {
    content: string;
    metadata: object;
  }[];
  expect(found.map(({ content }) => content).sort()).toEqual([
    "[manual] Backups: They run at night.",
    "[pipe] Piped: text from standard input",
  ]);
  expect(found.find(({ content }) => content.includes("Backups"))?.metadata).toMatchObject({
    tags: ["ops", "nightly"],
    stored_by: "cli",
  });
  expect(await run("memory", "search", "backups", "-n", "1")).toMatch(
    /relevance +collection +id +content\n0\.\d+ +knowledge +k-[0-9a-f]{24} +\[manual\] Backups/,
  );
  expect(await run("memory", "context", "look after the backups", "--tiers", "knowledge")).toMatch(
    /knowledge.*Backups[\s\S]*\d+ tokens/,
  );
});

test("events are shown oldest first and followed, each once", async () => {
  await world.call("pushEvent", { id: "e1", category: "task", source: "a", data_json: Buffer.from('{"n":1}') });
  await world.call("pushEvent", { id: "e2", category: "error", source: "b", critical: true });
  const { child, said, ended } = start("--json", "memory", "events", "--follow");
  const ids = (): string[] =>
    said.out
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => (JSON.parse(line) as { id: string }).id);
  await until(() => ids().length === 2);
  await world.call("pushEvent", { id: "e3", category: "task", source: "a" });
  await world.call("pushEvent", { id: "e4", category: "task", source: "a", critical: true });
  await world.call("pushEvent", { id: "other" }, { tenant: "other" });
  await until(() => ids().length === 4);
  expect(ids().slice(0, 2)).toEqual(["e1", "e2"]);
  expect(new Set(ids())).toEqual(new Set(["e1", "e2", "e3", "e4"]));
  child.kill("SIGINT");
  expect(await ended).toBe(0);
});

test("rebuild shows its progress and leaves everything as it was", async () => {
  const before = await world.call("searchKnowledge", { query: "night" });
  expect(JSON.parse(await run("--json", "rebuild", "memory"))).toMatchObject({ rebuilt: "hot, index" });
  const { child, said, ended } = start("rebuild", "memory", "--only", "index");
  child.stdin.end();
  expect(await ended).toBe(0);
  expect(said.err).toContain("index");
  expect((await world.call("searchKnowledge", { query: "night" })).results.map(({ id }) => id)).toEqual(
    before.results.map(({ id }) => id),
  );
});

test("an event with any timestamp is shown, and beyond what a number holds it is a string", async () => {
  const tenant = "timestamps";
  for (const timestamp of [1_763_700_000_000_000_001n, -1n, 1_763_700_000n])
    await world.call("pushEvent", { id: `t${timestamp}`, timestamp, category: "c" }, { tenant });
  const lines = (await run("memory", "events", "--tenant", tenant)).trimEnd().split("\n");
  expect(lines.map((line) => line.slice(0, 19))).toEqual([
    "1763700000000000001",
    "1969-12-31 23:59:59",
    "2025-11-21 04:40:00",
  ]);
  const shown = (await run("--json", "memory", "events", "--tenant", tenant)).trimEnd().split("\n");
  expect(shown.map((line) => (JSON.parse(line) as { timestamp: unknown }).timestamp)).toEqual([
    "1763700000000000001",
    -1,
    1_763_700_000,
  ]);
});

test.each([
  [["memory", "search", "x", "-n", "many"], "--results wants a whole number, not many"],
  [["memory", "search", "x", "-n", "99999999999"], "--results wants a whole number"],
  [["memory", "search", "x", "-m", "7"], "--min-relevance wants a number from 0 to 1, not 7"],
  [["memory", "search", "x", "-c", "knowledge,facts"], "--collections knows no facts, but decisions"],
  [["memory", "context", "x", "--tiers", "deep"], "--tiers knows no deep, but operational"],
  [["memory", "events", "--count", "1.5"], "--count wants a whole number, not 1.5"],
  [["memory", "add", "", ""], "content must not be empty"],
  [["rebuild", "memory", "--only", "all"], "--only is hot or index, not all"],
])("%j is refused by name", async (args, message) => {
  const { child, said, ended } = start(...args);
  child.stdin.end();
  expect(await ended).toBe(1);
  expect(said.err).toContain(message);
  expect(said.out).toBe("");
});
