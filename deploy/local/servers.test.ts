import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempDisposableSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { expect, test } from "vitest";
import { until } from "../../test/kit/until.ts";
import { processIdentity } from "./identity.ts";
import { LOOPBACK, isPortFree } from "./ports.ts";
import { redisGreeting } from "./greeting.redis.ts";
import { startServer } from "./serverprocess.ts";
import { startNats, startServers } from "./servers.ts";
import type { LocalServers } from "./servers.ts";

const scratch = () => mkdtempDisposableSync(join(tmpdir(), "beamline-servers-"));

const isGone = (pid: number) => processIdentity(pid) === undefined;

function operator({ nats, credentials }: LocalServers) {
  const { user, password, inboxPrefix } = credentials.operator;
  return connect({ servers: nats.url, user, pass: password, inboxPrefix });
}

test("both answer, and nothing is left after stop", async () => {
  using directory = scratch();
  await using servers = await startServers({ dataDir: join(directory.path, "data"), ports: "free" });
  const { nats, redis, env } = servers;
  const nc = await operator(servers);
  expect((await (await jetstreamManager(nc)).getAccountInfo()).limits.max_storage).toBeDefined();
  await nc.close();
  expect(await redisGreeting(redis.url)).toMatchObject({ loading: false, pid: redis.pid });
  expect((await fetch(`${nats.monitorUrl}/healthz`)).status).toBe(200);
  expect(env).toMatchObject({
    NATS_URL: nats.url,
    REDIS_URL: redis.url,
    BEAMLINE_NATS_EDGE_PASSWORD: servers.credentials.edge.password,
  });
  const pids = [nats.pid ?? 0, redis.pid ?? 0];
  await servers.stop();
  await servers.stop();
  expect(pids.map(isGone)).toEqual([true, true]);
  expect(await Promise.all([isPortFree(nats.port), isPortFree(redis.port)])).toEqual([true, true]);
});

test("what was acknowledged is there after kill and restart, on the same port", async () => {
  using directory = scratch();
  await using servers = await startServers({ dataDir: directory.path, ports: "free" });
  const { nats } = servers;
  const nc = await operator(servers);
  await (await jetstreamManager(nc)).streams.add({ name: "KEPT", subjects: ["kept"] });
  await jetstream(nc).publish("kept", "hello");
  const before = nats.pid;
  await nats.kill();
  expect(isGone(before ?? 0)).toBe(true);
  expect(await isPortFree(nats.port)).toBe(true);
  await nats.restart();
  expect(nats.pid).not.toBe(before);
  await nc.close();
  const again = await operator(servers);
  expect((await (await jetstreamManager(again)).streams.getMessage("KEPT", { last_by_subj: "kept" }))?.string()).toBe(
    "hello",
  );
  await again.close();
});

test("restart of a server that runs stops it first", async () => {
  using directory = scratch();
  await using nats = await startNats({ dataDir: directory.path, ports: "free" });
  const before = nats.pid ?? 0;
  await nats.restart();
  expect(isGone(before)).toBe(true);
  expect(isGone(nats.pid ?? 0)).toBe(false);
});

test("a server that dies by itself is reported; one that was asked to go is not", async () => {
  using directory = scratch();
  const reports: string[] = [];
  await using nats = await startNats({
    dataDir: directory.path,
    ports: "free",
    onExit: (name, how) => reports.push(`${name} ${how}`),
  });
  await nats.kill();
  await nats.restart();
  expect(reports).toEqual([]);
  process.kill(nats.pid ?? 0, "SIGKILL");
  await until(() => reports.length > 0);
  expect(reports).toEqual(["nats SIGKILL"]);
});

test("a second start on the same data directory is refused, and says who holds it", async () => {
  using directory = scratch();
  await using first = await startNats({ dataDir: directory.path, ports: "free" });
  await expect(startNats({ dataDir: directory.path, ports: "free" })).rejects.toThrow(
    `the data directory ${directory.path} is in use by process ${process.pid}: a store cannot be shared`,
  );
  await first.stop();
  await using again = await startNats({ dataDir: directory.path, ports: "free" });
  expect(again.started).toBe(true);
});

test("a taken default port is left alone: another is chosen, with a note", async () => {
  using directory = scratch();
  const other = createServer();
  await new Promise((resolve) => {
    other.once("error", resolve); // Someone else holds it: as good.
    other.listen(4222, LOOPBACK, () => resolve(undefined));
  });
  await using nats = await startNats({ dataDir: directory.path, ports: "default" });
  expect(nats.port).not.toBe(4222);
  expect(nats.note).toBe("port 4222 is taken by something else");
  other.close();
});

const holder = `
  const { startServers } = await import(process.argv[1]);
  const servers = await startServers({ dataDir: process.argv[2], ports: "free" });
  console.log(JSON.stringify([servers.nats.pid, servers.redis.pid]));
  setInterval(() => {}, 1000);
`;

/** A process of its own that starts both servers, and then only waits. */
async function startElsewhere(dataDir: string): Promise<{ kill(): void; pids: number[] }> {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "-e", holder, import.meta.resolve("./servers.ts"), dataDir],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const [said] = (await once(child.stdout, "data")) as [Buffer];
  const pids: unknown = JSON.parse(said.toString());
  if (!Array.isArray(pids)) throw new Error("no process ids");
  return { pids: pids.map(Number), kill: () => child.kill("SIGKILL") };
}

test("W1: a parent killed with SIGKILL leaves no process behind", async () => {
  using directory = scratch();
  const parent = await startElsewhere(directory.path);
  expect(parent.pids.map(isGone)).toEqual([false, false]);
  parent.kill();
  await until(() => parent.pids.every(isGone));
});

test("a start right after such a kill takes over the store from what is still ending", async () => {
  using directory = scratch();
  const parent = await startElsewhere(directory.path);
  parent.kill();
  await until(async () => {
    try {
      await using servers = await startServers({ dataDir: directory.path, ports: "free" });
      expect(parent.pids.map(isGone)).toEqual([true, true]);
      return servers.nats.started;
    } catch (error) {
      if (/is in use/.test(String(error))) return false; // The kill has not arrived yet.
      throw error;
    }
  });
});

test("a server that ends at once is reported with its last words, one that never answers is killed", async () => {
  using directory = scratch();
  const command = (script: string) => ({
    name: "some-server",
    binary: "/bin/sh",
    args: ["-c", script],
    env: {},
    logFile: join(directory.path, "logs", "some.log"),
    pidFile: join(directory.path, "some.pid"),
  });
  await expect(startServer(command("echo no disk; exit 3"), async () => false)).rejects.toThrow(
    /some-server ended \(code 3\) before.*\n {2}no disk/,
  );
  await expect(startServer({ ...command(""), binary: "/nonexistent" }, async () => false)).rejects.toThrow(
    /ended \(spawn \/nonexistent/,
  );
  let pid = 0;
  const silent = startServer(
    command("exec cat /dev/zero > /dev/null"),
    async (its) => {
      pid = its;
      throw new Error("not yet");
    },
    100,
  );
  await expect(silent).rejects.toThrow(/did not answer within 0.1 s \(not yet\)/);
  expect(isGone(pid)).toBe(true);
});
