/** Answers that are kept while hot state is away, on a real server. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { startRedis } from "../../deploy/local/servers.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { connectRedis } from "../connect.redis.ts";
import { redisReplies } from "./replies.redis.ts";

verifies("effect-once", "R1: an answer that hot state could not keep is known to the worker that asked", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "beamline-replies-"));
  await using redis = await startRedis({ dataDir, ports: "free" });
  const hot = await connectRedis(redis.url, "test");
  let now = Date.now();
  const replies = redisReplies(hot.redis, () => now);
  await replies.keep("acme", "before", "one");
  await redis.kill();
  await until(() => hot.redis.status !== "ready", "the connection to be lost");
  await replies.keep("acme", "away", "two");
  expect(await replies.find("acme", "away")).toBe("two");
  await redis.restart();
  await until(() => hot.ping(), "hot state to be back");
  expect(await replies.find("acme", "away")).toBe("two");
  expect(await replies.find("other", "away")).toBeUndefined();

  await redis.kill();
  await until(() => hot.redis.status !== "ready", "the connection to be lost");
  // Sixteen of the largest fill the room, and the oldest makes way.
  for (let n = 0; n < 16; n++) await replies.keep("acme", `large-${n}`, "x".repeat(1024 * 1024));
  expect(await replies.find("acme", "away")).toBeUndefined();
  expect(await replies.find("acme", "large-0")).toHaveLength(1024 * 1024);
  now += 3_600_000;
  expect(await replies.find("acme", "large-0")).toBeUndefined();
  await hot.close();
  await rm(dataDir, { recursive: true, force: true });
});
