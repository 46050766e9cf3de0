/** What runs tell of themselves: metrics, spans and lines of the log under the contract's names; nothing secret in any (OpenWOP, observability). */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadConfig } from "../../runtime/config.ts";
import { processSettings } from "../../runtime/settings.ts";
import { InMemorySpanExporter, startTelemetry, type Telemetry } from "../../runtime/telemetry.ts";
import type { Recorded } from "../../runtime/metrics.ts";
import { newTraceparent, traceIdOf } from "../../runtime/trace.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startHost, type Host } from "./host.ts";
import { edge, node, workflow } from "./workflow.kit.ts";

type ReadableSpan = ReturnType<InMemorySpanExporter["getFinishedSpans"]>[number];

const exporter = new InMemorySpanExporter();
const lines: Record<string, unknown>[] = [];
let telemetry: Telemetry;
let host: Host;
beforeAll(async () => {
  telemetry = startTelemetry({ service: "test", config: loadConfig(processSettings, {}), exporter });
  host = await startHost({ OPENWOP_EGRESS_ALLOW: "127.0.0.1" }, 1, (line) => lines.push(JSON.parse(line)));
}, 60_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  await telemetry.shutdown();
});

const SECRET = "correct-horse-battery";

/** The value of a series, 0 when there is none. A histogram's is how often it was recorded. */
function valueOf(name: string, labels: Readonly<Record<string, string>>): number {
  const family = host.bed.registry.collect().find((one) => one.name === name);
  if (family === undefined) throw new Error(`there is no metric ${name}`);
  const wanted = Object.entries(labels);
  return family.series
    .filter((series) => wanted.every(([label, value]) => series.labels[label] === value))
    .reduce((sum, { recorded }) => sum + numberOf(recorded), 0);
}

function numberOf(recorded: Recorded): number {
  return "value" in recorded ? recorded.value : recorded.counts.reduce((sum, count) => sum + count, 0);
}

async function apply(definition: ReturnType<typeof workflow>): Promise<void> {
  const { status, body } = await host.rest("PUT", `/v1/workflows/${definition.id}`, definition);
  expect(status, JSON.stringify(body)).toBeLessThan(300);
}

test("metrics: each row of the contract counts what it says, once", async () => {
  const receiver = createServer((_request, response) => response.writeHead(503).end());
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
  const settings = { maxRetries: 1, retryDelayMs: 1 };
  await apply(workflow("fails", [node("call", "core.http", { url }, { settings })]));
  await host.reaches(await host.start("fails"), "failed");
  receiver.close();
  const by = { workflow_id: "fails" };
  expect({
    created: valueOf("openwop_run_created", { ...by, tenant_id: "acme" }),
    completed: valueOf("openwop_run_completed", { ...by, run_status: "failed" }),
    duration: valueOf("openwop_run_duration", { ...by, run_status: "failed" }),
    backlog: valueOf("openwop_run_backlog", { ...by, tenant_id: "acme" }),
    nodes: valueOf("openwop_node_completed", { node_type: "core.http", run_status: "failed" }),
    nodeDuration: valueOf("openwop_node_duration", { node_type: "core.http" }),
    attempts: valueOf("openwop_node_attempts", { node_type: "core.http" }),
    retried: valueOf("openwop_node_attempts", { node_type: "core.http", run_status: "retried" }),
    calls: valueOf("openwop_activity_invocations", { run_status: "error" }),
    callDuration: valueOf("openwop_activity_duration", { run_status: "error" }),
  }).toEqual({
    created: 1,
    completed: 1,
    duration: 1,
    backlog: 1,
    nodes: 1,
    nodeDuration: 1,
    attempts: 2,
    retried: 1,
    calls: 2,
    callDuration: 2,
  });
  await until(() => valueOf("openwop_run_active", { tenant_id: "acme" }) === 0, "the run to be put down");
  expect(valueOf("openwop_queue_enqueued", { tenant_id: "acme" })).toBeGreaterThanOrEqual(1);
  await until(() => valueOf("openwop_queue_depth", { tenant_id: "all" }) === 0, "an empty queue");
});

test("metrics: questions count when they are asked, their time when they are answered; an end counts once", async () => {
  const asked = (): number => valueOf("openwop_interrupt_requested", { interrupt_kind: "approval" });
  const answered = (): number => valueOf("openwop_interrupt_duration", { interrupt_kind: "approval" });
  const runId = await host.start("conformance-interrupt-quorum");
  await host.reaches(runId, "waiting-approval");
  expect([asked(), answered()]).toEqual([1, 0]);
  const vote = (voter: string): Promise<unknown> =>
    host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: { action: "accept", voter } });
  for (const voter of ["a", "b", "c"]) await vote(voter);
  await host.reaches(runId, "completed");
  expect([asked(), answered()]).toEqual([1, 1]);
  await host.reaches(await host.start("conformance-approval-timeout"), "failed");
  expect([asked(), answered()]).toEqual([2, 2]);
  const cancelled = await host.start("conformance-cancellable");
  for (let again = 0; again < 3; again++) await host.rest("POST", `/v1/runs/${cancelled}/cancel`);
  await host.reaches(await host.start("conformance-cap-breach", { configurable: { recursionLimit: 3 } }), "failed");
  const ends = (run_status: string, workflow_id: string): number =>
    valueOf("openwop_run_completed", { run_status, workflow_id });
  expect([ends("cancelled", "conformance-cancellable"), ends("failed", "conformance-cap-breach")]).toEqual([1, 1]);
  expect(valueOf("openwop_cap_exceeded", { cap_kind: "node-executions" })).toBe(1);
});

verifies("one-trace", "a sampled run: its spans, their parents and their attributes", async () => {
  const trace = "0af7651916cd43dd8448eb211c80319c";
  await apply(
    workflow("seen", [node("start"), node("child", "core.subWorkflow", { workflowId: "conformance-noop" })], {
      edges: [edge("start>child")],
      metadata: { complianceClass: "pii" },
      variables: [{ name: "password", type: "string", sensitive: true }],
    }),
  );
  const body = { workflowId: "seen", inputs: { password: SECRET }, tags: ["t"], metadata: { ticket: 7 }, scopeId: "s" };
  const created = await host.rest("POST", "/v1/runs", body, { traceparent: `00-${trace}-b7ad6b7169203331-01` });
  const { childRuns } = await host.reaches(created.body.runId, "completed");
  const spans = await until(() => {
    const all = exporter.getFinishedSpans().filter((span) => span.spanContext().traceId === trace);
    return all.some(({ name }) => name === "openwop.run") && all;
  }, "the spans");
  const of = (name: string, runId: string): (typeof spans)[number] | undefined =>
    spans.find((span) => span.name === name && span.attributes["openwop.run_id"] === runId);
  const { runId } = created.body as { runId: string };
  const run = of("openwop.run", runId);
  expect(run?.attributes).toMatchObject({
    "openwop.workflow_id": "seen",
    "openwop.protocol_version": "1.0",
    "openwop.tenant_id": "acme",
    "openwop.scope_id": "s",
    "openwop.run.tags": "t",
    "openwop.run.metadata.ticket": 7,
    "openwop.compliance_class": "pii",
    "openwop.pii_present": true,
    "openwop.sensitive_fields": "password",
  });
  const attempt = of("openwop.node.core.noop.attempt", runId);
  const execution = of("openwop.node.core.noop", runId);
  expect(attempt?.parentSpanContext?.spanId).toBe(execution?.spanContext().spanId);
  expect(execution?.parentSpanContext?.spanId).toBe(run?.spanContext().spanId);
  expect(attempt?.attributes).toMatchObject({
    "openwop.node_id": "start",
    "openwop.node_type": "core.noop",
    "openwop.node_attempt": 0,
    "openwop.event_seq": expect.any(Number),
  });
  const child = of("openwop.run", childRuns[0].runId);
  expect(child?.attributes).toMatchObject({
    "openwop.parent.run_id": runId,
    "openwop.parent.workflow_id": "seen",
    "openwop.parent.node_id": "child",
  });
  const starts = spans.filter(({ name }) => name === "openwop.node.core.subWorkflow.attempt");
  expect(starts.map((span) => span.spanContext().spanId)).toContain(child?.parentSpanContext?.spanId);
  expect(of("openwop.event.append", runId)?.attributes).toMatchObject({
    "openwop.event_type": expect.any(String),
    "openwop.event_seq": expect.any(Number),
  });
  expect(JSON.stringify(spans.map(({ attributes }) => attributes))).not.toContain(SECRET);
});

/** A fresh sampled trace, and its spans with this name of a run once there are `count`. */
function sampled(): {
  readonly traceparent: string;
  named(this: void, name: string, runId: string, count: number): Promise<ReadableSpan[]>;
} {
  const traceparent = newTraceparent(true);
  return {
    traceparent,
    named: (name, runId, count) =>
      until(() => {
        const found = exporter
          .getFinishedSpans()
          .filter((span) => span.name === name && span.attributes["openwop.run_id"] === runId)
          .filter((span) => span.spanContext().traceId === traceIdOf(traceparent));
        return found.length >= count && found;
      }, `${count} spans ${name}`),
  };
}

const startedAs = async (workflowId: string, traceparent: string): Promise<string> =>
  (await host.rest("POST", "/v1/runs", { workflowId }, { traceparent })).body.runId as string;

const millis = ([seconds, nanos]: readonly [number, number]): number => seconds * 1_000 + nanos / 1_000_000;

test("the span of a question goes from its asking to what ended it: an answer, its deadline, the end of its run", async () => {
  const { traceparent, named } = sampled();
  const answered = await startedAs("conformance-approval", traceparent);
  const cancelled = await startedAs("conformance-clarification", traceparent);
  const late = await startedAs("conformance-approval-timeout", traceparent);
  await host.reaches(answered, "waiting-approval");
  await host.reaches(cancelled, "waiting-input");
  expect(await named("openwop.interrupt", answered, 0)).toEqual([]);
  await host.rest("POST", `/v1/runs/${answered}/interrupts/gate`, { resumeValue: { action: "accept" } });
  await host.rest("POST", `/v1/runs/${cancelled}/cancel`);
  await host.reaches(answered, "completed");
  await host.reaches(late, "failed");
  for (const [runId, kind, last] of [
    [answered, "approval", "interrupt.resolved"],
    [cancelled, "clarification", "run.cancelled"],
    [late, "approval", "interrupt.resolved"],
  ] as const) {
    const [span, ...others] = await named("openwop.interrupt", runId, 1);
    expect(others).toEqual([]);
    const runs = await named("openwop.run", runId, 1);
    expect(runs.map((one) => one.spanContext().spanId)).toContain(span?.parentSpanContext?.spanId);
    const events = await host.events(runId);
    const at = (type: string): number => Date.parse(events.find((one) => one.type === type)?.timestamp ?? "");
    expect(span?.attributes).toMatchObject({
      "openwop.interrupt_kind": kind,
      "openwop.interrupt_id": expect.any(String),
      "openwop.interrupt_count": 1,
    });
    expect(millis(span?.startTime ?? [0, 0])).toBe(at("interrupt.requested"));
    const asked = events.find(({ type }) => type === "interrupt.requested")?.payload;
    const timeoutMs = (asked as { timeoutMs?: number } | undefined)?.timeoutMs ?? 0;
    const over = runId === late ? at("interrupt.requested") + timeoutMs : at(last);
    expect(over).toBeGreaterThan(0);
    expect(millis(span?.endTime ?? [0, 0])).toBeGreaterThanOrEqual(over);
  }
});

test("the span of a fork links to the span of its source, in whatever trace it is; without a source there is no link", async () => {
  const source = sampled();
  const runId = await startedAs("conformance-approval", source.traceparent);
  await host.reaches(runId, "waiting-approval");
  const [first] = await source.named("openwop.run", runId, 1);
  await host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: { action: "accept" } });
  await host.reaches(runId, "completed");
  expect(first?.links).toEqual([]);
  for (const body of [{ mode: "replay" }, { mode: "branch", fromSeq: 1 }]) {
    const own = sampled();
    const fork = await host.rest("POST", `/v1/runs/${runId}:fork`, body, { traceparent: own.traceparent });
    await host.reaches(fork.body.runId, "completed", "waiting-approval");
    const [span] = await own.named("openwop.run", fork.body.runId, 1);
    expect(span?.links.map(({ context }) => [context.traceId, context.spanId])).toEqual([
      [traceIdOf(source.traceparent), first?.spanContext().spanId],
    ]);
    expect(span?.attributes).toMatchObject({
      "openwop.replay.source_run_id": runId,
      "openwop.replay.mode": body.mode,
      "openwop.replay.from_seq": body.fromSeq ?? 0,
    });
  }
});

test("a line of the log for each end, and no secret in any line", async () => {
  const line = await until(() => lines.find((one) => "errorCode" in (one["context"] as object)), "it");
  expect(line).toMatchObject({
    run_id: expect.any(String),
    tenant_id: "acme",
    trace_id: expect.any(String),
    context: { metricKind: "openwop.run.completed", status: "failed", errorCode: expect.any(String) },
  });
  expect(JSON.stringify(lines)).not.toContain(SECRET);
});
