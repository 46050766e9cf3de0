/** Alerts while the bus is away, on a real server. */
import { expect } from "vitest";
import { ensureStreams } from "../../bus/streams.ts";
import { streams } from "../../contracts/streams.ts";
import { silentLogger } from "../../runtime/log.ts";
import { all, byText } from "./kit.ts";
import { startTestNats } from "../kit/servers.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { alertOpened } from "../../workers/routing/health/healthfeed.ts";
import { busAlerts } from "../../workers/usage/alerts.ts";

verifies("clear-failure", "an alert that is raised while the bus is away is told once it is back", async () => {
  await using nats = await startTestNats({ syncInterval: "1m" });
  const bus = await nats.connect("worker");
  await ensureStreams(bus, [streams.alerts]);
  const alerts = busAlerts(bus, silentLogger, () => "id", Date.now);
  const back = bus.nc.reconnect();
  await until(() => !bus.connected, "the connection to be lost");
  alerts.raise({ severity: "warning", component: "usage", message: "a worker fell silent", metadata: {} }, "silent");
  const opened = alertOpened(bus, "id", Date.now(), "acme", "openai");
  await Promise.all([back, opened]);
  const told = await until(async () => {
    const found = await all(bus, "ALERTS", "beamline.alert.v1.warning");
    return found.length === 2 && found;
  }, "both alerts");
  expect(told.map(({ body }) => body["component"]).sort(byText)).toEqual(["routing", "usage"]);
});
