/**
 * The scenarios of OpenWOP's conformance floor and its core surface, written from their descriptions and run over
 * both surfaces (OpenWOP, conformance suite).
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { KEYS, startHost, type Host } from "./host.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "false" });
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

  test("discovery: the four required fields, without credentials", async () => {
    const { ok, body } = await on.capabilities();
    expect(ok).toBe(true);
    expect(body.protocolVersion).toBe("1.0");
    expect(body.supportedEnvelopes).toContain("clarification.request");
    expect(body.limits).toMatchObject({ clarificationRounds: 3, schemaRounds: 2, envelopesPerTurn: 5 });
    expect(body.fixtures).toContain("conformance-noop");
  });

  verifies("clear-failure", `${name}: without a bearer 401, with a bad one 401, without the scope 403`, async () => {
    for (const key of ["", "hk_test_unknown"]) {
      const refused = await on.create({ workflowId: "conformance-noop" }, { key });
      expect([refused.status, refused.body.error]).toEqual([http(401, 16), "unauthenticated"]);
    }
    const low = await on.create({ workflowId: "conformance-noop" }, { key: KEYS.low });
    expect([low.status, low.body.error, low.body.details.scopeRequired]).toEqual([
      http(403, 7),
      "forbidden",
      "runs:create",
    ]);
    const artifact = await on.artifact("no-such-run", "no-such-artifact", "");
    expect(artifact.status).toBe(http(401, 16));
  });

  test("runs-lifecycle: created, completed, unknown ones are not found", async () => {
    const runId = await started("conformance-noop");
    expect((await host.reaches(runId, "completed")).workflowId).toBe("conformance-noop");
    const unknown = await on.get("no-such-run");
    expect([unknown.status, unknown.body.error]).toEqual([http(404, 5), "run_not_found"]);
  });

  verifies("tenant-wall", `${name}: a run of another tenant is not there`, async () => {
    const runId = await started("conformance-noop");
    const other = await on.get(runId, KEYS.other);
    const unknown = await on.get("no-such-run", KEYS.other);
    expect(other.status).toBe(unknown.status);
    expect(other.body.error).toBe(unknown.body.error);
    expect((await on.cancel(runId, undefined, KEYS.other)).body.error).toBe("run_not_found");
  });

  test("failure-path: the run fails with a code and a message", async () => {
    const { error } = await host.reaches(await started("conformance-failure"), "failed");
    expect(error).toMatchObject({ code: expect.any(String), message: expect.any(String) });
  });

  test("idempotency: the same key is the same run, another body is refused", async () => {
    const idempotencyKey = `key-${name}-${Math.random()}`;
    const body = { workflowId: "conformance-idempotent", inputs: { nonce: "1" } };
    const [first, second] = [await on.create(body, { idempotencyKey }), await on.create(body, { idempotencyKey })];
    expect(second.body.runId).toBe(first.body.runId);
    const other = await on.create({ ...body, inputs: { nonce: "2" } }, { idempotencyKey });
    expect([other.status, other.body.error, other.body.runId]).toEqual([
      http(409, 10),
      "idempotency_key_mismatch",
      undefined,
    ]);
    const parallel = await Promise.all(
      Array.from({ length: 10 }, () => on.create(body, { idempotencyKey: `${idempotencyKey}-p` })),
    );
    expect(new Set(parallel.filter(({ ok }) => ok).map((one) => one.body.runId)).size).toBe(1);
  });

  test("route-coverage: workflows and artifacts", async () => {
    const workflow = await on.workflow("conformance-noop");
    expect(workflow.body).toMatchObject({ id: "conformance-noop", nodes: [{ typeId: "core.noop" }] });
    expect((await on.workflow("no-such")).body.error).toBe("workflow_not_found");
    expect((await on.artifact(await started("conformance-noop"), "nothing")).body.error).toBe("artifact_not_found");
  });

  test("create refuses what is wrong, and names it", async () => {
    expect((await on.create({})).body).toMatchObject({ error: "validation_error", details: { field: "workflowId" } });
    expect((await on.create({ workflowId: "no-such" })).body.error).toBe("workflow_not_found");
    const typed = await on.create({ workflowId: "conformance-delay", inputs: { delayMs: "soon" } });
    expect(typed.body).toMatchObject({ error: "validation_error", details: { field: "inputs.delayMs" } });
    const tagged = await on.create({ workflowId: "conformance-noop", tags: Array.from({ length: 101 }, () => "t") });
    expect(tagged.body.error).toBe("validation_error");
    const recursion = await on.create({ workflowId: "conformance-noop", configurable: { recursionLimit: 0 } });
    expect(recursion.body.details.field).toBe("configurable.recursionLimit");
  });

  test("cancellation: within seconds, again without harm", async () => {
    const runId = await started("conformance-cancellable");
    const { ok, body } = await on.cancel(runId, "enough");
    expect([ok, body.status]).toEqual([true, "cancelled"]);
    await host.reaches(runId, "cancelled");
    const events = await host.events(runId);
    expect(events.at(-1)).toMatchObject({ type: "run.cancelled", payload: { reason: "enough" } });
    expect((events.at(-1)?.payload as object) ?? {}).not.toHaveProperty("parentRunId");
    expect((await on.cancel(runId)).body.status).toBe("cancelled");
    expect((await on.cancel("no-such-run")).body.error).toBe("run_not_found");
  });

  test("bulk-cancel: an outcome each, in order", async () => {
    const running = await started("conformance-cancellable");
    const ended = await started("conformance-noop");
    await host.reaches(ended, "completed");
    const { body } = await on.bulkCancel([running, "no-such-run", ended, running]);
    expect(body.results.map((one: { runId: string }) => one.runId)).toEqual([running, "no-such-run", ended, running]);
    expect(body.results[0]).toMatchObject({ ok: true, status: "cancelled" });
    expect(body.results[1]).toMatchObject({ ok: false, error: { code: "not_found" } });
    expect(body.results[2]).toMatchObject({ ok: false, error: { code: "run_terminal" } });
    expect(body.results[3].ok).toBe(true);
    expect((await on.bulkCancel([])).body.error).toBe("validation_error");
    const many = await on.bulkCancel(Array.from({ length: 101 }, (_, at) => `run-${at}`));
    expect(many.body).toMatchObject({ error: "validation_error", details: { maxRunIds: 100 } });
  });

  test("identity-passthrough: nested JSON comes back as it was", async () => {
    const payload = { text: "ü", list: [1, 2.5, null, { deep: [true] }], nested: { a: { b: { c: "d" } } } };
    const { variables } = await host.reaches(
      await started("conformance-identity", { inputs: { payload } }),
      "completed",
    );
    expect(variables.payload).toEqual(payload);
  });

  test("cap-breach: the limit ends the run before the node starts", async () => {
    const runId = await started("conformance-cap-breach", { configurable: { recursionLimit: 3 } });
    expect((await host.reaches(runId, "failed")).error.code).toBe("recursion_limit_exceeded");
    const events = await host.events(runId);
    const breach = events.find(({ type }) => type === "cap.breached");
    expect(breach?.payload).toMatchObject({ kind: "node-executions", limit: 3, observed: 4, nodeId: "n4" });
    expect(events.filter(({ type }) => type === "node.started").map(({ nodeId }) => nodeId)).toEqual([
      "n1",
      "n2",
      "n3",
    ]);
  });

  test("run-execution-bounds: a run that takes too long", async () => {
    const runId = await started("conformance-run-duration-breach", { configurable: { runTimeoutMs: 300 } });
    expect((await host.reaches(runId, "failed")).error.code).toBe("run_timeout");
    const breach = (await host.events(runId)).find(({ type }) => type === "cap.breached");
    const { limit, observed } = (breach?.payload ?? {}) as { limit: number; observed: number };
    expect(limit).toBe(300);
    expect(observed).toBeGreaterThan(limit);
  });

  test("runtime-capabilities: a node whose requirement is missing is refused before it starts", async () => {
    const runId = await started("conformance-capability-missing");
    const { error } = await host.reaches(runId, "failed");
    expect(error.code).toBe("capability_not_provided");
    expect(error.message).toContain("conformance.never-provided");
    expect((await host.events(runId)).map(({ type }) => type)).toEqual(["run.started", "node.failed", "run.failed"]);
  });

  test("subworkflow: outputs, linkage, input mapping", async () => {
    const runId = await started("conformance-subworkflow-parent");
    const parent = await host.reaches(runId, "completed");
    expect(parent.variables.childOutcome).toBe("child-completed");
    const [child] = parent.childRuns;
    expect((await on.get(child.runId)).body).toMatchObject({
      parentRunId: runId,
      parentNodeId: "run-child",
      status: "completed",
    });
    const done = (await host.events(runId)).find(({ type }) => type === "node.completed");
    expect(done?.payload).toMatchObject({ outputs: { childRunId: child.runId, childStatus: "completed" } });
    const mapped = await host.reaches(await started("conformance-subworkflow-input-mapping"), "completed");
    expect((await on.get(mapped.childRuns[0].runId)).body.variables.receivedPrdId).toBe("from-parent");
    const unset = await host.reaches(await started("conformance-subworkflow-input-mapping-no-default"), "completed");
    expect((await on.get(unset.childRuns[0].runId)).body.variables.receivedPrdId).toBe("baked-in");
  });

  test("channel-ttl: old entries go when the next one comes", async () => {
    const { variables } = await host.reaches(await started("conformance-channel-ttl"), "completed");
    expect(variables.events).toEqual([{ value: "d", _ts: expect.any(Number) }]);
  });

  test("message reducer: a message id is there once", async () => {
    const { variables } = await host.reaches(await started("conformance-message-reducer"), "completed");
    expect(variables.messages).toHaveLength(1);
  });

  test("configurable-schema: shown, and enforced", async () => {
    expect((await on.workflow("conformance-configurable-schema")).body.configurableSchema.additionalProperties).toBe(
      false,
    );
    expect(
      (await on.create({ workflowId: "conformance-configurable-schema", configurable: { bogus: 1 } })).body.error,
    ).toBe("validation_error");
    expect(
      (await on.create({ workflowId: "conformance-configurable-schema", configurable: { recursionLimit: 5 } })).ok,
    ).toBe(true);
  });

  test("stream-text: chunks in order, the last one says so", async () => {
    const runId = await started("conformance-stream-text", {
      configurable: { mockProvider: { id: "stream-text", config: { tokens: ["a", "b", "c", "d"] } } },
    });
    await host.reaches(runId, "completed");
    const chunks = (await host.events(runId))
      .filter(({ type }) => type === "output.chunk")
      .map(({ payload }) => payload as Record<string, unknown>);
    expect(chunks.map(({ chunk }) => chunk)).toEqual(["a", "b", "c", "d"]);
    expect(chunks.at(-1)).toMatchObject({
      isLast: true,
      meta: { finishReason: "stop", usage: { promptTokens: 1, completionTokens: 4 } },
    });
    expect(
      (await on.create({ workflowId: "conformance-stream-text", configurable: { mockProvider: { id: "bogus" } } })).body
        .error,
    ).toBe("unsupported_mock_provider");
    const live = await on.create(
      { workflowId: "conformance-stream-text", configurable: { mockProvider: { id: "stream-text" } } },
      { key: KEYS.live },
    );
    expect([live.status, live.body.error]).toEqual([http(403, 7), "mock_provider_forbidden"]);
  });

  test("pause-resume: immediate", async () => {
    const runId = await started("conformance-delay", { inputs: { delayMs: 400 } });
    const paused = await on.pause(runId, "immediate");
    expect([paused.ok, paused.body.status]).toEqual([true, "paused"]);
    const again = await on.pause(runId, "immediate");
    expect([again.status, again.body.error, again.body.details.runStatus]).toEqual([
      http(409, 9),
      "run_state_conflict",
      "paused",
    ]);
    await host.reaches(runId, "paused");
    expect((await on.resume(runId)).body.status).toBe("running");
    await host.reaches(runId, "completed");
    const types = (await host.events(runId)).map(({ type }) => type);
    expect(types.indexOf("run.resumed")).toBe(types.indexOf("run.paused") + 1);
    expect((await on.resume(runId)).body.details.runStatus).toBe("completed");
    expect((await on.pause(runId)).status).toBe(http(409, 9));
  });

  test("pause-resume: the executing node ends first; the same key again is the same answer", async () => {
    const runId = await started("conformance-channel-ttl");
    const first = await on.pause(runId, "drain-current-node", `pause-${runId}`);
    expect(first.ok).toBe(true);
    expect((await on.pause(runId, "drain-current-node", `pause-${runId}`)).body).toEqual(first.body);
    await host.reaches(runId, "paused");
    const types = (await host.events(runId)).map(({ type }) => type);
    expect(types.at(-1)).toBe("run.paused");
    expect(types.lastIndexOf("node.completed")).toBeLessThan(types.indexOf("run.paused"));
    expect((await on.resume(runId)).ok).toBe(true);
    await host.reaches(runId, "completed");
  });

  test("dispatch: decisions, a child per worker, then the end", async () => {
    const runId = await started("conformance-orchestrator-dispatch");
    const { childRuns, runOrchestrator } = await host.reaches(runId, "completed");
    expect(childRuns).toHaveLength(1);
    expect(runOrchestrator.agentId).toBe("core.conformance.supervisor");
    const decided = (await host.events(runId)).filter(({ type }) => type === "runOrchestrator.decided");
    expect(decided.map(({ payload }) => (payload as { decision: { kind: string } }).decision.kind)).toEqual([
      "next-worker",
      "terminate",
    ]);
    const dispatched = (await host.events(runId)).find(({ type }) => type === "node.dispatched");
    expect(dispatched?.causationId).toBe(decided[0]?.eventId);
    await host.reaches(await started("conformance-dispatch-loop"), "completed");
    await host.reaches(await started("conformance-orchestrator-low-confidence"), "waiting-approval");
  });

  test("webhook-negative: what may not be called is refused", async () => {
    expect((await on.registerWebhook({ url: "https://127.0.0.1/hook", events: ["run.completed"] })).body.error).toBe(
      "webhook_url_rejected",
    );
    expect((await on.registerWebhook({ url: "not a url", events: ["run.completed"] })).body.error).toMatch(
      /validation_error|webhook_url_rejected/,
    );
    expect((await on.registerWebhook({ events: ["run.completed"] })).body.error).toBe("validation_error");
    expect((await on.unregisterWebhook("no-such")).body.error).toBe("subscription_not_found");
  });

  test("audit-log-integrity: the chain is valid", async () => {
    await until(async () => {
      const { ok, body } = await on.verifyAudit(0, 1_000_000);
      return ok && body.chainValid === true && body.checkpoints.length > 0;
    }, "a valid chain with a checkpoint");
    const { body } = await on.verifyAudit(0, 100);
    expect(Object.keys(body).toSorted()).toEqual([
      "anomalies",
      "chainValid",
      "checkpoints",
      "checkpointsValid",
      "fromSeq",
      "toSeq",
    ]);
    expect(body.anomalies).toEqual([]);
    expect((await on.verifyAudit(5, 1)).body.error).toBe("validation_error");
  });

  test("replay-fork: a replay ends as its source did, a branch goes its own way", async () => {
    const runId = await started("conformance-multi-node");
    await host.reaches(runId, "completed");
    const source = await host.events(runId);
    const replay = await on.fork(runId, "replay", 0);
    expect(replay.body.runId).not.toBe(runId);
    await host.reaches(replay.body.runId, "completed");
    expect((await host.events(replay.body.runId)).map(({ type }) => type)).toEqual(source.map(({ type }) => type));
    expect(await host.events(runId)).toEqual(source);
    const branch = await on.fork(runId, "branch", 3, { tags: ["branched"] });
    expect((await host.reaches(branch.body.runId, "completed")).tags).toEqual(["branched"]);
    expect([(await on.fork(runId, "replay", 9_999)).status, (await on.fork(runId, "sideways", 0)).body.error]).toEqual([
      http(422, 9),
      "validation_error",
    ]);
    expect((await on.fork(runId, "replay", 0, { tags: ["x"] })).body.error).toBe("validation_error");
    expect((await on.fork("no-such-run", "replay", 0)).body.error).toBe("run_not_found");
  });
});
