/** Health of providers while the bus is away, on a real server. */
import { expect } from "vitest";
import { Bucket, jsonCodec } from "../../bus/keyvalue.ts";
import { ensureBuckets } from "../../bus/streams.ts";
import type { Observation, ProviderHealth } from "../../contracts/execution/health.ts";
import { buckets } from "../../contracts/streams.ts";
import { silentLogger } from "../../runtime/log.ts";
import { startTestNats } from "../../test/kit/servers.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { HealthBook } from "./health.ts";

const failure: Observation = { outcome: "failure", latency_ms: 1, cost: 0, error_code: "NETWORK_ERROR", at_ms: 1 };

verifies(
  "clear-failure",
  "H3: what was seen before the bus went is written once it is back, and each of it once",
  async () => {
    await using nats = await startTestNats({ syncInterval: "1m" });
    const bus = await nats.connect("worker");
    await ensureBuckets(bus, [buckets.providerHealth]);
    const told: string[] = [];
    const alerts = { raise: (_alert: unknown, key: string): void => void told.push(key) };
    const book = new HealthBook(bus, { log: silentLogger, alerts });
    const see = (times: number): void => {
      for (let n = 0; n < times; n++) book.observe("acme", "openai", failure);
    };
    see(1);
    await book.flush();
    see(4);
    const back = bus.nc.reconnect();
    await until(() => !bus.connected, "the connection to be lost");
    await Promise.all([back, book.flush()]);
    const bucket = new Bucket(bus, buckets.providerHealth, jsonCodec<ProviderHealth>());
    expect((await bucket.get("acme.openai"))?.value).toMatchObject({ failures: 5, consecutive_failures: 5 });
    expect(told).toEqual(["provider-acme.openai-down-0"]);
  },
);
