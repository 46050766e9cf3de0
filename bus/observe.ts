/** What the bus says about itself in metrics: calls per endpoint and outcome, and what is running. */
import { counter, gauge, type Registry } from "../runtime/metrics.ts";
import type { Server } from "./serve.ts";

const busMetrics = {
  beamline_bus_requests_total: counter("Calls answered, by endpoint.", "worker", "endpoint"),
  beamline_bus_errors_total: counter(
    "Calls answered with an error, by endpoint and code.",
    "worker",
    "endpoint",
    "code",
  ),
  beamline_bus_seconds_total: counter("Time spent on calls, by endpoint.", "worker", "endpoint"),
  beamline_bus_active_calls: gauge("Calls running.", "worker"),
  beamline_bus_waiting_calls: gauge("Calls waiting for a place.", "worker"),
};

/** Publishes a server's own statistics as metrics whenever they are collected; nothing is added to the path of a call. */
export function observeServer(registry: Registry, worker: string, server: Server): () => void {
  const metrics = registry.use(busMetrics);
  const seen = new Map<string, number>();
  const growth = (key: string, now: number): number => {
    const by = now - (seen.get(key) ?? 0);
    seen.set(key, now);
    return by;
  };
  return registry.beforeCollect(() => {
    for (const stats of server.stats) {
      const endpoint = stats.endpoint.subject;
      metrics.beamline_bus_requests_total.with({ worker, endpoint }).add(growth(`n ${endpoint}`, stats.requests));
      metrics.beamline_bus_seconds_total.with({ worker, endpoint }).add(growth(`t ${endpoint}`, stats.totalMs / 1000));
      for (const [code, count] of stats.byCode) {
        metrics.beamline_bus_errors_total.with({ worker, endpoint, code }).add(growth(`e ${endpoint} ${code}`, count));
      }
    }
    metrics.beamline_bus_active_calls.with({ worker }).set(server.load.active);
    metrics.beamline_bus_waiting_calls.with({ worker }).set(server.load.waiting);
  });
}
