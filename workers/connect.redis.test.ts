/** The connection to a Redis that goes away without a word. */
import { afterAll, beforeAll, expect } from "vitest";
import { mkdtempDisposableSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startRedis, type ManagedServer } from "../deploy/local/servers.ts";
import { relayed } from "../test/kit/relay.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import { connectRedis } from "./connect.redis.ts";

const data = mkdtempDisposableSync(join(tmpdir(), "beamline-redis-"));
let server: ManagedServer;
beforeAll(async () => {
  server = await startRedis({ dataDir: data.path, ports: "free" });
}, 60_000);
afterAll(async () => {
  await server?.stop();
  data.remove();
});

verifies(
  "clear-failure",
  "a Redis whose host is gone: commands fail in time, and the connection is made anew",
  async () => {
    await using cable = await relayed(server.port);
    const hot = await connectRedis(`redis://127.0.0.1:${cable.port}`, "cut", 200);
    await hot.redis.set("k", "v");
    cable.cut();
    await expect(hot.redis.get("k")).rejects.toThrow();
    await until(() => hot.ping().catch(() => false), "another connection");
    expect(await hot.redis.get("k")).toBe("v");
    await hot.close();
  },
);
