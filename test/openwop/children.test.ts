/** Child runs and the ends of their parents (OpenWOP, sub-workflows): who goes with whom. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHost, type Host } from "./host.ts";
import { node, workflow } from "./workflow.kit.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost({}, 2);
  const gate = "conformance-interrupt-parent-child-cancel-child";
  const starts = node("starts", "core.subWorkflow", { workflowId: gate, waitForCompletion: false });
  const waits = node("waits", "core.subWorkflow", { workflowId: gate });
  const late = node("late", "core.approvalGate", { title: "go on?" });
  for (const one of [
    workflow("starts-and-ends", [starts]),
    workflow("starts-and-fails", [starts, node("fail", "core.fail")], { edges: ["starts>fail"] }),
    workflow("starts-and-asks", [starts, late], { edges: ["starts>late"] }),
    workflow("waits-and-fails", [waits, node("fail", "core.fail")]),
  ])
    expect((await host.rest("PUT", `/v1/workflows/${one.id}`, one)).status).toBe(201);
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

const childOf = async (runId: string): Promise<string> =>
  (await host.rest("GET", `/v1/runs/${runId}`)).body.childRuns[0].runId;

test.each([
  ["starts-and-ends", "completed"],
  ["starts-and-fails", "failed"],
])("%s: a child that nobody waits for goes on and can be answered", async (workflowId, status) => {
  const runId = await host.start(workflowId);
  await host.reaches(runId, status);
  const child = await childOf(runId);
  await host.reaches(child, "waiting-approval");
  const answer = await host.rest("POST", `/v1/runs/${child}/interrupts/child-gate`, {
    resumeValue: { action: "accept" },
  });
  expect(answer.status).toBe(200);
  await host.reaches(child, "completed");
  expect((await host.rest("GET", `/v1/runs/${runId}`)).body).toMatchObject({
    status,
    childRuns: [{ runId: child, status: "completed" }],
  });
});

test("a cancelled parent takes along whom it started, a failed one whom it waited for", async () => {
  const asked = await host.start("starts-and-asks");
  await host.reaches(asked, "waiting-approval");
  await host.rest("POST", `/v1/runs/${asked}/cancel`, {});
  const failed = await host.start("waits-and-fails");
  await host.reaches(failed, "failed");
  for (const [parentRunId, reason] of [
    [asked, "parent-cancelled"],
    [failed, "parent-ended"],
  ] as const) {
    const child = await childOf(parentRunId);
    await host.reaches(child, "cancelled");
    expect((await host.events(child)).at(-1)?.payload).toMatchObject({ reason, parentRunId });
  }
});
