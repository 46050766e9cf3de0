import { describe, expect, test } from "vitest";
import { ExecAssignment } from "../gen/beamline/worker/v1/assignment.ts";
import { assignmentOf, deadlineFor, readAssignment, type AssignmentRequest } from "./assignment.ts";

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
