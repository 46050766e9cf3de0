/** A worker killed between an acknowledgement and the log, and Redis lost only later. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect } from "vitest";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { connectRedis } from "../../workers/connect.redis.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

let world: World;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await ensureStreams(world.bus, memoryWorker.streams ?? []);
  await ensureBuckets(world.bus, memoryWorker.buckets ?? []);
  await ensureObjects(world.bus, memoryWorker.objects ?? []);
}, 60_000);

afterAll(() => world[Symbol.asyncDispose]());

verifies(
  "acked-is-durable",
  "memory: ordinary events and metrics that a killed worker had not logged survive a later flush of Redis",
  async () => {
    const { user, password, inboxPrefix } = world.nats.credentials.worker;
    const child = spawn(process.execPath, [fileURLToPath(new URL("worker.process.ts", import.meta.url))], {
      env: {
        PATH: process.env["PATH"],
        ...world.env(),
        BEAMLINE_MEMORY_BEHIND_MS: "10000",
        NATS_URL: world.nats.server.url,
        NATS_USER: user,
        NATS_PASSWORD: password,
        NATS_INBOX_PREFIX: inboxPrefix,
      },
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    await once(child, "message");
    for (let n = 0; n < 30; n++)
      await world.call("pushEvent", { id: `e${n}`, category: "c", ...(n % 2 === 0 && { timestamp: 7n }) });
    await world.call("updateMetric", { key: "load", value: 3, timestamp: 5n });
    child.kill("SIGKILL");
    await once(child, "exit");
    const messages = async (stream: string) => (await world.bus.jsm.streams.info(stream)).state.messages;
    expect([await messages("MEMORY_RECENT"), await messages("KV_memory_metrics")]).toEqual([0, 0]);
    let worker = await world.worker();
    const before = await world.call("getRecentEvents", { count: -1 });
    expect(before.events).toHaveLength(30);
    await until(async () => (await messages("MEMORY_RECENT")) > 0 && (await messages("KV_memory_metrics")) > 0);
    await worker.close();
    const logged = await messages("MEMORY_RECENT");
    worker = await world.worker();
    await worker.close();
    expect(await messages("MEMORY_RECENT")).toBe(logged); // once
    const redis = await connectRedis(world.redis.url, "test");
    await redis.redis.flushall();
    await redis.close();
    await world.worker();
    expect(await world.call("getRecentEvents", { count: -1 })).toEqual(before);
    expect(await world.call("getMetric", { key: "load" })).toEqual({ key: "load", value: 3, timestamp: 5n });
  },
  { timeout: 60_000 },
);
