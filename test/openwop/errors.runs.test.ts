/** Error codes of runs that fail, read over REST and over gRPC (OpenWOP, errors). */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHost, type Host } from "./host.ts";
import { apply, bare, edge, node } from "./provoke.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";

let host: Host;
let surfaces: readonly Surface[];
const failing: readonly (readonly [code: string, workflowId: string, more?: object])[] = [
  ["recursion_limit_exceeded", "conformance-cap-breach", { configurable: { recursionLimit: 3 } }],
  ["run_timeout", "conformance-run-duration-breach", { configurable: { runTimeoutMs: 200 } }],
  ["capability_not_provided", "conformance-capability-missing"],
  ["approval_rejected", "conformance-approval-timeout"],
  ["unsupported_node_type", "unknown-type"],
  ["unknown_child_workflow", "unknown-child"],
  ["channel_access_denied", "private-channel"],
  ["interrupt_expired", "unanswered"],
  ["loop_limit_exceeded", "endless", { configurable: { maxLoopIterations: 2 } }],
  ["version_out_of_range", "outdated"],
  ["fan_out_unsupported", "fanning-out"],
];
beforeAll(async () => {
  host = await startHost();
  surfaces = [restSurface(host), grpcSurface(host)];
  await apply(host, "unknown-type", [node("n", "acme.never-heard-of")]);
  await apply(host, "unknown-child", [node("n", "core.subWorkflow", { workflowId: "no-such-workflow" })]);
  await apply(host, "private-channel", [node("n", "core.channelWrite", { channelName: "c", value: 1 })], {
    channels: { c: { reducer: "append", access: "private" } },
  });
  await apply(host, "unanswered", [node("n", "core.interrupt", { kind: "custom", timeoutMs: 100 })]);
  await apply(host, "endless", [node("head", "core.loop", { times: 9 }), node("body", "core.noop")], {
    edges: [edge("head", "body"), edge("body", "head")],
  });
  const pinned = (id: string, min: number, max: number): object =>
    node(id, "core.getVersion", { changeId: "c", min, max });
  await apply(host, "outdated", [pinned("was", 1, 1), pinned("is", 2, 3)], { edges: [edge("was", "is")] });
  const both = [{ kind: "next-worker", nextWorkerIds: ["conformance-noop", "conformance-noop"] }];
  await apply(
    host,
    "fanning-out",
    [
      node("lead", "core.orchestrator.supervisor", { mockDecisions: both }),
      node("send", "core.dispatch", { fanOutPolicy: "reject" }),
    ],
    { edges: [edge("lead", "send")] },
  );
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

test.concurrent.each(failing)("%s", { timeout: 20_000 }, async (code, workflowId, more) => {
  const [rest, rpc] = await Promise.all(
    surfaces.map(async (on) => {
      const { body } = await on.create({ workflowId, ...(more as object | undefined) });
      await host.reaches(body.runId, "failed");
      return (await on.get(body.runId)).body;
    }),
  );
  expect(rest.error.code, JSON.stringify(rest.error)).toBe(code);
  expect(rest.error.message).not.toBe("");
  expect(bare(rpc.error)).toEqual(bare(rest.error));
});
