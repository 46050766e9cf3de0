import { context, propagation, SpanStatusCode, trace } from "@opentelemetry/api";
import { afterEach, describe, expect, test } from "vitest";
import { loadConfig } from "./config.ts";
import { processSettings } from "./settings.ts";
import { InMemorySpanExporter, startTelemetry } from "./telemetry.ts";
import type { Telemetry } from "./telemetry.ts";
import {
  acceptTraceparent,
  isTraceparent,
  newTraceparent,
  sampledParent,
  spanIdOf,
  SpanKind,
  traceIdOf,
  withSpan,
} from "./trace.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "b7ad6b7169203331";
const on = `00-${TRACE}-${SPAN}-01`;
const off = `00-${TRACE}-${SPAN}-00`;

let telemetry: Telemetry | undefined;
afterEach(async () => {
  await telemetry?.shutdown();
  telemetry = undefined;
});

/** Starts recording into memory, with the given OTEL_ variables. */
function record(env: Record<string, string> = {}) {
  const exporter = new InMemorySpanExporter();
  telemetry = startTelemetry({ service: "test", config: loadConfig(processSettings, env), exporter });
  return () => exporter.getFinishedSpans();
}

describe("traceparent", () => {
  test("fresh ones are valid, different, and flagged as told", () => {
    const made = Array.from({ length: 1_000 }, (_, index) => newTraceparent(index % 2 === 0));
    expect(made.every(isTraceparent)).toBe(true);
    expect(new Set(made.map(traceIdOf)).size).toBe(1_000);
    expect(made.map(sampledParent)).toEqual(made.map((_, index) => index % 2 === 0));
  });

  test("its parts are read", () => {
    expect([traceIdOf(on), spanIdOf(on)]).toEqual([TRACE, SPAN]);
    expect(
      [
        on,
        off,
        on.replace(/01$/, "03"),
        off.replace(/00$/, "02"),
        off.replace(/00$/, "0a"),
        off.replace(/00$/, "0b"),
      ].map(sampledParent),
    ).toEqual([true, false, true, false, false, true]);
    expect([undefined, "", "00-01", on.slice(0, 54)].map(sampledParent)).toEqual([false, false, false, false]);
  });

  test("T1: a valid one is kept, an invalid or missing one is replaced", () => {
    expect(acceptTraceparent(on)).toBe(on);
    expect(acceptTraceparent(off)).toBe(off);
    expect(acceptTraceparent(`cc-${TRACE}-${SPAN}-01-later`)).toBe(on);
    const wrong = [
      undefined,
      "",
      "garbage",
      on.toUpperCase(),
      `ff-${TRACE}-${SPAN}-01`,
      `00-${"0".repeat(32)}-${SPAN}-01`,
      `00-${TRACE}-${"0".repeat(16)}-01`,
      `${on}-more`,
      `${on} `,
    ];
    for (const given of wrong) {
      const fresh = acceptTraceparent(given);
      expect(isTraceparent(fresh)).toBe(true);
      expect(traceIdOf(fresh)).not.toBe(TRACE);
    }
  });
});

describe("T2: nothing is paid for what is not sampled", () => {
  test("without a collector no span is made, also for a sampled caller, and its flag travels on", () => {
    const sent = withSpan("x", on, undefined, (traceparent, span) => [traceparent, span, trace.getActiveSpan()]);
    expect(sent).toEqual([on, undefined, undefined]);
    expect(sampledParent(newTraceparent())).toBe(false);
  });

  test("an unsampled call makes no span and asks for no attributes", () => {
    const spans = record({ OTEL_TRACES_SAMPLER: "parentbased_always_on" });
    const attributes = () => {
      throw new Error("asked");
    };
    expect(withSpan("x", off, attributes, (traceparent, span) => [traceparent, span])).toEqual([off, undefined]);
    expect(spans()).toHaveLength(0);
  });
});

describe("sampled calls", () => {
  test("T3: the span is the caller's child, and what is sent on names the span", () => {
    const spans = record();
    const onward = withSpan("outer", on, { tenant_id: "t" }, (traceparent) =>
      withSpan("inner", traceparent, undefined, (inner) => [traceparent, inner]),
    );
    const [inner, outer] = spans();
    expect(outer?.parentSpanContext?.spanId).toBe(SPAN);
    expect(inner?.parentSpanContext?.spanId).toBe(outer?.spanContext().spanId);
    expect(onward).toEqual([outer, inner].map((span) => `00-${TRACE}-${span?.spanContext().spanId}-01`));
    expect(outer?.attributes).toEqual({ tenant_id: "t" });
    expect(outer?.resource.attributes["service.name"]).toBe("test");
  });

  test("the span is active inside, across awaits, and ends when the promise settles", async () => {
    const spans = record();
    const gate = Promise.withResolvers<void>();
    const running = withSpan(
      "x",
      on,
      undefined,
      async (_, span) => {
        await gate.promise;
        return trace.getActiveSpan() === span;
      },
      SpanKind.SERVER,
    );
    expect(spans()).toHaveLength(0);
    gate.resolve();
    expect(await running).toBe(true);
    expect(spans()[0]?.kind).toBe(SpanKind.SERVER);
  });

  test("an error is passed on and noted, without its secrets", async () => {
    const spans = record();
    const refused = Object.assign(new Error("no route"), { code: "unavailable" });
    expect(() =>
      withSpan("now", on, undefined, () => {
        throw refused;
      }),
    ).toThrow(refused);
    await expect(withSpan("later", on, undefined, () => Promise.reject(new Error("password is 123")))).rejects.toThrow(
      "123",
    );
    const [now, later] = spans();
    expect(now?.status).toEqual({ code: SpanStatusCode.ERROR, message: "no route" });
    expect(now?.attributes["error.type"]).toBe("unavailable");
    expect(later?.status.message).toBe("[REDACTED]");
  });

  test("the W3C propagator is installed for libraries, and gone after shutdown", async () => {
    record();
    const carrier: Record<string, string> = {};
    withSpan("x", on, undefined, () => propagation.inject(context.active(), carrier));
    expect(carrier.traceparent).toMatch(new RegExp(`^00-${TRACE}-`));
    await telemetry?.shutdown();
    telemetry = undefined;
    expect(withSpan("x", on, undefined, (_, span) => span)).toBeUndefined();
    expect(propagation.fields()).toEqual([]);
  });
});

describe("T4: the decision where a trace enters", () => {
  const share = () => Array.from({ length: 20_000 }, () => newTraceparent()).filter(sampledParent).length / 20_000;

  test("is one in a hundred by default, and as told otherwise", async () => {
    record();
    expect(share()).toBeGreaterThan(0.005);
    expect(share()).toBeLessThan(0.02);
    await telemetry?.shutdown();
    record({ OTEL_TRACES_SAMPLER_ARG: "0.5" });
    expect(share()).toBeCloseTo(0.5, 1);
    await telemetry?.shutdown();
    record({ OTEL_TRACES_SAMPLER: "parentbased_always_on" });
    expect(share()).toBe(1);
    await telemetry?.shutdown();
    record({ OTEL_TRACES_SAMPLER: "parentbased_always_off" });
    expect(share()).toBe(0);
  });

  test("follows the caller unless the sampler is told not to", async () => {
    record({ OTEL_TRACES_SAMPLER: "parentbased_always_on" });
    expect(acceptTraceparent(off)).toBe(off);
    await telemetry?.shutdown();
    record({ OTEL_TRACES_SAMPLER: "always_on" });
    expect(acceptTraceparent(off)).toBe(on);
    await telemetry?.shutdown();
    record({ OTEL_TRACES_SAMPLER: "always_off" });
    expect(acceptTraceparent(on)).toBe(off);
  });

  test("by trace id alone comes out the same everywhere", () => {
    record({ OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "0.3" });
    const fresh = Array.from({ length: 1_000 }, () => newTraceparent());
    const flipped = fresh.map((given) => given.slice(0, 53) + (sampledParent(given) ? "00" : "01"));
    expect(flipped.map(acceptTraceparent)).toEqual(fresh);
  });
});
