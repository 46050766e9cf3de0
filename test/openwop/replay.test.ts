/**
 * Replays (OpenWOP, fork and replay; the scenarios `replayDeterminism`, `replay-side-effect-suppression`, `replay-retention-expiry`, `run-diff`
 * and `version-fold`), written from their descriptions. What gRPC has no method for (a diff, a forced version) is asked over REST about runs
 * that were forked and are read over either.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Bucket, jsonCodec } from "../../bus/keyvalue.ts";
import { keyOf, tokenOf } from "../../bus/keys.ts";
import { logTree, RUNS_STREAM } from "../../contracts/openwop/log.ts";
import { buckets } from "../../contracts/streams.ts";
import { logicalInvocationId } from "../../workers/runs/engine/invocations.ts";
import { startHost, type Host } from "./host.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";
import { edge, node, workflow } from "./workflow.kit.ts";

let calls = 0;
const outside = createServer((_request, response) => {
  calls++;
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ n: calls }));
});

let host: Host;
let provider: string;
beforeAll(async () => {
  host = await startHost({ OPENWOP_EGRESS_ALLOW: "127.0.0.1" });
  await new Promise<void>((resolve) => outside.listen(0, "127.0.0.1", resolve));
  const address = `127.0.0.1:${(outside.address() as AddressInfo).port}`;
  provider = `http:${address}`;
  const nodes = [node("call", "core.http", { url: `http://${address}/`, method: "POST" }), node("end")];
  const decisions = [
    { kind: "next-worker", nextWorkerIds: ["conformance-interrupt-parent-child-cancel-child"] },
    { kind: "terminate", reason: "goal-reached" },
  ];
  const gated = [node("lead", "core.orchestrator.supervisor", { decisions }), node("dispatch", "core.dispatch")];
  const child = node("spawn", "core.subWorkflow", { workflowId: "conformance-noop", waitForCompletion: false });
  for (const one of [
    workflow("effectful", nodes, { edges: [edge("call>end")] }),
    workflow("dispatches-a-gate", gated, { edges: ["lead>dispatch", "dispatch>lead"] }),
    workflow("starts-a-child", [child]),
  ])
    expect((await host.rest("PUT", `/v1/workflows/${one.id}`, one)).status).toBe(201);
}, 60_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  outside.close();
});

/** What time does to a log: its oldest messages go. `keep` are the newest that stay. */
async function expire(runId: string, keep: number): Promise<void> {
  const filter = logTree(tokenOf("acme"), tokenOf(runId));
  await host.bed.bus.jsm.streams.purge(RUNS_STREAM, { filter, ...(keep > 0 && { keep }) });
}

const divergence = async (a: string, b: string): Promise<unknown> =>
  (await host.rest("GET", `/v1/runs/${a}:diff?against=${b}`)).body.divergedAtSeq;

describe.each(["rest", "grpc"] as const)("over %s", (name) => {
  let on: Surface;
  beforeAll(() => {
    on = name === "rest" ? restSurface(host) : grpcSurface(host);
  });
  const absent = name === "rest" ? 404 : 5;
  const ended = async (workflowId: string): Promise<string> => {
    const { body } = await on.create({ workflowId });
    await host.reaches(body.runId, "completed");
    return body.runId;
  };

  test("replay-side-effect-suppression, replayDeterminism, run-diff: replays repeat no effect and do not differ; a branch calls anew", async () => {
    const runId = await ended("effectful");
    const before = calls;
    const replays = [await on.fork(runId, "replay", 0), await on.fork(runId, "replay", 0)].map(
      ({ body }) => body.runId,
    );
    for (const replay of replays) {
      await host.reaches(replay, "completed");
      expect(await divergence(replay, runId)).toBe(null);
    }
    expect(await divergence(String(replays[0]), String(replays[1]))).toBe(null);
    expect(calls).toBe(before);
    const branch = await on.fork(runId, "branch", 1);
    await host.reaches(branch.body.runId, "completed");
    expect(calls).toBe(before + 1);
    expect(await divergence(branch.body.runId, runId)).toBeGreaterThan(0);
  });

  test("replay-side-effect-suppression: without its recorded outcome an effect fails closed", async () => {
    const runId = await ended("effectful");
    const before = calls;
    const id = logicalInvocationId("acme", runId, "call", 0, provider);
    const invocations = new Bucket(host.bed.bus, buckets.runInvocations, jsonCodec());
    expect(await invocations.get(keyOf("acme", id))).toMatchObject({ value: { state: "done" } });
    await invocations.delete(keyOf("acme", id));
    const { body } = await on.fork(runId, "replay", 0);
    const replay = await host.reaches(body.runId, "failed");
    expect(replay.error).toMatchObject({ code: "replay_source_missing" });
    expect(calls).toBe(before);
  });

  test.each([
    ["a log", 0],
    ["the beginning of a log", 1],
  ])("replay-retention-expiry: %s that has expired is no run, nor the source of one", async (_what, keep) => {
    const runId = await ended("effectful");
    await expire(runId, keep);
    for (const [mode, fromSeq] of [
      ["replay", 0],
      ["replay", 2],
      ["branch", 2],
    ] as const) {
      const refused = await on.fork(runId, mode, fromSeq);
      expect([mode, fromSeq, refused.status, refused.body.error]).toEqual([mode, fromSeq, absent, "run_not_found"]);
    }
    const reads = [await on.get(runId), await on.stream(runId, ["debug"]), await on.cancel(runId)];
    expect(reads.map(({ status, body }) => [status, body.error])).toEqual(reads.map(() => [absent, "run_not_found"]));
    const bundle = await host.rest("GET", `/v1/runs/${runId}/debug-bundle`);
    expect([bundle.status, bundle.body.error]).toEqual([404, "run_not_found"]);
    const poll = await host.rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=-1&timeout=1`);
    expect([poll.status, poll.body.error]).toEqual([404, "run_not_found"]);
  });

  /** A run whose child waits for an answer. */
  const withChild = async (workflowId: string): Promise<{ runId: string; childId: string }> => {
    const { body } = await on.create({ workflowId });
    const parent = await host.reaches(body.runId, "waiting-approval");
    return { runId: body.runId, childId: parent.childRuns[0].runId };
  };
  /** A replay that has come to where it can only wait for the child of its source. */
  const waitingReplay = async (runId: string): Promise<string> => {
    const { body } = await on.fork(runId, "replay", 0);
    await host.reaches(body.runId, "waiting-approval");
    return body.runId;
  };

  test.each([
    ["core.subWorkflow", "conformance-interrupt-parent-child-cancel"],
    ["core.dispatch", "dispatches-a-gate"],
  ])("a replay of a run whose child is still going on goes on when that child has ended: %s", async (_type, id) => {
    const { runId, childId } = await withChild(id);
    const before = (await host.events(childId)).length;
    const first = await waitingReplay(runId);
    const others = [await waitingReplay(runId), await waitingReplay(first)];
    expect((await host.events(childId)).length).toBe(before);
    await on.resolve(childId, "child-gate", { action: "accept" });
    await host.reaches(runId, "completed");
    for (const replay of [first, ...others]) {
      const { childRuns } = await host.reaches(replay, "completed");
      expect(childRuns[0]).toEqual({ runId: childId, status: "completed" });
      expect(await divergence(replay, runId)).toBe(null);
    }
  });

  test("so it does when the child goes with its cancelled parent, and after every worker was stopped", async () => {
    const { runId, childId } = await withChild("conformance-interrupt-parent-child-cancel");
    const replay = await waitingReplay(runId);
    await host.bed.restart({ OPENWOP_FIXTURES: "true", OPENWOP_EGRESS_ALLOW: "127.0.0.1" });
    await on.cancel(runId);
    await host.reaches(childId, "cancelled");
    expect((await host.reaches(replay, "failed")).error.code).toBe("child_cancelled");
  });

  test("a child nobody waits for is no difference between a run and its replay", async () => {
    const runId = await ended("starts-a-child");
    const [child] = (await on.get(runId)).body.childRuns;
    await host.reaches(child.runId, "completed");
    const { body } = await on.fork(runId, "replay", 0);
    await host.reaches(body.runId, "completed");
    expect(await divergence(body.runId, runId)).toBe(null);
    expect((await on.stream(body.runId, ["debug"])).body).not.toContain("replay.diverged");
  });

  test("version-fold: a run of each version that can be forced is read, forked and told alike", async () => {
    const { min, max } = (await on.capabilities()).body.testing.forceEngineVersionRange as { min: number; max: number };
    for (let version = min; version <= max; version++) {
      const headers = { "x-force-engine-version": String(version) };
      const made = await host.rest("POST", "/v1/runs", { workflowId: "conformance-version-fold" }, headers);
      await host.reaches(made.body.runId, "completed");
      const { body } = await on.get(made.body.runId);
      expect([body.status, body.engineVersion]).toEqual(["completed", String(version)]);
      expect((await on.stream(made.body.runId, ["updates"])).body.at(-1)).toBe("run.completed");
      const fork = await on.fork(made.body.runId, "replay", 0);
      const replay = await host.reaches(fork.body.runId, "completed");
      expect(replay.engineVersion).toBe(String(version));
    }
  });
});
