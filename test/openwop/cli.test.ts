/** `beamline runs` and `beamline workflows` against a real host. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CommandContext } from "../../cli/exec.context.ts";
import { runsCommand } from "../../cli/runs.ts";
import { workflowsCommand } from "../../cli/workflows.ts";
import { startRunsBed, type RunsBed } from "../../workers/runs/testbed.ts";
import { until } from "../kit/until.ts";

let bed: RunsBed;
beforeAll(async () => {
  bed = await startRunsBed();
}, 60_000);
afterAll(async () => bed[Symbol.asyncDispose]());

/** What a command printed. */
async function beamline(...args: string[]): Promise<Record<string, unknown>[]> {
  const printed: Record<string, unknown>[] = [];
  const context: CommandContext = {
    connect: async () => ({ bus: bed.bus, caller: bed.caller, [Symbol.asyncDispose]: async () => undefined }),
    out: () => ({
      json: true,
      line: () => undefined,
      record: (record) => void printed.push({ ...record }),
      table: (rows) => void printed.push(...rows.map((row) => ({ ...row }))),
    }),
  };
  const program = new Command("beamline").exitOverride();
  runsCommand(program, context);
  workflowsCommand(program, context);
  await program.parseAsync(["node", "beamline", ...args]);
  return printed;
}

test("start, watch, show, list", async () => {
  const events = await beamline("runs", "start", "conformance-multi-node", "--watch");
  expect(events.at(-1)).toMatchObject({ type: "run.completed" });
  const runId = String(events[0]?.["runId"]);
  expect(await beamline("runs", "show", runId)).toMatchObject([{ runId, status: "completed" }]);
  expect((await beamline("runs", "list"))[0]).toMatchObject({ runId });
  expect((await beamline("runs", "watch", runId)).map(({ type }) => type)).toEqual(events.map(({ type }) => type));
});

test("approve, pause, resume, cancel, fork", async () => {
  const [run] = await beamline("runs", "start", "conformance-approval");
  const runId = String(run?.["runId"]);
  const [answer] = await until(() => beamline("runs", "approve", runId), "the gate");
  expect(answer).toMatchObject({ runId, nodeId: "gate" });
  await until(async () => (await beamline("runs", "show", runId))[0]?.["status"] === "completed");
  const [slow] = await beamline("runs", "start", "conformance-cancellable");
  const slowId = String(slow?.["runId"]);
  expect(await beamline("runs", "pause", slowId, "--now")).toMatchObject([{ status: "paused" }]);
  expect(await beamline("runs", "resume", slowId)).toMatchObject([{ status: "running" }]);
  expect(await beamline("runs", "cancel", slowId, "--reason", "enough")).toMatchObject([{ status: "cancelled" }]);
  expect(await beamline("runs", "fork", runId)).toMatchObject([{ sourceRunId: runId, mode: "replay" }]);
});

test("approve answers the child that a run waits with; a run that waits for nothing is told so", async () => {
  const [run] = await beamline("runs", "start", "conformance-interrupt-parent-child-cancel");
  const runId = String(run?.["runId"]);
  await until(async () => (await beamline("runs", "show", runId))[0]?.["status"] === "waiting-approval");
  const [answer] = await beamline("runs", "approve", runId);
  expect(answer).toMatchObject({ nodeId: "child-gate" });
  expect(answer?.["runId"]).not.toBe(runId);
  await until(async () => (await beamline("runs", "show", runId))[0]?.["status"] === "completed");
  await expect(beamline("runs", "approve", runId)).rejects.toThrow(/waits for nothing: it is completed/);
});

test("workflows are registered from files, and refused with the path of what is wrong", async () => {
  const folder = await mkdtemp(join(tmpdir(), "beamline-workflows-"));
  const node = { id: "a", typeId: "core.noop", name: "a", position: { x: 0, y: 0 }, config: {}, inputs: {} };
  const workflow = {
    id: "from-file",
    name: "from file",
    version: "1",
    nodes: [node],
    edges: [],
    triggers: [],
    variables: [],
    metadata: {},
    settings: {},
  };
  const [good, bad] = [join(folder, "good.json"), join(folder, "bad.json")];
  await writeFile(good, JSON.stringify(workflow));
  await writeFile(bad, JSON.stringify({ ...workflow, nodes: [] }));
  expect(await beamline("workflows", "apply", good)).toMatchObject([{ workflowId: "from-file", changed: true }]);
  expect(await beamline("workflows", "list")).toContainEqual(expect.objectContaining({ workflowId: "from-file" }));
  await expect(beamline("workflows", "apply", bad)).rejects.toThrow(/nodes/);
  await rm(folder, { recursive: true });
});
