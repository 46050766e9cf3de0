/** Forks from every place in a log (OpenWOP, fork and replay): inside a loop, a question, its answer, a pause; forks of forks. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { startHost, type Host } from "./host.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";
import { edge, node, workflow } from "./workflow.kit.ts";

let calls = 0;
const outside = createServer((_request, response) => {
  calls++;
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ n: calls }));
});

let host: Host;
let source: string;
let told: readonly RunEvent[];
const TURNS = 2;

const accept = { action: "accept" };
const onward = edge("head>note", { type: "equals", left: "output.continue", right: true });

beforeAll(async () => {
  host = await startHost({ OPENWOP_EGRESS_ALLOW: "127.0.0.1" });
  await new Promise<void>((resolve) => outside.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(outside.address() as AddressInfo).port}/`;
  const child = workflow("forked-child", [node("pause", "core.delay", { ms: 20 })]);
  const looped = [
    node("head", "core.loop", { times: TURNS }),
    node("note", "core.channelWrite", { channelName: "notes", value: "seen" }),
    node("call", "core.http", { url, method: "POST", idempotent: true }),
    node("child", "core.subWorkflow", { workflowId: "forked-child" }),
    node("gate", "core.approvalGate", { timeoutMs: 3_600_000 }),
  ];
  await host.rest("PUT", "/v1/workflows/forked-child", child);
  const edges = [onward, "note>call", "call>child", "child>gate", "gate>head"];
  await host.rest("PUT", "/v1/workflows/forked", workflow("forked", looped, { edges }));
  const quick = workflow("forked-quick", [node("wait", "core.delay", { ms: 300 }), node("end")], {
    edges: ["wait>end"],
    settings: { timeout: 2_000 },
  });
  await host.rest("PUT", "/v1/workflows/forked-quick", quick);
  source = await host.start("forked");
  await answerAll(source);
  told = await host.events(source);
}, 60_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  outside.close();
});

/** Answers the gate until the run has ended; its snapshot. */
async function answerAll(runId: string): Promise<Record<string, unknown>> {
  for (let answers = 0; ; answers++) {
    const seen = await host.reaches(runId, "waiting-approval", "completed", "failed");
    if (seen.status !== "waiting-approval" || answers > TURNS) return seen as Record<string, unknown>;
    await host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: accept });
  }
}

const steps = (events: readonly RunEvent[]): string[] => events.map(({ type, nodeId = "" }) => `${type} ${nodeId}`);

describe.each(["rest", "grpc"] as const)("over %s", (name) => {
  let on: Surface;
  beforeAll(() => {
    on = name === "rest" ? restSurface(host) : grpcSurface(host);
  });

  test("a replay from any event comes to the same end by the same events, asks nobody and calls nobody", async () => {
    expect(told.length).toBeGreaterThan(30);
    const before = calls;
    const replays = await Promise.all(told.map(({ sequence }) => on.fork(source, "replay", sequence)));
    for (const [at, { body }] of replays.entries()) {
      await host.reaches(body.runId, "completed", "waiting-approval");
      expect([at, steps(await host.events(body.runId))]).toEqual([at, steps(told)]);
    }
    expect(calls).toBe(before);
  }, 60_000);

  test("a branch from any event goes on to an end, and what its history wrote is written once", async () => {
    const branches = await Promise.all(told.map(({ sequence }) => on.fork(source, "branch", sequence)));
    for (const [at, { body }] of branches.entries()) {
      const { status, channels } = await answerAll(body.runId);
      expect([at, status, channels]).toEqual([at, "completed", { notes: ["seen", "seen"] }]);
    }
  }, 60_000);

  test("a replay of a branch, and of a replay of it, has the effects and children of the branch's history", async () => {
    const middle = told.findIndex(({ type, nodeId }) => type === "node.completed" && nodeId === "head") + 12;
    const branch = await on.fork(source, "branch", middle);
    await answerAll(branch.body.runId);
    const before = calls;
    const replay = await on.fork(branch.body.runId, "replay", 0);
    expect(await host.reaches(replay.body.runId, "completed", "failed")).toMatchObject({ status: "completed" });
    const again = await on.fork(replay.body.runId, "replay", 0);
    expect(await host.reaches(again.body.runId, "completed", "failed")).toMatchObject({ status: "completed" });
    expect(steps(await host.events(again.body.runId))).toEqual(steps(await host.events(branch.body.runId)));
    expect(calls).toBe(before);
  }, 60_000);

  test("a replay takes no part in its source's pauses; a branch from inside one stays paused", async () => {
    const runId = await host.start("forked-quick");
    await on.pause(runId, "immediate");
    await on.resume(runId);
    await host.reaches(runId, "completed");
    const paused = (await host.events(runId)).findIndex(({ type }) => type === "run.paused");
    const replay = await on.fork(runId, "replay", paused + 1);
    await host.reaches(replay.body.runId, "completed");
    const branch = await on.fork(runId, "branch", paused + 1);
    expect((await on.get(branch.body.runId)).body.status).toBe("paused");
  }, 60_000);
});
