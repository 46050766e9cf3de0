/** Replays without effects, masking, retries, loops, custom nodes, backpressure, and thousands of runs that wait. */
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { publish } from "../../bus/publish.ts";
import { canonicalJson } from "../../contracts/openwop/json.ts";
import { withLeaf, type Peaks } from "../../workers/runs/audit/merkle.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startHost, type Host } from "./host.ts";

let host: Host;
let receiver: Server;
let port = 0;
let calls = 0;
beforeAll(async () => {
  receiver = createServer((_request, response) => {
    calls++;
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ n: calls }));
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  ({ port } = receiver.address() as { port: number });
  host = await startHost({ OPENWOP_EGRESS_ALLOW: "127.0.0.1" }, 2);
}, 60_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
  receiver.close();
});

const node = (id: string, typeId: string, config: object = {}, inputs: object = {}, extra: object = {}): object => ({
  id,
  typeId,
  name: id,
  position: { x: 0, y: 0 },
  config,
  inputs,
  ...extra,
});
async function apply(
  id: string,
  nodes: readonly object[],
  arrows: readonly string[] = [],
  more: object = {},
): Promise<void> {
  const edges = arrows.map((arrow, at) => ({
    id: `e${at}`,
    sourceNodeId: arrow.split(">")[0],
    targetNodeId: arrow.split(">")[1],
  }));
  const workflow = {
    id,
    name: id,
    version: "1",
    nodes,
    edges,
    triggers: [],
    variables: [],
    metadata: {},
    settings: {},
    ...more,
  };
  const { status, body } = await host.rest("PUT", `/v1/workflows/${id}`, workflow);
  expect(status, JSON.stringify(body)).toBe(201);
}

verifies("effect-once", "a replay repeats no effect and takes the recorded answers", async () => {
  await apply(
    "effectful",
    [
      node("call", "core.http", { url: `http://127.0.0.1:${port}/`, method: "POST" }),
      node("gate", "core.approvalGate", { title: "go on?" }),
      node("wait", "core.delay", { ms: 300 }),
      node("end", "core.transform", { expression: "outputs.call.body.n" }),
    ],
    ["call>gate", "gate>wait", "wait>end"],
  );
  const runId = await host.start("effectful");
  await host.reaches(runId, "waiting-approval");
  await host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: { action: "accept" } });
  await host.reaches(runId, "completed");
  const before = calls;
  const { body } = await host.rest("POST", `/v1/runs/${runId}:fork`, { mode: "replay" });
  const replay = await host.reaches(body.runId, "completed");
  expect(calls).toBe(before);
  expect(replay.fork).toMatchObject({ sourceRunId: runId, mode: "replay" });
  const types = async (id: string): Promise<string[]> => (await host.events(id)).map(({ type }) => type);
  expect(await types(body.runId)).toEqual(await types(runId));
  const again = await host.rest("POST", `/v1/runs/${body.runId}:fork`, { mode: "replay" });
  await host.reaches(again.body.runId, "completed");
  const branch = await host.rest("POST", `/v1/runs/${runId}:fork`, { mode: "branch", fromSeq: 1 });
  await host.reaches(branch.body.runId, "waiting-approval");
  expect(calls).toBe(before + 1);
});

test("sensitive variables are masked wherever they are shown, and real where they are used", async () => {
  await apply(
    "secretive",
    [
      node("use", "core.transform", { expression: "size(variables.password)" }),
      node("copy", "core.identity", {}, { password: { type: "variable", variableName: "password" } }),
    ],
    ["use>copy"],
    {
      variables: [{ name: "password", type: "string", required: true, sensitive: true }],
    },
  );
  const runId = await host.start("secretive", { inputs: { password: "hunter2hunter2" } });
  const snapshot = await host.reaches(runId, "completed");
  expect(snapshot.variables.password).toBe("[REDACTED]");
  const bundle = await host.rest("GET", `/v1/runs/${runId}/debug-bundle`);
  expect(JSON.stringify([snapshot, await host.events(runId), bundle.body])).not.toContain("hunter2");
  const used = (await host.events(runId)).find(({ type, nodeId }) => type === "node.completed" && nodeId === "use");
  expect(used?.payload).toMatchObject({ outputs: { result: 14 } });
});

test("retries with pauses, a loop, parallel branches, a node that is not registered", async () => {
  await apply("retrying", [
    node("fail", "core.fail", { retryable: true }, {}, { settings: { maxRetries: 2, retryDelayMs: 20 } }),
  ]);
  const retried = await host.start("retrying");
  await host.reaches(retried, "failed");
  expect(
    (await host.events(retried))
      .filter(({ type }) => type === "node.retried")
      .map(({ payload }) => (payload as { attempt: number }).attempt),
  ).toEqual([1, 2]);
  await apply(
    "looping",
    [
      node("head", "core.loop", { times: 3 }),
      node("body", "core.transform", {
        expression: "outputs.head.continue ? {'continue': true} : {'continue': false}",
      }),
      node("after", "core.noop"),
    ],
    ["head>body", "body>head", "head>after"],
  );
  const looped = await host.start("looping", { configurable: { maxLoopIterations: 5 } });
  await host.reaches(looped, "completed", "failed");
  await apply(
    "parallel",
    [
      node("a", "core.noop"),
      node("b", "core.delay", { ms: 50 }),
      node("c", "core.delay", { ms: 50 }),
      node("d", "core.noop"),
    ],
    ["a>b", "a>c", "b>d", "c>d"],
  );
  await host.reaches(await host.start("parallel"), "completed");
  await apply("unregistered", [node("a", "acme.nothing")]);
  expect((await host.reaches(await host.start("unregistered"), "failed")).error.code).toBe("unsupported_node_type");
});

test("custom node types answer on a subject of their own", async () => {
  const bus = await host.bed.nats.connect("custom", "operator");
  bus.nc.subscribe("beamline.ext.node.vendor.acme.double", {
    callback: (_error, message) => {
      const { inputs } = JSON.parse(message.string()) as { inputs: { n: number } };
      message.respond(JSON.stringify({ outputs: { doubled: inputs.n * 2 } }));
    },
  });
  await bus.flush();
  await apply("custom", [node("d", "vendor.acme.double", {}, { n: { type: "static", value: 21 } })]);
  const runId = await host.start("custom");
  await host.reaches(runId, "completed");
  expect((await host.events(runId)).at(-1)?.payload).toMatchObject({ outputs: { d: { doubled: 42 } } });
});

test("the audit log finds an entry that nobody chained", async () => {
  const bus = await host.bed.nats.connect("audit", "operator");
  // Put at the end by somebody with the rights of the operator, with a tail as if it belonged there: what workers write after it is chained to it.
  const { sequence, expected } = await until(async () => {
    const last = await bus.jsm.direct.getMessage("RUN_AUDIT", { last_by_subj: "log.run_audit.entries" });
    const { tail } = JSON.parse(last?.string() ?? "{}") as { tail: { lastHash: string; peaks: Peaks } };
    const forged = {
      sequence: tail.peaks.count,
      ts: "2026-01-01T00:00:00.000Z",
      tenant: "acme",
      principal: "x",
      action: "forged",
      target: "y",
      details: {},
      prevHash: "00",
    };
    const text = canonicalJson(forged);
    const after = {
      ...tail,
      lastHash: createHash("sha256").update(text).digest("hex"),
      peaks: withLeaf(tail.peaks, text),
    };
    await publish(bus, "log.run_audit.entries", JSON.stringify({ entries: [forged], tail: after }), {
      expectLastSubjectSequence: last?.seq ?? 0,
    });
    return { sequence: forged.sequence, expected: tail.lastHash };
  }, "a moment in which no worker writes");
  await host.reaches(await host.start("conformance-noop"), "completed");
  const found = (await host.rest("GET", "/v1/audit/verify?fromSeq=0&toSeq=1000000")).body;
  expect(found.anomalies).toEqual([{ atSeq: sequence, expectedPrevHash: expected, actualPrevHash: "00" }]);
  expect(found.chainValid).toBe(false);
  const before = (await host.rest("GET", `/v1/audit/verify?fromSeq=0&toSeq=${sequence - 1}`)).body;
  expect([before.chainValid, before.anomalies]).toEqual([true, []]);
});

test("a thousand runs wait without being held, and end when they are answered", { timeout: 60_000 }, async () => {
  const ids = await Promise.all(Array.from({ length: 1_000 }, () => host.start("conformance-approval")));
  await until(async () => {
    const families = host.bed.registry.collect();
    const active = families.find(({ name }) => name === "openwop_run_active")?.series[0]?.recorded;
    return active !== undefined && "value" in active && active.value === 0;
  }, "all runs to be put down");
  for (let at = 0; at < ids.length; at += 100) {
    await Promise.all(
      ids
        .slice(at, at + 100)
        .map((runId) => host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: { action: "accept" } })),
    );
  }
  await host.reaches(ids.at(-1) ?? "", "completed");
  await host.reaches(ids[0] ?? "", "completed");
});
