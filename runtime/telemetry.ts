/**
 * The one file that knows the OpenTelemetry SDK; everything else speaks to `trace.ts`, `metrics.ts` or the API.
 *
 * Traces: W3C propagation and spans sent over OTLP, only when a collector is configured; otherwise nothing is installed
 * and nothing is paid. Metrics: collected from the process's registry and from whatever uses the OpenTelemetry API, as
 * Prometheus text; the HTTP listener that shows them belongs to the edge or the worker.
 */
import { context, diag, DiagLogLevel, metrics as metricsApi, propagation, trace, ValueType } from "@opentelemetry/api";
import type { DiagLogger, HrTime } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from "@opentelemetry/core";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as ProtobufExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import type { Resource } from "@opentelemetry/resources";
import { AggregationTemporality, DataPointType, MeterProvider } from "@opentelemetry/sdk-metrics";
import type { MetricData, MetricProducer } from "@opentelemetry/sdk-metrics";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  InMemorySpanExporter,
  NodeTracerProvider,
  ParentBasedSampler,
  SimpleSpanProcessor,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-node";
import type { Sampler, SpanExporter } from "@opentelemetry/sdk-trace-node";
import { ATTR_SERVICE_INSTANCE_ID, ATTR_SERVICE_NAME, ATTR_SERVICE_VERSION } from "@opentelemetry/semantic-conventions";
import { systemClock } from "./clock.ts";
import type { Config } from "./config.ts";
import { systemIds } from "./ids.ts";
import { createRegistry } from "./metrics.ts";
import type { Family, Recorded, Registry } from "./metrics.ts";
import { measureProcess } from "./process.metrics.ts";
import type { processSettings } from "./settings.ts";
import { recordWith } from "./trace.ts";

export { InMemorySpanExporter };

/** The settings telemetry reads. */
export type TelemetryConfig = Pick<
  Config<typeof processSettings>,
  Extract<keyof typeof processSettings, `OTEL_${string}`>
>;

export interface TelemetryOptions {
  /** Name of the process on traces and metrics, unless `OTEL_SERVICE_NAME` gives another. */
  readonly service: string;
  readonly version?: string;
  readonly config: TelemetryConfig;
  /** The process's metrics; a new registry when left out. */
  readonly registry?: Registry;
  /** Told what goes wrong inside OpenTelemetry, such as a collector that cannot be reached. */
  readonly onProblem?: (message: string) => void;
  /** Takes spans at once, instead of a collector: for tests. */
  readonly exporter?: SpanExporter;
}

export interface Telemetry {
  readonly registry: Registry;
  /** Whether spans are recorded and sent anywhere. */
  readonly tracing: boolean;
  /** All metrics in Prometheus text format 0.0.4. */
  metricsText(): Promise<string>;
  /**
   * Sends what is waiting and uninstalls everything.
   * @param withinMs how long a collector may keep the process from stopping; 2000 when left out
   */
  shutdown(withinMs?: number): Promise<void>;
}

/** Content type of `metricsText()`. */
export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/**
 * Starts telemetry. Metrics belong to the caller; OpenTelemetry's hooks belong to the process, so when several parts of
 * one process start telemetry (the in-process stack), the first one that traces decides how, and the last to shut down
 * takes the hooks away.
 */
export function startTelemetry(options: TelemetryOptions): Telemetry {
  const { service, version, config, registry = createRegistry(), onProblem } = options;
  const resource = resourceFromAttributes({
    [ATTR_SERVICE_NAME]: config.OTEL_SERVICE_NAME ?? service,
    [ATTR_SERVICE_INSTANCE_ID]: systemIds.v4(),
    ...(version !== undefined && { [ATTR_SERVICE_VERSION]: version }),
  });
  const stopTelling = onProblem && tellProblems(onProblem);
  const stopMeasuring = measureProcess(registry);
  const metrics = startMetrics(resource, registry);
  const stopTracing = startTracing(resource, options);
  return {
    registry,
    tracing: stopTracing !== undefined,
    metricsText: () => metrics.text(),
    async shutdown(withinMs = 2_000) {
      stopMeasuring();
      // The exporter would go on trying for ten seconds to reach a collector that is away.
      const sent = await within(withinMs, stopTracing?.() ?? Promise.resolve());
      if (!sent) diag.warn(`The last spans were not taken by the collector within ${withinMs} ms.`);
      await metrics.shutdown();
      stopTelling?.();
    },
  };
}

/** Whether it went well in time. */
async function within(ms: number, sending: Promise<void>): Promise<boolean> {
  const done = new AbortController();
  const late = systemClock.sleep(ms, done.signal).then(
    () => false,
    () => false,
  );
  const sent = sending.then(
    () => true,
    () => false,
  );
  const result = await Promise.race([sent, late]);
  done.abort();
  return result;
}

interface SharedTracing {
  users: number;
  readonly provider: NodeTracerProvider;
}

let shared: SharedTracing | undefined;

/** Gives back how to stop, or nothing when there is nowhere to send spans. */
function startTracing(resource: Resource, options: TelemetryOptions): (() => Promise<void>) | undefined {
  const { config, exporter } = options;
  if (config.OTEL_SDK_DISABLED || (tracesUrl(config) === undefined && !exporter)) return undefined;
  const tracing = (shared ??= installTracing(resource, options));
  tracing.users += 1;
  return async () => {
    tracing.users -= 1;
    if (tracing.users > 0) return tracing.provider.forceFlush();
    shared = undefined;
    recordWith(undefined);
    trace.disable();
    context.disable();
    propagation.disable();
    return tracing.provider.shutdown();
  };
}

function installTracing(resource: Resource, { config, exporter }: TelemetryOptions): SharedTracing {
  const url = tracesUrl(config);
  const Exporter = config.OTEL_EXPORTER_OTLP_PROTOCOL === "http/json" ? JsonExporter : ProtobufExporter;
  const processor = exporter
    ? new SimpleSpanProcessor(exporter)
    : new BatchSpanProcessor(new Exporter({ ...(url && { url }), headers: headersOf(config) }));
  const [sampler, recording] = sampling(config);
  const provider = new NodeTracerProvider({ resource, sampler, spanProcessors: [processor] });
  provider.register({
    contextManager: new AsyncLocalStorageContextManager(),
    propagator: new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
  });
  recordWith({ tracer: provider.getTracer("beamline"), ...recording });
  return { users: 0, provider };
}

function tracesUrl(config: TelemetryConfig): string | undefined {
  if (config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) return config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  return config.OTEL_EXPORTER_OTLP_ENDPOINT && `${config.OTEL_EXPORTER_OTLP_ENDPOINT.replace(/\/+$/, "")}/v1/traces`;
}

/** `name=value` pairs as W3C baggage writes them; what is not percent-encoded properly is taken as it stands. */
function headersOf({ OTEL_EXPORTER_OTLP_HEADERS: text = "" }: TelemetryConfig): Record<string, string> {
  const pairs = text.split(",").filter((pair) => pair.includes("="));
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      return [pair.slice(0, at).trim(), decoded(pair.slice(at + 1).trim())];
    }),
  );
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

/**
 * The standard samplers. Calls are decided in `trace.ts` before a span exists; the SDK's sampler only follows that,
 * and decides by the same rule for spans that libraries start on their own.
 */
function sampling(config: TelemetryConfig): [Sampler, { parentBased: boolean; ratio: number }] {
  const name = config.OTEL_TRACES_SAMPLER;
  const parentBased = name.startsWith("parentbased_");
  const root = name.replace("parentbased_", "");
  if (root === "always_on") return [new ParentBasedSampler({ root: new AlwaysOnSampler() }), { parentBased, ratio: 1 }];
  if (root === "always_off")
    return [new ParentBasedSampler({ root: new AlwaysOffSampler() }), { parentBased, ratio: 0 }];
  const ratio = config.OTEL_TRACES_SAMPLER_ARG;
  return [new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }), { parentBased, ratio }];
}

function startMetrics(resource: Resource, registry: Registry) {
  const reader = new PrometheusExporter({
    preventServerStart: true,
    metricProducers: [producerOf(registry, resource)],
  });
  const provider = new MeterProvider({ resource, readers: [reader] });
  const own =
    metricsApi.getMeterProvider() instanceof MeterProvider ? false : metricsApi.setGlobalMeterProvider(provider);
  const serializer = new PrometheusSerializer(undefined, false, undefined, false, true);
  return {
    async text() {
      const { resourceMetrics, errors } = await reader.collect();
      for (const error of errors) diag.error("A metric could not be collected.", error);
      return serializer.serialize(resourceMetrics);
    },
    async shutdown() {
      if (own) metricsApi.disable();
      await provider.shutdown();
    },
  };
}

/** The registry in OpenTelemetry's terms. */
function producerOf(registry: Registry, resource: Resource): MetricProducer {
  const startTime = hrTime(performance.timeOrigin);
  return {
    collect() {
      const endTime = hrTime(Date.now());
      const metrics = registry.collect().map((family) => dataOf(family, startTime, endTime));
      return Promise.resolve({
        resourceMetrics: { resource, scopeMetrics: [{ scope: { name: "beamline" }, metrics }] },
        errors: [],
      });
    },
  };
}

function dataOf({ name, spec, series }: Family, startTime: HrTime, endTime: HrTime): MetricData {
  const descriptor = { name, description: spec.sentence, unit: "", valueType: ValueType.DOUBLE };
  const common = { descriptor, aggregationTemporality: AggregationTemporality.CUMULATIVE };
  const points = <T>(value: (recorded: Recorded) => T) =>
    series.map(({ labels, recorded }) => ({ startTime, endTime, attributes: labels, value: value(recorded) }));
  if (spec.kind === "counter") {
    return { ...common, dataPointType: DataPointType.SUM, isMonotonic: true, dataPoints: points(numberOf) };
  }
  if (spec.kind === "gauge") return { ...common, dataPointType: DataPointType.GAUGE, dataPoints: points(numberOf) };
  const buckets = (recorded: Recorded) => bucketsOf(recorded, spec.buckets);
  return { ...common, dataPointType: DataPointType.HISTOGRAM, dataPoints: points(buckets) };
}

function numberOf(recorded: Recorded): number {
  return "value" in recorded ? recorded.value : 0;
}

function bucketsOf(recorded: Recorded, bounds: readonly number[]) {
  const { counts, sum } = "counts" in recorded ? recorded : { counts: [], sum: 0 };
  const count = counts.reduce((total, each) => total + each, 0);
  return { buckets: { boundaries: [...bounds], counts: [...counts] }, sum, count };
}

function hrTime(ms: number): HrTime {
  return [Math.floor(ms / 1000), Math.round((ms % 1000) * 1e6)];
}

const listeners = new Set<(message: string) => void>();

/** Gives back how to stop. */
function tellProblems(listener: (message: string) => void): () => void {
  const problem = (message: string, ...rest: unknown[]) => {
    for (const tell of listeners) tell([message, ...rest.map(textOf)].join(" "));
  };
  const ignored = () => {};
  const logger: DiagLogger = { error: problem, warn: problem, info: ignored, debug: ignored, verbose: ignored };
  if (listeners.size === 0) diag.setLogger(logger, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) diag.disable();
  };
}

function textOf(value: unknown): string {
  return value instanceof Error ? value.message : (JSON.stringify(value) ?? "");
}
