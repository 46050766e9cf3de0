/** Totals on real servers, beside another worker that is further on. T1 is in the header of totals.ts. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { publish } from "../../bus/publish.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { largest } from "../../contracts/execution/result.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import { streams } from "../../contracts/streams.ts";
import { startRedis, type ManagedServer } from "../../deploy/local/servers.ts";
import { silentLogger } from "../../runtime/log.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { connectRedis, type HotState } from "../connect.redis.ts";
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

let nats: TestNats;
let redis: ManagedServer;
let dataDir: string;
let bus: Bus;
let hot: HotState;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "1m" });
  dataDir = await mkdtemp(join(tmpdir(), "beamline-totals-"));
  redis = await startRedis({ dataDir, ports: "free" });
  hot = await connectRedis(redis.url, "test");
  bus = await nats.connect("worker");
  await ensureStreams(bus, [streams.usage]);
}, 60_000);
afterAll(async () => {
  await hot?.close();
  await Promise.all([redis?.stop(), nats?.stop()]);
  await rm(dataDir, { recursive: true, force: true });
});

/** Stores a usage event of the day. */
async function meter(id: string, more: object = {}): Promise<void> {
  const timestamp = Date.parse(`${DAY}T12:00:00Z`);
  const event = {
    version: "1",
    tenant_id: "acme",
    provider_id: "p",
    status: "success",
    timestamp,
    cost: 0,
    latency_ms: 0,
  };
  await publish(bus, execSubject.usage, JSON.stringify({ ...event, ...more }), { msgId: `usage-${id}` });
}

verifies(
  "effect-once",
  "T1: a batch that another worker has applied in part counts for the rest of it alone",
  async () => {
    for (let n = 0; n < EVENTS; n++) await meter(String(n));
    const totals = new Totals(bus, new Overtaken(hot.redis, "1"), silentLogger);
    totals.start();
    const counted = await totals.of("acme", [DAY], AbortSignal.timeout(20_000));
    expect(counted).toMatchObject([{ provider_id: "p", requests: EVENTS, by_status: { success: EVENTS } }]);
    await totals.stop();
  },
);

verifies(
  "log-is-truth",
  "an event with figures that no sum can hold counts once, and stops none after it",
  async () => {
    const tenant_id = "large";
    await meter("large-1", { tenant_id, latency_ms: 1e300, cost: 1 });
    await meter("large-2", { tenant_id, latency_ms: 5, cost: 1e300 });
    await meter("large-3", { tenant_id, latency_ms: 5, cost: 0.5 });
    await meter("large-4", { tenant_id, latency_ms: -1e300, cost: -1e300 });
    const totals = new Totals(bus, new TotalsStore(hot.redis, "2"), silentLogger);
    totals.start();
    const counted = await totals.of(tenant_id, [DAY], AbortSignal.timeout(20_000));
    expect(counted).toMatchObject([
      {
        requests: 4,
        micros: 1_500_000 + largest.cost * 1_000_000,
        latency_ms: largest.latency_ms + 10,
        by_status: { success: 4 },
      },
    ]);
    await totals.stop();
  },
);
