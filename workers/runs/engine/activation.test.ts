/** What a node throws while the log is being written is the node's failure, and no one else's. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../../bus/connect.ts";
import { ensureStreams } from "../../../bus/streams.ts";
import { buckets, streams } from "../../../contracts/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { systemIds } from "../../../runtime/ids.ts";
import { silentLogger } from "../../../runtime/log.ts";
import { createRegistry } from "../../../runtime/metrics.ts";
import { runRecord } from "../../../test/kit/runrecord.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { RunLog } from "../log.ts";
import { RunMetrics } from "../metrics.ts";
import { Records } from "../records.ts";
import type { ActivationPorts } from "./activation.ports.ts";
import { Activation } from "./activation.ts";
import { graphOf } from "./graph.ts";
import { Invocations } from "./invocations.ts";
import type { NodeType } from "./nodetype.ts";
import { Session } from "./session.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect("worker-runs");
  await ensureStreams(bus, [streams.runs]);
}, 60_000);
afterAll(() => nats?.stop());

/** Runs a workflow of one node of the given type to where it can only wait, and gives its events. */
async function ran(type: NodeType): Promise<readonly [string, unknown][]> {
  const log = new RunLog(bus, systemClock, systemIds);
  const record = runRecord(systemIds.v7());
  const held = await log.create(record, [{ type: "run.started", payload: {} }]);
  const session = await Session.open(log, "acme", record.runId, held);
  if (session === undefined) throw new Error("no run");
  const ports: ActivationPorts = {
    clock: systemClock,
    ids: systemIds,
    logger: silentLogger,
    nodeTypes: new Map([[type.typeId, type]]),
    customType: () => undefined,
    capabilities: new Set(),
    log,
    invocations: new Invocations(new Records(bus, buckets.runInvocations), "w", systemClock, () => undefined),
    limits: { maxNodeExecutions: 100, maxRunDurationMs: 0, maxLoopIterations: 10 },
    metrics: new RunMetrics(createRegistry()),
    shortWaits: { enter: () => false, leave: () => undefined },
    wakeAt: () => Promise.resolve(),
  };
  const graph = graphOf({
    id: "w",
    name: "w",
    version: "1",
    nodes: [{ id: "a", typeId: type.typeId, name: "a", config: {}, inputs: {} }],
    edges: [],
    triggers: [],
    variables: [],
    metadata: {},
    settings: {},
  });
  await new Activation(ports, session, graph).run(false, new AbortController().signal, "", undefined);
  return (await log.events("acme", record.runId)).map(({ type: name, payload }) => [name, payload]);
}

verifies(
  "crash-safe",
  "what a node throws while the log is being written is its failure, not the worker's end",
  async () => {
    const uncaught: unknown[] = [];
    const note = (thrown: unknown): void => void uncaught.push(thrown);
    process.on("unhandledRejection", note);
    try {
      const events = await ran({ typeId: "test.throws", mode: "parked", run: () => Promise.reject(new Error("no")) });
      expect(events.map(([name]) => name)).toContain("node.failed");
      expect(events.at(-1)?.[0]).toBe("run.failed");
    } finally {
      process.off("unhandledRejection", note);
    }
    expect(uncaught).toEqual([]);
  },
);
