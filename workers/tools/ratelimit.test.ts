/** Rate limits when Redis does not answer. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { startRedis, type ManagedServer } from "../../deploy/local/servers.ts";
import { systemClock } from "../../runtime/clock.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { connectRedis, type HotState } from "../connect.redis.ts";
import { RateLimit } from "./ratelimit.redis.ts";

let directory: string;
let redis: ManagedServer;
let proxy: Server;
let hot: HotState;
const sockets = new Set<Socket>();
/** What is said to Redis reaches it only later, as with a server that was stopped for a while. */
const clients: Socket[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "beamline-rates-"));
  redis = await startRedis({ dataDir: directory, ports: "free" });
  proxy = createServer((client) => {
    const server = connect(Number(new URL(redis.url).port), "127.0.0.1");
    for (const socket of [client, server]) sockets.add(socket.on("error", () => undefined));
    client.pipe(server).pipe(client);
    clients.push(client);
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  hot = await connectRedis(`redis://127.0.0.1:${(proxy.address() as AddressInfo).port}`, "test", 2_000);
}, 60_000);
afterAll(async () => {
  await hot?.close();
  for (const socket of sockets) socket.destroy();
  proxy?.close();
  await redis?.stop();
  await rm(directory, { recursive: true, force: true });
});

verifies(
  "clear-failure",
  "tools: one call waits for a Redis that has stopped answering, not every one after it",
  async () => {
    const rate = { perSecond: 0.001, capacity: 3 };
    const limit = new RateLimit(hot.redis, { agent: rate, tool: { perSecond: 0, capacity: 1 } }, systemClock);
    const take = () => limit.take("acme", "agent", "tool");
    expect(await take()).toBe(true);
    for (const client of clients) client.pause();
    expect(await take()).toBe(true); // from this worker's own bucket
    const began = performance.now();
    expect([await take(), await take(), await take()]).toEqual([true, true, false]);
    expect(performance.now() - began).toBeLessThan(2_000); // each would have waited that long
    for (const client of clients) client.resume();
    // The shared bucket, once Redis answers again: two were taken from it, one of them by the call that had waited.
    await until(take, "Redis to be back");
    expect(await take()).toBe(false);
  },
);
