/** Questions and their answers: what is asked, which answers fit, who may give them, and with what (OpenWOP, interrupts). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startHost, type Got, type Host } from "./host.ts";
import { apply, node, retired, soon, TOKEN_SECRETS, waiting } from "./provoke.ts";
import { grpcSurface, restSurface, type Reply, type Surface } from "./surface.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost({ OPENWOP_TOKEN_SECRETS: TOKEN_SECRETS }, 2);
  await apply(host, "every-action", [
    node("gate", "core.approvalGate", {
      title: "Publish?",
      description: "the draft",
      artifactId: "draft-1",
      artifactType: "document",
      artifactData: { text: "draft" },
      actions: ["accept", "reject", "refine", "edit-accept", "ask"],
      timeoutMs: 3_600_000,
    }),
  ]);
  await apply(host, "approvers", [
    node("gate", "core.approvalGate", {
      title: "?",
      approversList: ["ann", "bob"],
      requiredApprovals: 2,
      rejectionPolicy: "majority",
    }),
  ]);
  await apply(host, "custom", [
    node("ask", "core.interrupt", {
      kind: "custom",
      data: { customKind: "colour", payload: { of: "sky" } },
      resumeSchema: { type: "object", required: ["colour"], properties: { colour: { enum: ["blue", "grey"] } } },
    }),
  ]);
  await apply(host, "questions", [
    node("ask", "core.clarificationGate", {
      questions: [
        { id: "q1", question: "How many?", schema: { type: "integer", minimum: 1 } },
        { id: "q2", question: "Which?" },
      ],
    }),
  ]);
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

describe.each(["rest", "grpc"] as const)("over %s", (name) => {
  let on: Surface;
  beforeAll(() => {
    on = name === "rest" ? restSurface(host) : grpcSurface(host);
  });
  const asked = async (runId: string): Promise<Got["body"]> => (await on.get(runId)).body.interrupt;
  const bad = (reply: Reply): unknown => [reply.status, reply.body.error];
  const refused = [name === "rest" ? 400 : 3, "validation_error"];
  const received = async (runId: string): Promise<Got["body"]> =>
    (await host.events(runId)).findLast(({ type }) => type === "approval.received")?.payload;

  test("approval-payload: what is asked, in the snapshot, the token's view and the events", async () => {
    const runId = await waiting(host, "every-action", "waiting-approval");
    const { interruptToken, key } = await asked(runId);
    const data = {
      artifactId: "draft-1",
      artifactType: "document",
      title: "Publish?",
      description: "the draft",
      artifactData: { text: "draft" },
      actions: ["accept", "reject", "refine", "edit-accept", "ask"],
      requiredApprovals: 1,
    };
    const payload = { kind: "approval", key: expect.stringMatching(/^.{1,256}$/), data, timeoutMs: 3_600_000 };
    expect((await on.inspectToken(interruptToken)).body).toEqual(payload);
    expect(key).toContain(runId);
    const events = await host.events(runId);
    const types = events.map(({ type }) => type);
    expect(types).toEqual(expect.arrayContaining(["node.suspended", "interrupt.requested", "approval.requested"]));
    const requested = events.find(({ type }) => type === "interrupt.requested");
    // The five members of the contract and no others: its schema of this payload is closed.
    expect([requested?.payload, requested?.nodeId]).toEqual([payload, "gate"]);
    const approval = events.find(({ type }) => type === "approval.requested");
    expect(approval?.payload).toMatchObject({
      nodeId: "gate",
      artifactId: "draft-1",
      artifactType: "document",
      actions: data.actions,
    });
  });

  test("actions: each with what it needs, none without; asking leaves the question open", async () => {
    const runId = await waiting(host, "every-action", "waiting-approval");
    for (const wrong of [
      {},
      { action: "maybe" },
      { action: 1 },
      { action: "ask" },
      { action: "refine" },
      { action: "edit-accept" },
      { decision: "perhaps" },
    ])
      expect([wrong, bad(await on.resolve(runId, "gate", wrong))]).toEqual([wrong, refused]);
    expect((await on.get(runId)).body.status).toBe("waiting-approval");
    const edited = { action: "edit-accept", editedArtifactData: { text: "better" } };
    expect((await on.resolve(runId, "gate", edited)).ok).toBe(true);
    const done = await host.reaches(runId, "completed");
    expect(await received(runId)).toMatchObject({
      action: "edit-accept",
      decidedBy: "tester",
      editedArtifactData: { text: "better" },
    });
    expect(done.nodeStates.gate.status).toBe("completed");
    const refining = await waiting(host, "every-action", "waiting-approval");
    const feedback = { scope: "section", sectionPath: "intro", text: "shorter" };
    expect((await on.resolve(refining, "gate", { action: "refine", refineFeedback: feedback })).ok).toBe(true);
    await host.reaches(refining, "completed");
    expect(await received(refining)).toMatchObject({ action: "refine", refineFeedback: feedback });
  });

  test("decisions as they were written before: approved, rejected, rejected with feedback", async () => {
    for (const [given, action, status] of [
      [{ decision: "approved" }, "accept", "completed"],
      [{ decision: "rejected" }, "reject", "failed"],
      [{ decision: "rejected", feedback: "shorter" }, "refine", "completed"],
    ] as const) {
      const runId = await waiting(host, "every-action", "waiting-approval");
      expect((await on.resolve(runId, "gate", given)).ok).toBe(true);
      await host.reaches(runId, status);
      expect((await received(runId)).action).toBe(action);
    }
  });

  test("approvers: nobody else's vote counts; a majority of refusals fails the gate", async () => {
    const runId = await waiting(host, "approvers", "waiting-approval");
    const stranger = await on.resolve(runId, "gate", { action: "accept", voter: "eve" });
    expect(bad(stranger)).toEqual([name === "rest" ? 403 : 7, "forbidden"]);
    expect((await on.resolve(runId, "gate", { action: "reject", voter: "ann" })).body.status).toBe("waiting-approval");
    expect((await on.resolve(runId, "gate", { action: "accept", voter: "ann" })).body.status).toBe("waiting-approval");
    expect((await on.resolve(runId, "gate", { action: "accept", voter: "bob" })).ok).toBe(true);
    await host.reaches(runId, "completed");
    const votes = (await host.events(runId)).filter(({ type }) => type === "approval.received");
    expect(votes.map(({ payload }) => (payload as { decidedBy: string }).decidedBy)).toEqual(["ann", "ann", "bob"]);
    for (const { payload } of votes) expect(payload).toMatchObject({ decidedAt: expect.stringMatching(/Z$/) });
    const vetoed = await waiting(host, "approvers", "waiting-approval");
    for (const voter of ["ann", "bob"]) await on.resolve(vetoed, "gate", { action: "reject", voter });
    expect((await host.reaches(vetoed, "failed")).error.code).toBe("approval_rejected");
  });

  test("a schema of the answer is held to, and the question shows it", async () => {
    const runId = await waiting(host, "custom", "waiting-input");
    const { resumeSchema, interruptToken, data } = await asked(runId);
    expect([resumeSchema.required, data.customKind]).toEqual([["colour"], "colour"]);
    expect((await on.inspectToken(interruptToken)).body.resumeSchema).toEqual(resumeSchema);
    for (const wrong of [{}, { colour: "red" }]) expect(bad(await on.resolve(runId, "ask", wrong))).toEqual(refused);
    expect((await on.resolve(runId, "ask", { colour: "grey" })).ok).toBe(true);
    await host.reaches(runId, "completed");
    const resolved = (await host.events(runId)).find(({ type }) => type === "interrupt.resolved");
    expect(resolved?.payload).toMatchObject({ nodeId: "ask", kind: "custom", resumeValue: { colour: "grey" } });
  });

  test("answers to every question, each as its schema says", async () => {
    const runId = await waiting(host, "questions", "waiting-input");
    const wrong = [
      {},
      { answers: {} },
      { answers: { q1: 1 } },
      { answers: { q1: 0, q2: "b" } },
      { answers: [{ id: "q1", answer: "many" }] },
    ];
    for (const given of wrong) expect([given, bad(await on.resolve(runId, "ask", given))]).toEqual([given, refused]);
    expect((await on.resolve(runId, "ask", { answers: { q1: 3, q2: "b" } })).ok).toBe(true);
    await host.reaches(runId, "completed");
    const resolved = (await host.events(runId)).find(({ type }) => type === "clarification.resolved");
    expect(resolved?.payload).toMatchObject({ nodeId: "ask", answers: { q1: 3, q2: "b" } });
  });

  test("a token answers a gate without a credential, and its holder is named; not where a credential is demanded", async () => {
    const runId = await waiting(host, "conformance-approval", "waiting-approval");
    const { interruptToken, interruptId } = await asked(runId);
    expect((await on.resolveToken(interruptToken, { action: "accept" })).ok).toBe(true);
    await host.reaches(runId, "completed");
    expect((await received(runId)).decidedBy).toBe(`token:${interruptId}`);
    const demanding = await waiting(host, "conformance-interrupt-auth-required", "waiting-approval");
    const shown = await asked(demanding);
    expect([shown.interruptToken, shown.callbackUrl]).toEqual([undefined, undefined]);
    const { nodeId, interruptId: id } = shown;
    const question = {
      tenant: "acme",
      runId: demanding,
      nodeId,
      interruptId: id,
      expiresAt: soon(),
      intent: "resolve",
    } as const;
    const bare = await on.resolveToken(retired.sign(question), { action: "accept" });
    expect(bad(bare)).toEqual([name === "rest" ? 403 : 7, "forbidden"]);
    expect((await on.get(demanding)).body.status).toBe("waiting-approval");
  });

  test("cancel of a completed run is no error; a late answer to it hears that it is too late", async () => {
    const runId = await waiting(host, "conformance-approval", "waiting-approval");
    await on.resolve(runId, "gate", { action: "accept" });
    await host.reaches(runId, "completed");
    expect((await on.cancel(runId)).body.status).toBe("completed");
    const late = await on.resolve(runId, "gate", { action: "reject" });
    expect(bad(late)).toEqual([name === "rest" ? 409 : 9, "interrupt_already_resolved"]);
  });
});

test("bodies that are no answer", async () => {
  const runId = await waiting(host, "conformance-approval", "waiting-approval");
  const { interruptToken } = (await host.rest("GET", `/v1/runs/${runId}`)).body.interrupt;
  for (const body of ["", "{}", "[]", '{"resumeValue":{"action":"accept"},"more":1}', "nonsense"]) {
    for (const path of [`/v1/runs/${runId}/interrupts/gate`, `/v1/interrupts/${interruptToken}`]) {
      const reply = await host.rest("POST", path, body);
      expect([body, reply.status, reply.body.error]).toEqual([body, 400, "validation_error"]);
    }
  }
  expect((await host.rest("GET", `/v1/runs/${runId}`)).body.status).toBe("waiting-approval");
});
