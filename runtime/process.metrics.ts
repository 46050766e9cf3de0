/**
 * What every process tells about itself, under the names Prometheus clients have agreed on, so that ready-made
 * dashboards show them.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { counter, gauge } from "./metrics.ts";
import type { Registry } from "./metrics.ts";

/** The metrics of the process itself. */
export const processMetrics = {
  process_cpu_seconds_total: counter("Processor time used, user and system, in seconds."),
  process_resident_memory_bytes: gauge("Resident memory size in bytes."),
  process_start_time_seconds: gauge("Start of the process, in seconds since the epoch."),
  nodejs_heap_size_total_bytes: gauge("Heap taken from the system in bytes."),
  nodejs_heap_size_used_bytes: gauge("Heap in use in bytes."),
  nodejs_external_memory_bytes: gauge("Memory of native objects and buffers in bytes."),
  nodejs_eventloop_lag_mean_seconds: gauge("Mean delay of the event loop since the last collection, in seconds."),
  nodejs_eventloop_lag_p99_seconds: gauge(
    "99th percentile of the event loop's delay since the last collection, in seconds.",
  ),
  nodejs_eventloop_lag_max_seconds: gauge("Largest delay of the event loop since the last collection, in seconds."),
};

const RESOLUTION_MS = 20;

/** Registers them. Gives back how to stop the measuring of the event loop. */
export function measureProcess(registry: Registry): () => void {
  const metrics = registry.use(processMetrics);
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  const cpu = metrics.process_cpu_seconds_total.with();
  let counted = 0;
  // The monitor measures the whole interval between its ticks; the delay is what is beyond the interval.
  const lag = (nanoseconds: number) =>
    Number.isNaN(nanoseconds) ? 0 : Math.max(0, nanoseconds / 1e9 - RESOLUTION_MS / 1e3);

  const stop = registry.beforeCollect(() => {
    const { user, system } = process.cpuUsage();
    cpu.add((user + system) / 1e6 - counted);
    counted = (user + system) / 1e6;
    const { rss, heapTotal, heapUsed, external } = process.memoryUsage();
    metrics.process_resident_memory_bytes.with().set(rss);
    metrics.process_start_time_seconds.with().set(performance.timeOrigin / 1000);
    metrics.nodejs_heap_size_total_bytes.with().set(heapTotal);
    metrics.nodejs_heap_size_used_bytes.with().set(heapUsed);
    metrics.nodejs_external_memory_bytes.with().set(external);
    metrics.nodejs_eventloop_lag_mean_seconds.with().set(lag(delay.mean));
    metrics.nodejs_eventloop_lag_p99_seconds.with().set(lag(delay.percentile(99)));
    metrics.nodejs_eventloop_lag_max_seconds.with().set(lag(delay.max));
    delay.reset();
  });
  return () => {
    stop();
    delay.disable();
  };
}
