import { describe, expect, test } from "vitest";
import { ExecAssignmentAck } from "../gen/beamline/worker/v1/ack.ts";
import { ExecAssignment } from "../gen/beamline/worker/v1/assignment.ts";
import { ExecResult } from "../gen/beamline/worker/v1/result.ts";
import { ackJson, readAck } from "./ack.ts";
import { assignmentOf, deadlineFor, readAssignment, type AssignmentRequest } from "./assignment.ts";
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
    [{ ...flat, cost: -0.1 }, "cost"],
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

const good = {
  version: "1",
  assignment_id: "a",
  request_id: "r",
  tenant_id: "t",
  executor: { provider_id: "p", channel: "nats" },
  job: { type: "chat", payload: { text: "hi" } },
};

describe("assignments", () => {
  test("defaults are filled in, headers go first, ids are found at either place", () => {
    expect(
      readAssignment(
        bytes({ ...good, trace_id: "tr", correlation: { run_id: "run" }, decision: { expected_latency_ms: 2_000 } }),
        { tenant_id: "h" },
      ),
    ).toMatchObject({
      tenant_id: "h",
      options: { priority: 0, deadline_ms: 10_000, retry: { max_attempts: 2, backoff_ms: 200 } },
      correlation: { trace_id: "tr", run_id: "run" },
      publication: 1,
    });
    expect(readAssignment(bytes({ version: "v1", kind: "exec_assign", data: good }), {})).toMatchObject({
      assignment_id: "a",
    });
  });

  test("protobuf is read by the same rules", () => {
    const proto = ExecAssignment.encode(
      ExecAssignment.fromPartial({
        ...good,
        job: { type: "chat", payload: Buffer.from('{"text":"hi"}') },
        options: { deadline_ms: 7_000n, retry: { max_attempts: 3 } },
      }),
    ).finish();
    expect(readAssignment(proto, {})).toMatchObject({
      job: { payload: { text: "hi" } },
      options: { deadline_ms: 7_000, retry: { max_attempts: 3, backoff_ms: 200 } },
    });
  });

  test.each([
    [{ ...good, version: undefined }, "version"],
    [{ ...good, version: "2" }, "version"],
    [{ ...good, assignment_id: "" }, "assignment_id"],
    [{ ...good, assignment_id: "a".repeat(257) }, "assignment_id"],
    [{ ...good, request_id: "\ud800" }, "request_id"],
    [{ ...good, request_id: undefined }, "request_id"],
    [{ ...good, tenant_id: undefined }, "tenant_id"],
    [{ ...good, executor: undefined }, "executor"],
    [{ ...good, executor: { channel: "nats" } }, "executor.provider_id"],
    [{ ...good, executor: { provider_id: "p" } }, "executor.channel"],
    [{ ...good, executor: { provider_id: "p", channel: "smoke" } }, "executor.channel"],
    [{ ...good, job: undefined }, "job"],
    [{ ...good, job: { payload: {} } }, "job.type"],
    [{ ...good, job: { type: "chat" } }, "job.payload"],
    [{ ...good, options: { deadline_ms: -1 } }, "options.deadline_ms"],
    [{ ...good, options: { retry: { max_attempts: "often" } } }, "options.retry.max_attempts"],
  ])("%# is refused by its field", (body, path) => {
    expect(field(() => readAssignment(bytes(body), {}))).toBe(path);
  });

  const request = (more: Partial<AssignmentRequest>): AssignmentRequest => ({
    form: "extended",
    tenant: "t",
    traceId: "tr",
    requestId: "r",
    messageType: "chat",
    runId: "",
    assignmentSubject: "caf.exec.assign.v1",
    body: {},
    ...more,
  });
  const decision = {
    provider_id: "openai:gpt-4o",
    reason: "weighted",
    priority: 50,
    expected_latency_ms: 850,
    expected_cost: 0.012,
    metadata: {},
  };
  const made = (more: Partial<AssignmentRequest>, payload?: string) => {
    const out = assignmentOf(request(more), decision, {
      assignmentId: "a-1",
      traceparent: `00-${"ab".repeat(16)}-${"cd".repeat(8)}-01`,
      ...(payload !== undefined && { payload }),
    });
    return { ...out, json: JSON.parse(out.body) as Record<string, unknown> };
  };

  test("a decision becomes an assignment that every reader takes", () => {
    const out = made({
      body: {
        task: { type: "chat", payload: { text: "hi" }, extra: 1 },
        metadata: { user_id: "u" },
        options: { priority: 80 },
        flow_id: "f",
      },
    });
    expect(out).toMatchObject({
      subject: "caf.exec.assign.v1",
      msgId: "a-1",
      headers: { tenant_id: "t", trace_id: "tr", version: "1", "X-Trace-Id": "tr" },
    });
    expect(out.json).toMatchObject({
      version: "1",
      executor: { provider_id: "openai:gpt-4o", channel: "nats" },
      job: { type: "chat", payload: { text: "hi" }, extra: 1 },
      options: { priority: 80, deadline_ms: 5_000, retry: { max_attempts: 2, backoff_ms: 200 } },
      correlation: { trace_id: "tr", flow_id: "f" },
      trace_id: "tr",
      decision,
      metadata: { user_id: "u" },
    });
    expect(readAssignment(bytes(out.json), out.headers)).toMatchObject({
      assignment_id: "a-1",
      job: { payload: { text: "hi" } },
    });
  });

  test("payloads of every form are handed on as values; a reference goes first; what an extension made replaces both", () => {
    expect(made({ form: "hybrid", body: { message: { payload: '{"text":"hi"}' } } }).json["job"]).toEqual({
      type: "chat",
      payload: { text: "hi" },
    });
    expect(made({ form: "hybrid", body: { message: { payload: "SGVsbG8=" } } }).json["job"]).toEqual({
      type: "chat",
      payload: "SGVsbG8=",
    });
    expect(made({ form: "flat", body: { payload: { a: 1 } } }).json["job"]).toEqual({
      type: "chat",
      payload: { a: 1 },
    });
    expect(made({ body: { task: { type: "chat", payload_ref: "s3://b/k" } } }).json["job"]).toEqual({
      type: "chat",
      payload_ref: "s3://b/k",
      payload: null,
    });
    expect(made({ body: { task: { type: "chat", payload_ref: "s3://b/k" } } }, '{"b":2}').json["job"]).toEqual({
      type: "chat",
      payload: { b: 2 },
    });
  });

  test("the deadline is five times the expected latency, from 5 to 60 seconds", () => {
    expect([0, 500, 2_000, 30_000].map(deadlineFor)).toEqual([5_000, 5_000, 10_000, 60_000]);
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
