import { expect, test } from "vitest";
import {
  executionMetrics,
  executionWorkerMetrics,
  gatewayMetrics,
  intakeMetrics,
  routerMetrics,
} from "./beamline.metrics.ts";
import { counter, createRegistry, gauge, histogram, MAX_SERIES } from "./metrics.ts";

const table = {
  calls_total: counter("Calls.", "tenant_id", "status"),
  open_calls: gauge("Calls open."),
  call_seconds: histogram("Time of a call.", [0.1, 1], "status"),
  ticks_total: counter("Ticks."),
};

test("series of the same labels are the same, whatever the order of the labels", () => {
  const registry = createRegistry();
  const { calls_total } = registry.use(table);
  calls_total.with({ tenant_id: "t", status: "ok" }).add();
  calls_total.with({ status: "ok", tenant_id: "t" }).add(2);
  calls_total.with({ tenant_id: "u", status: "ok" }).add();
  expect(registry.collect()[0]?.series).toEqual([
    { labels: { tenant_id: "t", status: "ok" }, recorded: { value: 3 } },
    { labels: { tenant_id: "u", status: "ok" }, recorded: { value: 1 } },
  ]);
  // @ts-expect-error a label is missing
  calls_total.with({ tenant_id: "t" });
  // @ts-expect-error labels must be given
  expect(() => calls_total.with()).not.toThrow();
});

test("a histogram counts each value in the first bucket that holds it, bounds included", () => {
  const registry = createRegistry();
  const series = registry.use(table).call_seconds.with({ status: "ok" });
  for (const value of [0.05, 0.1, 0.5, 2, 3]) series.record(value);
  expect(registry.collect()[2]?.series[0]?.recorded).toEqual({ counts: [2, 1, 2], sum: 5.65 });
});

test("counters without labels show 0 before the first event", () => {
  const registry = createRegistry();
  registry.use(table);
  expect(registry.collect().map(({ name, series }) => [name, series.length])).toEqual([
    ["calls_total", 0],
    ["open_calls", 0],
    ["call_seconds", 0],
    ["ticks_total", 1],
  ]);
});

test("workers of one process share series; a name cannot mean two things", () => {
  const registry = createRegistry();
  registry.use(table).ticks_total.with().add();
  registry
    .use({ ticks_total: counter("Ticks.") })
    .ticks_total.with()
    .add();
  expect(registry.collect()[3]?.series[0]?.recorded).toEqual({ value: 2 });
  expect(() => registry.use({ ticks_total: gauge("Ticks.") })).toThrow("ticks_total is declared twice");
  expect(() => registry.use({ calls_total: counter("Calls.", "tenant_id") })).toThrow("calls_total");
});

test("a gauge can be read when it is collected", () => {
  const registry = createRegistry();
  const { open_calls } = registry.use(table);
  const stop = registry.beforeCollect(() => open_calls.with().add(1));
  registry.collect();
  stop();
  expect(registry.collect()[1]?.series[0]?.recorded).toEqual({ value: 1 });
});

test("labels a caller can choose cannot fill the memory", () => {
  const registry = createRegistry();
  const { calls_total } = registry.use(table);
  for (let index = 0; index < MAX_SERIES + 50; index++)
    calls_total.with({ tenant_id: `t${index}`, status: "ok" }).add();
  const series = registry.collect()[0]?.series ?? [];
  expect(series).toHaveLength(MAX_SERIES + 1);
  expect(series.at(-1)).toEqual({ labels: { "otel.metric.overflow": "true" }, recorded: { value: 50 } });
});

test("the contract's metrics declare together, with ascending buckets and no label that grows without bound", () => {
  const registry = createRegistry();
  for (const metrics of [routerMetrics, intakeMetrics, executionMetrics, gatewayMetrics, executionWorkerMetrics])
    registry.use(metrics);
  const families = registry.collect();
  expect(families.length).toBeGreaterThan(80);
  for (const { name, spec } of families) {
    expect(spec.labels, name).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(trace|run|step|request|assignment)_id$|idempotency/)]),
    );
    expect(
      [...spec.buckets].sort((a, b) => a - b),
      name,
    ).toEqual(spec.buckets);
    expect(spec.sentence, name).toMatch(/\.$/);
  }
});
