/** The command line against a running system: what it says when something is not right, never a stack trace. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startWorld, type World } from "../kit/world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({ syncInterval: "1m" });
});
afterAll(() => world?.[Symbol.asyncDispose]());

interface Outcome {
  readonly code: unknown;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command as a user of the bus. */
function beamline(user: "operator" | "publisher" | "edge", args: readonly string[], env = {}): Promise<Outcome> {
  const { password, inboxPrefix } = world.servers.credentials[user];
  const environment = {
    PATH: process.env["PATH"],
    ...world.servers.env,
    NATS_USER: user,
    NATS_PASSWORD: password,
    NATS_INBOX_PREFIX: inboxPrefix,
    ...env,
  };
  const cli = fileURLToPath(new URL("../../cli/beamline.ts", import.meta.url));
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], { env: environment }, (error, stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stdout, stderr }),
    );
  });
}

interface Finding {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

test("doctor looks at Redis, and says what is wrong with it", async () => {
  const redis = async (env = {}): Promise<Finding | undefined> => {
    const { stdout } = await beamline("operator", ["doctor", "--json"], env);
    return (JSON.parse(stdout) as Finding[]).find(({ check }) => check === "redis");
  };
  const { version } = world.servers.redis;
  expect(await redis()).toMatchObject({ ok: true, detail: expect.stringContaining(version) as string });
  expect(await redis({ REDIS_URL: "redis://:hidden@127.0.0.1:1" })).toMatchObject({
    ok: false,
    detail: expect.not.stringContaining("hidden") as string,
  });
});

test("doctor as a user who may not look at streams says so, and goes on", async () => {
  const { code, stdout, stderr } = await beamline("publisher", ["doctor", "--json"]);
  const findings = JSON.parse(stdout) as Finding[];
  expect(findings.find(({ check }) => check === "streams")).toMatchObject({
    ok: false,
    detail: expect.stringContaining("the bus user may not do that") as string,
  });
  expect(findings.map(({ check }) => check)).toContain("worker routing");
  expect([code, stderr]).toEqual([1, ""]);
});

test("status lists our workers, whatever other programs answer to service discovery", async () => {
  await world.startWorker("usage");
  const stranger = await world.connect("operator", "stranger");
  const rubbish = ["", "{", "null", "[]", "7", `{"name":"routing"}`, `{"name":"routing","metadata":null}`];
  stranger.subscribe("$SRV.STATS", ({ reply = "" }) => {
    for (const text of rubbish) stranger.send(reply, text);
  });
  await stranger.flush();
  const { code, stdout, stderr } = await beamline("operator", ["status", "--json"]);
  expect((JSON.parse(stdout) as { worker: string }[]).map(({ worker }) => worker)).toEqual(["usage"]);
  expect([code, stderr]).toEqual([0, ""]);
});

test("a user who may not listen to what a command follows is told so", async () => {
  const { code, stderr } = await beamline("edge", ["exec", "workers", "--for", "300", "--json"]);
  expect(stderr.split("\n")[0]).toBe(
    "permission_denied: listen on caf.worker.heartbeat.v1: the bus user may not do that",
  );
  expect(code).toBe(1);
});

test.each([
  [["decide", "--context", "nothing"], "invalid_argument: --context wants key=value, not nothing"],
  [["dlq", "list", "--limit", "none"], "invalid_argument: --limit wants a whole number of at least 1, not none"],
  [["dlq", "list", "--since", "soon"], "invalid_argument: --since wants a time like 2026-01-31T12:00:00Z, not soon"],
  [["dlq", "redrive"], "invalid_argument: seq is missing: name the dead letters by number, or give --all"],
])("%j: the mistake in one line", async (args, said) => {
  const { code, stderr } = await beamline("operator", args);
  expect([code, stderr.trim()]).toEqual([1, said]);
});
