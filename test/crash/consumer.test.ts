import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { publishRetrying } from "../../bus/retrying.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { streams } from "../../contracts/streams.ts";
import { startTestNats, type TestNats } from "../kit/servers.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { crashStream } from "./consumer.process.ts";

let nats: TestNats;
let bus: Bus;
let directory: string;
const children = new Set<ChildProcess>();
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
  directory = await mkdtemp(join(tmpdir(), "beamline-crash-"));
  await ensureStreams(bus, [crashStream, streams.deadLetters]);
});
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await nats.stop();
  await rm(directory, { recursive: true, force: true });
});

/** Starts a consumer process; resolves when it consumes. */
async function start(): Promise<ChildProcess> {
  const { user, password, inboxPrefix } = nats.credentials.worker;
  const args = [nats.server.url, user, password, inboxPrefix, join(directory, "handled")];
  const child = fork(join(import.meta.dirname, "consumer.process.ts"), args, {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  children.add(child);
  await once(child, "message");
  return child;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  children.delete(child);
}

const handled = async (): Promise<string[]> =>
  (await readFile(join(directory, "handled"), "utf8").catch(() => "")).split("\n").filter((line) => line !== "");

verifies(
  "crash-safe",
  "consumers and the server killed under load lose no acknowledged message",
  async () => {
    let published = 0;
    let over = false;
    const publishing = (async () => {
      while (!over) {
        const ids = Array.from({ length: 25 }, (_, i) => `m${published + i}`);
        await Promise.all(ids.map((id) => publishRetrying(bus, `log.crash.${id}`, id, { msgId: id })));
        published += ids.length;
        // Always some work left, never a mountain of it.
        await until(
          async () => over || published - new Set(await handled()).size < 300,
          "consumers that keep up",
          60_000,
        );
      }
    })();
    const pair = [await start(), await start()];
    for (const [round, signal] of (["SIGKILL", "SIGTERM", "SIGKILL", "SIGKILL"] as const).entries()) {
      const before = (await handled()).length;
      await until(async () => (await handled()).length > before + 100, "some progress", 60_000);
      const victim = pair[round % 2];
      if (victim !== undefined) await end(victim, signal);
      if (round === 2) {
        await nats.server.kill();
        await nats.server.restart();
      }
      pair[round % 2] = await start();
    }
    over = true;
    await publishing;
    // At least once: what was in a killed process's hands comes again, and what a killed server had not yet noted as acknowledged.
    await until(async () => new Set(await handled()).size === published, "every message", 60_000);
    await until(async () => {
      const { num_pending, num_ack_pending } = await bus.jsm.consumers.info("CRASH", "crash");
      return num_pending === 0 && num_ack_pending === 0;
    }, "an empty consumer");
    expect((await bus.jsm.streams.info("DLQ")).state.messages).toBe(0);
  },
  { timeout: 180_000 },
);
