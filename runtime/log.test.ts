import { spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { expect, test } from "vitest";
import { verifies } from "../test/kit/verifies.ts";
import { ManualClock } from "./clock.ts";
import { loadConfig } from "./config.ts";
import { createLogger, silentLogger } from "./log.ts";
import type { Logger, LogOptions } from "./log.ts";
import { processSettings } from "./settings.ts";
import { InMemorySpanExporter, startTelemetry } from "./telemetry.ts";
import { withSpan } from "./trace.ts";

/** A log and the lines it wrote. */
function logging(options: Partial<LogOptions> = {}): [Logger, () => Record<string, unknown>[]] {
  const lines: string[] = [];
  const clock = new ManualClock(Date.UTC(2026, 10, 20) + 0.25);
  const log = createLogger({ component: "routing", write: (line) => lines.push(line), clock, ...options });
  return [log, () => lines.map((line) => JSON.parse(line) as Record<string, unknown>)];
}

test("a line has exactly the contract's fields", () => {
  const [log, lines] = logging();
  log.info("policy loaded", { policy_id: "p", providers: 2 });
  log.error("nothing more to say");
  expect(lines()).toEqual([
    {
      timestamp: "2026-11-20T00:00:00.000250Z",
      level: "INFO",
      component: "routing",
      message: "policy loaded",
      context: { policy_id: "p", providers: 2 },
    },
    {
      timestamp: expect.any(String),
      level: "ERROR",
      component: "routing",
      message: "nothing more to say",
      context: {},
    },
  ]);
});

test("ids stand at the top, from the child or from the context", () => {
  const [log, lines] = logging();
  log.child({ trace_id: "a", tenant_id: "t" }).warn("x", { run_id: "r", trace_id: "b", n: 1 });
  expect(lines()[0]).toMatchObject({ trace_id: "b", tenant_id: "t", run_id: "r", context: { n: 1 } });
  expect(Object.keys(Object(lines()[0]?.context))).toEqual(["n"]);
});

test("the trace id of the active span is used when none is given", async () => {
  const telemetry = startTelemetry({
    service: "t",
    config: loadConfig(processSettings, {}),
    exporter: new InMemorySpanExporter(),
  });
  const [log, lines] = logging();
  withSpan("x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", undefined, () => log.info("inside"));
  log.info("outside");
  await telemetry.shutdown();
  expect(lines().map((line) => line.trace_id)).toEqual(["0af7651916cd43dd8448eb211c80319c", undefined]);
});

test("levels below the least one are not written, nor their context looked at", () => {
  const [log, lines] = logging({ level: "warn" });
  const costly = {
    get field(): never {
      throw new Error("looked at");
    },
  };
  log.debug("x", costly);
  log.info("x", costly);
  log.warn("x");
  log.error("x");
  expect(lines().map((line) => line.level)).toEqual(["WARN", "ERROR"]);
  expect([log.enabled("info"), log.enabled("warn"), silentLogger.enabled("error")]).toEqual([false, true, false]);
  expect(createLogger({ component: "x", level: "silent" })).toBe(silentLogger);
});

test("secrets are in no part of a line", () => {
  const [log, lines] = logging();
  log.info("called with Bearer hunter2hunter2", {
    headers: { authorization: "hunter2", accept: "json" },
    url: "nats://u:hunter2@host",
    error: new Error("wrong api key hunter2"),
  });
  expect(JSON.stringify(lines())).not.toContain("hunter2");
  expect(lines()[0]).toMatchObject({
    message: "called with [REDACTED]",
    context: {
      headers: { authorization: "[REDACTED]", accept: "json" },
      error: { type: "Error", message: "[REDACTED]" },
    },
  });
});

test("a child can speak for another component", () => {
  const [log, lines] = logging();
  log.child({ component: "intake" }).info("x");
  expect(lines()[0]?.component).toBe("intake");
});

verifies("clear-failure", "a disk that is full costs lines of the log, never the call that spoke", () => {
  const program = `
    const { createLogger } = await import(${JSON.stringify(new URL("log.ts", import.meta.url).href)});
    const log = createLogger({ component: "full" });
    for (let line = 0; line < 30; line++) log.info("x".repeat(100_000));
    setImmediate(() => process.stderr.write("went on"));
  `;
  const full = openSync("/dev/full", "w");
  try {
    const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", full, "pipe"],
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([0, "went on"]);
  } finally {
    closeSync(full);
  }
});
