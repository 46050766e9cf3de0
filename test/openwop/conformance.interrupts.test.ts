/** The interrupt family of OpenWOP's conformance suite, written from its descriptions and run over both surfaces. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { KEYS, startHost, type Host } from "./host.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

describe.each(["rest", "grpc"] as const)("over %s", (name) => {
  let on: Surface;
  beforeAll(() => {
    on = name === "rest" ? restSurface(host) : grpcSurface(host);
  });
  /** The status of an error: HTTP, or the gRPC number of the mapping. */
  const http = (status: number, grpc: number): number => (name === "rest" ? status : grpc);
  const started = async (workflowId: string, more: object = {}): Promise<string> => {
    const { ok, body } = await on.create({ workflowId, ...more });
    expect(ok, JSON.stringify(body)).toBe(true);
    return body.runId;
  };

  test("interrupt-approval: accept completes, other actions are refused", async () => {
    const runId = await started("conformance-approval");
    expect((await host.reaches(runId, "waiting-approval")).currentNodeId).toBe("gate");
    const maybe = await on.resolve(runId, "gate", { action: "maybe" });
    expect([maybe.status, maybe.body.error]).toEqual([http(400, 3), "validation_error"]);
    expect((await on.resolve(runId, "nowhere", { action: "accept" })).body.error).toBe("interrupt_not_found");
    expect((await on.pause(runId)).body.details.runStatus).toBe("waiting-approval");
    const accepted = await on.resolve(runId, "gate", { action: "accept" });
    expect([accepted.ok, accepted.body.nodeId]).toEqual([true, "gate"]);
    await host.reaches(runId, "completed");
    expect((await host.events(runId)).find(({ type }) => type === "approval.received")?.payload).toMatchObject({
      action: "accept",
      decidedBy: "tester",
    });
    expect((await on.resolve(runId, "gate", { action: "accept" })).body.error).toBe("interrupt_already_resolved");
  });

  test("interrupt-approval: reject fails the run, or takes the edge for failures; time runs out as a refusal", async () => {
    const refused = await started("conformance-approval");
    await host.reaches(refused, "waiting-approval");
    await on.resolve(refused, "gate", { action: "reject" });
    expect((await host.reaches(refused, "failed")).error.code).toBe("approval_rejected");
    const routed = await started("conformance-approval-reject-routed");
    await host.reaches(routed, "waiting-approval");
    await on.resolve(routed, "gate", { action: "reject" });
    const { nodeStates } = await host.reaches(routed, "completed");
    expect([nodeStates["on-reject"].status, nodeStates["on-accept"].status]).toEqual(["completed", "skipped"]);
    const late = await started("conformance-approval-timeout");
    expect((await host.reaches(late, "failed")).error).toMatchObject({
      code: "approval_rejected",
      details: { reason: "timeout" },
    });
  });

  test("interrupt-clarification: answers as a map or as a list", async () => {
    for (const answers of [{ q1: "blue" }, [{ id: "q1", answer: "blue" }]]) {
      const runId = await started("conformance-clarification");
      expect((await host.reaches(runId, "waiting-input")).currentNodeId).toBe("ask");
      expect((await on.resolve(runId, "ask", { answers: {} })).body.error).toBe("validation_error");
      expect((await on.resolve(runId, "ask", { answers })).ok).toBe(true);
      await host.reaches(runId, "completed");
    }
  });

  test("interrupt-external-event: a token that resolves, a correlation that must match", async () => {
    const runId = await started("conformance-interrupt-external-event");
    const { interrupt } = await host.reaches(runId, "waiting-external");
    const inspected = await on.inspectToken(interrupt.interruptToken);
    expect(inspected.body).toMatchObject({
      kind: "external-event",
      data: { correlation: { orderId: "fixture-order-1" } },
    });
    const wrong = await on.resolveToken(interrupt.interruptToken, { orderId: "another", status: "completed" });
    expect(wrong.body.error).toBe("validation_error");
    await host.reaches(runId, "waiting-external");
    expect(
      (await on.resolveToken(interrupt.interruptToken, { orderId: "fixture-order-1", status: "completed", more: 1 }))
        .ok,
    ).toBe(true);
    await host.reaches(runId, "completed");
    const again = await on.resolveToken(interrupt.interruptToken, { orderId: "fixture-order-1", status: "completed" });
    expect([again.status, again.body.error]).toEqual([http(409, 9), "interrupt_already_resolved"]);
    expect((await on.inspectToken("not-a-token")).body.error).toBe("validation_error");
    const forged = `${Buffer.from(JSON.stringify({ runId, nodeId: "x", interruptId: "y", expiresAt: Date.now() + 1e6, intent: "resolve" })).toString("base64url")}.AAAA`;
    expect([(await on.inspectToken(forged)).status, (await on.resolveToken(forged, {})).status]).toEqual([
      http(404, 5),
      http(404, 5),
    ]);
  });

  test("interrupt-auth-required: a credential, with the scope", async () => {
    const runId = await started("conformance-interrupt-auth-required");
    const { interrupt } = await host.reaches(runId, "waiting-approval");
    expect(interrupt.interruptToken).toBeUndefined();
    expect((await on.resolve(runId, "gate", { action: "accept" }, KEYS.low)).status).toBe(http(403, 7));
    expect((await on.resolve(runId, "gate", { action: "accept" }, "")).status).toBe(http(401, 16));
    expect((await on.resolve(runId, "gate", { action: "accept" })).ok).toBe(true);
    await host.reaches(runId, "completed");
  });

  test("interrupt-quorum: the third accept completes, two refusals fail, a voter counts once", async () => {
    const runId = await started("conformance-interrupt-quorum");
    await host.reaches(runId, "waiting-approval");
    for (const voter of ["ann", "bob", "ann"]) {
      const partial = await on.resolve(runId, "gate", { action: "accept", voter });
      expect([partial.ok, partial.body.status]).toEqual([true, "waiting-approval"]);
    }
    expect((await on.resolve(runId, "gate", { action: "accept", voter: "cid" })).ok).toBe(true);
    await host.reaches(runId, "completed");
    const refused = await started("conformance-interrupt-quorum");
    await host.reaches(refused, "waiting-approval");
    for (const voter of ["ann", "bob"])
      expect((await on.resolve(refused, "gate", { action: "reject", voter })).ok).toBe(true);
    await host.reaches(refused, "failed");
  });

  test("interrupt-parent-child-cascade: the parent's end is the child's", async () => {
    const runId = await started("conformance-interrupt-parent-child-cancel");
    const parent = await host.reaches(runId, "waiting-approval");
    const childId = parent.childRuns[0].runId;
    await host.reaches(childId, "waiting-approval");
    expect((await on.cancel(runId)).ok).toBe(true);
    await host.reaches(childId, "cancelled");
    expect((await host.events(childId)).at(-1)).toMatchObject({
      type: "run.cancelled",
      payload: { reason: "parent-cancelled", parentRunId: runId },
    });
    const late = await on.resolve(childId, "child-gate", { action: "accept" });
    expect([late.status, late.body.error]).toEqual([http(410, 9), "interrupt_gone"]);
  });

  test("interruptRace: two answers, one wins; answer and cancel end in one state", async () => {
    const runId = await started("conformance-approval");
    await host.reaches(runId, "waiting-approval");
    const outcomes = await Promise.all([1, 2, 3, 4].map(() => on.resolve(runId, "gate", { action: "accept" })));
    expect(outcomes.filter(({ ok }) => ok)).toHaveLength(1);
    for (const lost of outcomes.filter(({ ok }) => !ok)) expect(lost.body.error).toBe("interrupt_already_resolved");
    const raced = await started("conformance-approval");
    await host.reaches(raced, "waiting-approval");
    await Promise.all([on.resolve(raced, "gate", { action: "accept" }), on.cancel(raced)]);
    await host.reaches(raced, "completed", "cancelled");
  });
});
