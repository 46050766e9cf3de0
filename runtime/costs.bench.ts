/**
 * What the parts of `runtime/` cost on the hot path, in nanoseconds per call: the median of 9 rounds after a warm-up.
 * `node runtime/costs.bench.ts`
 */
import { metrics as metricsApi } from "@opentelemetry/api";
import { loadConfig } from "./config.ts";
import { systemIds } from "./ids.ts";
import { createLogger } from "./log.ts";
import { counter, gauge, histogram } from "./metrics.ts";
import { processSettings } from "./settings.ts";
import { startTelemetry } from "./telemetry.ts";
import { acceptTraceparent, newTraceparent, sampledParent, withSpan } from "./trace.ts";

const ROUNDS = 9;
let sink: unknown;

function measure(name: string, calls: number, fn: () => unknown): void {
  const rounds: number[] = [];
  for (let round = -2; round < ROUNDS; round++) {
    const startedNs = process.hrtime.bigint();
    for (let call = 0; call < calls; call++) sink = fn();
    if (round >= 0) rounds.push(Number(process.hrtime.bigint() - startedNs) / calls);
  }
  rounds.sort((a, b) => a - b);
  process.stdout.write(`${name.padEnd(52)} ${(rounds[ROUNDS >> 1] ?? 0).toFixed(1).padStart(9)} ns\n`);
}

const dropAll = {
  export: (_: unknown, done: (result: { code: number }) => void) => done({ code: 0 }),
  shutdown: () => Promise.resolve(),
};
const off = newTraceparent(false);
const on = newTraceparent(true);
const run = (traceparent: string) => traceparent;

measure("newTraceparent", 500_000, () => newTraceparent());
measure("acceptTraceparent, valid", 500_000, () => acceptTraceparent(off));
measure("acceptTraceparent, none given", 500_000, () => acceptTraceparent(undefined));
measure("sampledParent", 5_000_000, () => sampledParent(off));
measure("withSpan, no collector, sampled caller", 5_000_000, () => withSpan("x", on, undefined, run));

const config = loadConfig(processSettings, {});
const telemetry = startTelemetry({ service: "costs", config, exporter: dropAll });
measure("withSpan, recording, unsampled", 5_000_000, () => withSpan("x", off, undefined, run));
measure("withSpan, recording, unsampled, attributes", 5_000_000, () => withSpan("x", off, { tenant_id: "t" }, run));
measure("withSpan, recording, sampled", 50_000, () => withSpan("x", on, { tenant_id: "t" }, run));

const metrics = telemetry.registry.use({
  calls_total: counter("Calls.", "provider", "status"),
  one_total: counter("Calls.", "provider"),
  open_calls: gauge("Open."),
  call_seconds: histogram("Time.", [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5], "provider"),
});
const kept = metrics.calls_total.with({ provider: "openai", status: "ok" });
const keptSeconds = metrics.call_seconds.with({ provider: "openai" });
measure("counter, series kept", 5_000_000, () => kept.add());
measure("counter, 2 labels looked up", 1_000_000, () =>
  metrics.calls_total.with({ provider: "openai", status: "ok" }).add(),
);
measure("counter, 1 label looked up", 1_000_000, () => metrics.one_total.with({ provider: "openai" }).add());
measure("histogram, series kept", 5_000_000, () => keptSeconds.record(0.004));
const sdkCounter = metricsApi.getMeter("costs").createCounter("sdk_total");
const sdkHistogram = metricsApi.getMeter("costs").createHistogram("sdk_seconds");
measure("  (OpenTelemetry SDK counter, for comparison)", 500_000, () =>
  sdkCounter.add(1, { provider: "openai", status: "ok" }),
);
measure("  (OpenTelemetry SDK histogram, for comparison)", 500_000, () =>
  sdkHistogram.record(0.004, { provider: "openai" }),
);
await telemetry.shutdown();

const log = createLogger({ component: "costs", write: () => {} });
measure("log, level off", 5_000_000, () => log.debug("policy loaded", { policy_id: "p" }));
measure("log, written (to nowhere)", 100_000, () => log.info("policy loaded", { policy_id: "p", trace_id: "t", n: 3 }));

measure("ids.v4", 500_000, () => systemIds.v4());
measure("ids.v7", 500_000, () => systemIds.v7());
if (sink === measure) process.stdout.write("never");
