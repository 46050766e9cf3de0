/** What the edge counts: calls by method and outcome, and how long they took. */
import type { BeamlineError } from "../contracts/errors.ts";
import { meaning } from "../contracts/errors.ts";
import type { Route } from "../contracts/routes.ts";
import { counter, histogram, type Counter, type Histogram, type Registry } from "../runtime/metrics.ts";

const SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5];

const table = {
  grpc_server_handled_total: counter(
    "RPCs completed, by method and status.",
    "grpc_service",
    "grpc_method",
    "grpc_code",
  ),
  grpc_server_handling_seconds: histogram("Time of an RPC.", SECONDS, "grpc_service", "grpc_method"),
};

/** Records a finished call; the series of a method are looked up once. */
export function edgeMetrics(registry: Registry): (route: Route, error: BeamlineError | undefined, ms: number) => void {
  const metrics = registry.use(table);
  const known = new Map<string, { ok: Counter; seconds: Histogram }>();
  return (route, error, ms) => {
    const labels = { grpc_service: route.service.fullName, grpc_method: route.method.name };
    let series = known.get(route.path);
    if (series === undefined) {
      series = {
        ok: metrics.grpc_server_handled_total.with({ ...labels, grpc_code: "0" }),
        seconds: metrics.grpc_server_handling_seconds.with(labels),
      };
      known.set(route.path, series);
    }
    if (error === undefined) series.ok.add();
    else metrics.grpc_server_handled_total.with({ ...labels, grpc_code: String(meaning(error.code).grpc) }).add();
    series.seconds.record(ms / 1000);
  };
}
