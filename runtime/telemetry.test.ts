import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { metrics as metricsApi } from "@opentelemetry/api";
import { expect, test } from "vitest";
import { spansIn } from "../test/kit/otlp.ts";
import { loadConfig } from "./config.ts";
import { counter, gauge, histogram } from "./metrics.ts";
import { processSettings } from "./settings.ts";
import { InMemorySpanExporter, startTelemetry } from "./telemetry.ts";
import { withSpan } from "./trace.ts";

const sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

test("metrics come out as Prometheus text: ours, the process's, and those of the OpenTelemetry API", async () => {
  const telemetry = startTelemetry({ service: "routing", version: "1.2.3", config: loadConfig(processSettings, {}) });
  try {
    const metrics = telemetry.registry.use({
      calls_total: counter("Calls made.", "status"),
      open_calls: gauge("Calls open."),
      call_seconds: histogram("Time of a call.", [0.1, 1]),
    });
    metrics.calls_total.with({ status: 'o"k' }).add(3);
    metrics.open_calls.with().set(2);
    metrics.call_seconds.with().record(0.5);
    metricsApi.getMeter("library").createCounter("library_things").add(1);

    const text = await telemetry.metricsText();
    const lines = text.split("\n");
    expect(lines).toEqual(
      expect.arrayContaining([
        "# HELP calls_total Calls made.",
        "# TYPE calls_total counter",
        String.raw`calls_total{status="o\"k"} 3`,
        "open_calls 2",
        'call_seconds_bucket{le="0.1"} 0',
        'call_seconds_bucket{le="1"} 1',
        'call_seconds_bucket{le="+Inf"} 1',
        "call_seconds_sum 0.5",
        "call_seconds_count 1",
        "library_things_total 1",
      ]),
    );
    expect(text).toMatch(
      /target_info\{service_name="routing",service_instance_id="[-0-9a-f]+",service_version="1.2.3"\} 1/,
    );
    for (const name of ["process_resident_memory_bytes", "process_cpu_seconds_total", "nodejs_heap_size_used_bytes"]) {
      expect(Number(lines.find((line) => line.startsWith(`${name} `))?.split(" ")[1]), name).toBeGreaterThan(0);
    }
    expect(text).toContain("\nnodejs_eventloop_lag_p99_seconds ");
    expect(telemetry.tracing).toBe(false);
  } finally {
    await telemetry.shutdown();
  }
});

test.each([
  [{}, "application/x-protobuf"],
  [{ OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" }, "application/json"],
])(
  "spans reach the configured collector, with the configured headers, before shutdown ends: %o",
  async (protocol, type) => {
    const received: { url: string | undefined; key: unknown; type: unknown; body: Buffer }[] = [];
    const collector = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (chunk: Buffer) => parts.push(chunk));
      request.on("end", () => {
        const { "x-key": key, "content-type": sent } = request.headers;
        received.push({ url: request.url, key, type: sent, body: Buffer.concat(parts) });
        response.end();
      });
    });
    await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
    // A server that listens on a port says where.
    const { port } = collector.address() as AddressInfo;
    try {
      const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}/` };
      const env = { ...endpoint, ...protocol, OTEL_EXPORTER_OTLP_HEADERS: "x-key=a%20b" };
      const telemetry = startTelemetry({ service: "edge", config: loadConfig(processSettings, env) });
      expect(telemetry.tracing).toBe(true);
      withSpan("beamline.router.decide", sampled, { tenant_id: "t" }, () => {});
      await telemetry.shutdown();
      expect(received).toHaveLength(1);
      expect(received[0]).toMatchObject({ url: "/v1/traces", key: "a b", type });
      expect(spansIn(received[0]?.body ?? Buffer.alloc(0), type)).toMatchObject([
        { service: "edge", name: "beamline.router.decide", traceId: "0af7651916cd43dd8448eb211c80319c" },
      ]);
    } finally {
      await new Promise((resolve) => collector.close(resolve));
    }
  },
);

test("tracing can be turned off whatever else is set", async () => {
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9", OTEL_SDK_DISABLED: "true" };
  const telemetry = startTelemetry({ service: "edge", config: loadConfig(processSettings, env) });
  expect(telemetry.tracing).toBe(false);
  expect(withSpan("x", sampled, undefined, (_, span) => span)).toBeUndefined();
  await telemetry.shutdown();
});

test("parts of one process keep their own metrics and share tracing until the last one stops", async () => {
  const exporter = new InMemorySpanExporter();
  const start = (service: string) => startTelemetry({ service, config: loadConfig(processSettings, {}), exporter });
  const [edge, worker] = [start("edge"), start("worker")];
  edge.registry.use({ edge_total: counter("Calls.") });
  expect(await worker.metricsText()).not.toContain("edge_total");
  await edge.shutdown();
  withSpan("still recorded", sampled, undefined, () => {});
  expect(exporter.getFinishedSpans().map(({ name }) => name)).toEqual(["still recorded"]);
  await worker.shutdown();
  expect(withSpan("no more", sampled, undefined, (_, span) => span)).toBeUndefined();
});

test("a collector that does not answer keeps nobody from stopping, and is told", async () => {
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as AddressInfo;
  const problems: string[] = [];
  const config = loadConfig(processSettings, { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` });
  const telemetry = startTelemetry({ service: "edge", config, onProblem: (problem) => problems.push(problem) });
  withSpan("lost", sampled, undefined, () => {});
  await telemetry.shutdown(20);
  expect(problems).toEqual(["The last spans were not taken by the collector within 20 ms."]);
  silent.closeAllConnections();
  await new Promise((resolve) => silent.close(resolve));
});
