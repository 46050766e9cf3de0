import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startRedis, type ManagedServer } from "../deploy/local/servers.ts";
import { connectRedis, type HotState } from "./connect.redis.ts";

let dataDir: string;
let server: ManagedServer;
let hot: HotState;
beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "beamline-onewrite-"));
  server = await startRedis({ dataDir, ports: "free" });
  hot = await connectRedis(server.url, "test");
});
afterAll(async () => {
  await hot.close();
  await server.stop();
  await rm(dataDir, { recursive: true, force: true });
});

/** Counts what the connection hands to the system from now on. */
function writes(): () => number {
  const { stream } = hot.redis;
  let count = 0;
  for (const name of ["_write", "_writev"] as const) {
    const original = (stream[name] as ((...args: readonly unknown[]) => void) | undefined)?.bind(stream);
    if (original === undefined) throw new Error(`a socket has no ${name}`);
    const counted = (...args: readonly unknown[]): void => {
      count++;
      original(...args);
    };
    Object.assign(stream, { [name]: counted });
  }
  return () => count;
}

async function together(): Promise<readonly unknown[]> {
  const later = Promise.resolve().then(() => hot.redis.get("k3")); // of the same tick, a promise later
  const all = Array.from({ length: 20 }, (_, i) => hot.redis.set(`k${i}`, `v${i}`));
  const script = hot.redis.eval("return redis.call('GET', KEYS[1])", 1, "k7");
  return Promise.all([...all, script, later]);
}

test("commands of one tick leave in one write, in their order, each with its own answer", async () => {
  const count = writes();
  expect(await together()).toEqual([...Array.from({ length: 20 }, () => "OK"), "v7", "v3"]);
  expect(count()).toBe(1);
  await hot.redis.get("k1");
  await hot.redis.get("k2");
  expect(count()).toBe(3);
});

test("also on the connection after this one", async () => {
  const again = new Promise<void>((resolve) => void hot.redis.once("ready", () => resolve()));
  hot.redis.disconnect(true);
  await again;
  const count = writes();
  await together();
  expect(count()).toBe(1);
});
