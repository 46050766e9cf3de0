/** Metrics of the memory worker, read when somebody collects. */
import { gauge, type Registry } from "../../runtime/metrics.ts";
import type { Archive } from "./archive.ts";
import type { Behind } from "./hot/behind.ts";

const memoryMetrics = {
  memory_behind_entries: gauge("Acknowledged events and metrics that are not in the log yet."),
  memory_behind_lost_entries: gauge("Such entries given up because the log could not be written for too long."),
  memory_index_behind_records: gauge("Records of the log that search does not find yet."),
};

export function observe(registry: Registry, behind: Behind, archive: Archive): void {
  const metrics = registry.use(memoryMetrics);
  registry.beforeCollect(() => {
    metrics.memory_behind_entries.with().set(behind.size);
    metrics.memory_behind_lost_entries.with().set(behind.lost);
    metrics.memory_index_behind_records.with().set(archive.behind);
  });
}
