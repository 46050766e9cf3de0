import { describe, expect, test } from "vitest";
import { ExecAssignmentAck } from "../gen/beamline/worker/v1/ack.ts";
import { ExecResult } from "../gen/beamline/worker/v1/result.ts";
import { ackJson, readAck } from "./ack.ts";
import { healthOutcome, stepErrors } from "./catalogue.ts";
import { observe } from "./health.ts";
import { heartbeatJson, readHeartbeat } from "./heartbeat.ts";
import { headerViolations } from "./reading.ts";
import { readResult, resultJson } from "./result.ts";
import { meteredIn, microsOf, usageOf } from "./usage.ts";

const bytes = (body: unknown): Uint8Array => Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
const field = (run: () => unknown): string | undefined => {
  try {
    run();
  } catch (thrown) {
    const { code, field: path, message } = thrown as { code: string; field?: string; message: string };
    expect(code).toBe("invalid_argument");
    expect(message).toContain(path ?? "?");
    return path;
  }
  return undefined;
};

const flat = {
  assignment_id: "a",
  status: "success",
  provider_id: "p",
  job: { type: "chat" },
  latency_ms: 7,
  cost: 0.25,
  tenant_id: "t",
  timestamp: 5,
};

describe("results", () => {
  test("the flat form comes back as it went out", () => {
    const { result, shape } = readResult(bytes(flat), {}, 9);
    expect(shape).toBe("flat");
    expect(resultJson(result)).toEqual({ version: "1", ...flat });
    expect(readResult(bytes(resultJson(result)), {}, 9).result).toEqual(result);
  });

  test("all shapes in the wild are one inside", () => {
    const rust = {
      version: "v1",
      kind: "exec_result",
      data: {
        version: "1.0",
        assignment_id: "a",
        request_id: "",
        status: "success",
        provider_id: "p",
        job_type: "chat",
        output: { x: 1 },
        latency_ms: 7,
        cost: 0.25,
        tenant_id: "t",
      },
    };
    expect(readResult(bytes(rust), {}, 9)).toMatchObject({
      shape: "enveloped",
      result: { job: { type: "chat" }, payload: { x: 1 }, timestamp: 9, latency_ms: 7 },
    });
    const caf = {
      version: "1",
      assignment_id: "a",
      status: "canceled",
      provider_id: "p",
      job: '{"type":"chat"}',
      latency_ms: "7",
      cost: "0.25",
      tenant_id: "t",
    };
    expect(readResult(bytes(caf), {}, 9)).toMatchObject({
      shape: "stringly",
      result: { status: "cancelled", latency_ms: 7, cost: 0.25, job: { type: "chat" } },
    });
    const rich = {
      assignment_id: "a",
      status: "error",
      provider_id: "p",
      job: { type: "chat" },
      result: { payload: 1, metrics: { latency_ms: 3 } },
      error: { code: "NETWORK_ERROR", message: "gone" },
      tenant_id: "t",
    };
    expect(readResult(bytes(rich), {}, 9).result).toMatchObject({
      latency_ms: 3,
      payload: 1,
      error_code: "NETWORK_ERROR",
      error_message: "gone",
    });
    const proto = ExecResult.encode(ExecResult.fromPartial({ ...flat, latency_ms: 7n, timestamp: 0n })).finish();
    expect(readResult(proto, {}, 9)).toMatchObject({
      shape: "protobuf",
      result: { latency_ms: 7, timestamp: 9, job: { type: "chat" } },
    });
  });

  test("headers go before the body", () => {
    expect(readResult(bytes(flat), { tenant_id: "h", trace_id: "tr" }, 9).result).toMatchObject({
      tenant_id: "h",
      trace_id: "tr",
    });
  });

  test.each([
    [{ ...flat, assignment_id: "" }, "assignment_id"],
    [{ ...flat, assignment_id: "a".repeat(257) }, "assignment_id"],
    [{ ...flat, status: undefined }, "status"],
    [{ ...flat, status: "done" }, "status"],
    [{ ...flat, status: 1 }, "status"],
    [{ ...flat, provider_id: "" }, "provider_id"],
    [{ ...flat, job: undefined }, "job.type"],
    [{ ...flat, job: [] }, "job"],
    [{ ...flat, latency_ms: -1 }, "latency_ms"],
    [{ ...flat, latency_ms: "soon" }, "latency_ms"],
    [{ ...flat, latency_ms: 1e300 }, "latency_ms"],
    [{ ...flat, cost: -0.1 }, "cost"],
    [{ ...flat, cost: 1e12 }, "cost"],
    [{ ...flat, timestamp: 1.7e18 }, "timestamp"],
    [{ ...flat, metadata: "x" }, "metadata"],
    [[flat], "body"],
    ["{", "body"],
    ["\u0001\u0002", "body"],
    [{ kind: "heartbeat", data: flat }, "kind"],
  ])("%# is refused by its field", (body, path) => {
    expect(field(() => readResult(bytes(body), {}, 9))).toBe(path);
  });

  test("an error without a code is an unknown error", () => {
    expect(readResult(bytes({ ...flat, status: "error" }), {}, 9).result.error_code).toBe("UNKNOWN_ERROR");
  });

  test("header rules speak only where there are headers", () => {
    expect(headerViolations({}, undefined)).toEqual([]);
    expect(headerViolations({ tenant_id: "t", version: "1" }, "id")).toEqual([]);
    expect(headerViolations({ tenant_id: "", trace_id: "", version: "2" }, undefined)).toEqual([
      "empty_trace_id",
      "empty_tenant_id",
      "version",
      "missing_msg_id",
    ]);
  });
});

describe("acknowledgements", () => {
  test("both JSON variants and protobuf", () => {
    const ack = readAck(
      bytes({
        assignment_id: "a",
        status: "rejected",
        reason: "full",
        correlation: { trace_id: "tr" },
        tenant_id: "t",
        metadata: {},
      }),
      {},
      9,
    );
    expect(ack).toEqual({
      assignment_id: "a",
      status: "rejected",
      message: "full",
      request_id: "",
      trace_id: "tr",
      tenant_id: "t",
      acknowledged_at: 9,
    });
    expect(readAck(bytes(ackJson(ack)), {}, 1)).toEqual(ack);
    expect(
      readAck(
        ExecAssignmentAck.encode(
          ExecAssignmentAck.fromPartial({ assignment_id: "a", status: "accepted", acknowledged_at: 4n }),
        ).finish(),
        { tenant_id: "h" },
        9,
      ),
    ).toMatchObject({ status: "accepted", tenant_id: "h", acknowledged_at: 4 });
  });
  test.each([
    [{ status: "accepted" }, "assignment_id"],
    [{ assignment_id: "a" }, "status"],
    [{ assignment_id: "a", status: "maybe" }, "status"],
  ])("%# is refused by its field", (body, path) => {
    expect(field(() => readAck(bytes(body), {}, 9))).toBe(path);
  });
});

describe("the rest", () => {
  test("heartbeats of both kinds", () => {
    const ours = {
      version: "1",
      worker_id: "w",
      timestamp: "now",
      status: "busy",
      resources: { cpu: 0.5, gpu: 0, mem_bytes: 1, jobs_in_flight: 2 },
      metadata: {},
    };
    expect(heartbeatJson(readHeartbeat(bytes(ours)))).toEqual(ours);
    expect(
      readHeartbeat(
        bytes({
          version: "v1",
          kind: "heartbeat",
          data: { worker_id: "w", timestamp: "now", status: "idle", load: 0.3 },
        }),
      ),
    ).toMatchObject({ status: "ready", resources: { cpu: 0.3 } });
    expect(field(() => readHeartbeat(bytes({ status: "ready" })))).toBe("worker_id");
    expect(field(() => readHeartbeat(bytes({ worker_id: "w", status: "fine" })))).toBe("status");
  });

  test("what counts for a provider's health", () => {
    const say = (status: string, error_code = "", error_message = "") =>
      healthOutcome({ status, error_code, error_message });
    expect([say("success"), say("timeout"), say("cancelled")]).toEqual(["success", "failure", "ignored"]);
    expect(
      ["NETWORK_ERROR", "TIMEOUT", "HTTP_503", "5XX", "PROVIDER_UNAVAILABLE"].map((code) => say("error", code)),
    ).toEqual(Array.from({ length: 5 }, () => "failure"));
    expect(["INVALID_INPUT", "PERMISSION_DENIED", "HTTP_ERROR", "HTTP_404"].map((code) => say("error", code))).toEqual(
      Array.from({ length: 4 }, () => "ignored"),
    );
    expect(say("error", "HTTP_ERROR", "the answer was HTTP 502")).toBe("failure");
    expect(Object.keys(stepErrors)).toHaveLength(15);
  });

  test("health is folded one result at a time", () => {
    const at = (n: number) => ({ latency_ms: 100 * n, cost: n, error_code: "", at_ms: n });
    let health = observe(undefined, "t", "p", { outcome: "success", ...at(1) });
    health = observe(health, "t", "p", { outcome: "failure", ...at(2), error_code: "X" });
    expect(health).toEqual({
      tenant_id: "t",
      provider_id: "p",
      latency_ms: 120,
      error_rate: 0.2,
      cost: 1,
      successes: 1,
      failures: 1,
      consecutive_failures: 1,
      consecutive_successes: 0,
      last_success_ms: 1,
      last_failure_ms: 2,
      last_error_code: "X",
      updated_at_ms: 2,
    });
    expect(observe(health, "t", "p", { outcome: "success", ...at(3) })).toMatchObject({
      consecutive_failures: 0,
      consecutive_successes: 1,
    });
  });

  test("usage is the result's, money is whole micro-dollars", () => {
    const usage = usageOf(readResult(bytes(flat), {}, 9).result);
    expect(usage).toEqual({
      version: "1",
      tenant_id: "t",
      provider_id: "p",
      event_type: "chat",
      latency_ms: 7,
      cost: 0.25,
      status: "success",
      timestamp: 5,
      assignment_id: "a",
    });
    expect(meteredIn({ ...usage })).toMatchObject({ day: "1970-01-01", micros: 250_000 });
    expect(meteredIn({ tenant_id: "t" })).toBeUndefined();
    expect(microsOf(0.1 + 0.2)).toBe(300_000);
  });
});
