/** Totals on real servers, beside another worker that is further on. T1 is in the header of totals.ts. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { publish } from "../../bus/publish.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import { streams } from "../../contracts/streams.ts";
import { startRedis } from "../../deploy/local/servers.ts";
import { silentLogger } from "../../runtime/log.ts";
import { startTestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { connectRedis } from "../connect.redis.ts";
import { Totals } from "./totals.ts";
import { TotalsStore, type Addition } from "./totals.redis.ts";

const DAY = "2026-01-31";
const EVENTS = 120;

/** A store where another worker has applied a good part of what comes just before this one applies its first batch. */
class Overtaken extends TotalsStore {
  #overtaken = false;

  override async apply(from: number, to: number, additions: readonly Addition[]): Promise<number> {
    if (!this.#overtaken) {
      this.#overtaken = true;
      const others = { tenant: "acme", day: DAY, provider: "p", status: "success", micros: 0, latencyMs: 0 };
      const ahead = Math.min(EVENTS - 1, to + 7);
      await super.apply(from, ahead, [{ ...others, count: ahead - from }]);
    }
    return super.apply(from, to, additions);
  }
}

verifies(
  "effect-once",
  "T1: a batch that another worker has applied in part counts for the rest of it alone",
  async () => {
    await using nats = await startTestNats({ syncInterval: "1m" });
    const dataDir = await mkdtemp(join(tmpdir(), "beamline-totals-"));
    await using redis = await startRedis({ dataDir, ports: "free" });
    const hot = await connectRedis(redis.url, "test");
    const bus = await nats.connect("worker");
    await ensureStreams(bus, [streams.usage]);
    const timestamp = Date.parse(`${DAY}T12:00:00Z`);
    for (let n = 0; n < EVENTS; n++) {
      const event = {
        version: "1",
        tenant_id: "acme",
        provider_id: "p",
        status: "success",
        timestamp,
        cost: 0,
        latency_ms: 0,
      };
      await publish(bus, execSubject.usage, JSON.stringify(event), { msgId: `usage-${n}` });
    }
    const totals = new Totals(bus, new Overtaken(hot.redis, "1"), silentLogger);
    totals.start();
    const counted = await totals.of("acme", [DAY], AbortSignal.timeout(20_000));
    expect(counted).toMatchObject([{ provider_id: "p", requests: EVENTS, by_status: { success: EVENTS } }]);
    await totals.stop();
    await hot.close();
    await rm(dataDir, { recursive: true, force: true });
  },
);
