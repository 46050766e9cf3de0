/** What the usage worker records, under the names of the contract (BeamLine, metrics). */
import { executionMetrics, intakeMetrics } from "../../runtime/beamline.metrics.ts";
import type { Metrics, Registry } from "../../runtime/metrics.ts";

const table = { ...executionMetrics, ...intakeMetrics };
export type Measures = Metrics<typeof table>;

export function usageMeasures(registry: Registry): Measures {
  return registry.use(table);
}
