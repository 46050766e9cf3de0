/** Metering on real servers, after a worker that was killed between storing a usage event and telling anybody. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { MessageContext } from "../../bus/consume.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import { streams } from "../../contracts/streams.ts";
import { startRedis } from "../../deploy/local/servers.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { startTestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { connectRedis } from "../connect.redis.ts";
import { HealthBook } from "./health.ts";
import { usageMeasures } from "./measures.ts";
import { Metering } from "./metering.ts";
import { resultHandler } from "./results.ts";
import { redisSeen } from "./seen.redis.ts";

verifies(
  "effect-once",
  "a result that comes again after a crash is not metered before listeners a second time",
  async () => {
    await using nats = await startTestNats({ syncInterval: "1m" });
    const dataDir = await mkdtemp(join(tmpdir(), "beamline-metering-"));
    await using redis = await startRedis({ dataDir, ports: "free" });
    const hot = await connectRedis(redis.url, "test");
    const bus = await nats.connect("worker");
    await ensureStreams(bus, [streams.exec, streams.usage]);
    const measures = usageMeasures(createRegistry());
    const alerts = { raise: () => undefined };
    const handle = resultHandler({
      metering: new Metering(
        bus,
        redisSeen(hot.redis, () => undefined),
        measures,
        true,
      ),
      health: new HealthBook(bus, { log: silentLogger, alerts }),
      checkTenant: () => undefined,
      measures,
      log: silentLogger,
    });
    const heard: unknown[] = [];
    const outside = await nats.connect("billing", "operator");
    outside.nc.subscribe(execSubject.usage, { callback: (_error, message) => void heard.push(message.json()) });
    await outside.flush();

    const result = {
      assignment_id: "a1",
      status: "success",
      provider_id: "p",
      tenant_id: "acme",
      job: { type: "echo" },
    };
    const context = (deliveryCount: number): MessageContext =>
      ({ headers: {}, msgId: "result-a1", timestampMs: 1, deliveryCount }) as unknown as MessageContext;
    await handle(Buffer.from(JSON.stringify(result)), context(1));
    await hot.redis.flushall(); // as if the worker had died before it marked it
    await handle(Buffer.from(JSON.stringify(result)), context(2));
    await outside.flush();
    expect(heard).toMatchObject([{ assignment_id: "a1" }]);
    expect((await bus.jsm.streams.info(streams.usage.name)).state.messages).toBe(1);
    await hot.close();
    await rm(dataDir, { recursive: true, force: true });
  },
);
