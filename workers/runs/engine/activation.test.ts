/** A run whose log cannot be written for a moment, and nodes that fail meanwhile. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../../bus/connect.ts";
import { ensureBuckets, ensureStreams } from "../../../bus/streams.ts";
import { buckets, streams } from "../../../contracts/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { systemIds } from "../../../runtime/ids.ts";
import { silentLogger } from "../../../runtime/log.ts";
import { createRegistry } from "../../../runtime/metrics.ts";
import { runRecord } from "../../../test/kit/runrecord.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { until } from "../../../test/kit/until.ts";
import { unheardDuring } from "../../../test/kit/unheard.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { RunLog } from "../log.ts";
import { RunMetrics } from "../metrics.ts";
import { Records } from "../records.ts";
import type { ActivationPorts } from "./activation.ports.ts";
import { Activation } from "./activation.ts";
import { graphOf } from "./graph.ts";
import { Invocations } from "./invocations.ts";
import { completed, type NodeResult, type NodeType } from "./nodetype.ts";
import { Session } from "./session.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect("worker-runs");
  await ensureStreams(bus, [streams.runs]);
  await ensureBuckets(bus, [buckets.runInvocations]);
}, 60_000);
afterAll(() => nats?.stop());

const invocations = (): Invocations =>
  new Invocations(new Records(bus, buckets.runInvocations), "w", systemClock, () => undefined);

interface Begun {
  readonly events: () => Promise<readonly [string, unknown][]>;
  /** Takes the run to where it can only wait, from its log as it is now. */
  readonly activate: (redelivered?: boolean) => Promise<void>;
}

/** Begins a run of nodes of the given types, all of which start at once. */
async function begin(...types: readonly NodeType[]): Promise<Begun> {
  const log = new RunLog(bus, systemClock, systemIds);
  const record = runRecord(systemIds.v7());
  await log.create(record, [{ type: "run.started", payload: {} }]);
  const ports: ActivationPorts = {
    clock: systemClock,
    ids: systemIds,
    logger: silentLogger,
    nodeTypes: new Map(types.map((type) => [type.typeId, type])),
    customType: () => undefined,
    capabilities: new Set(),
    log,
    invocations: invocations(),
    limits: { maxNodeExecutions: 100, maxRunDurationMs: 0, maxLoopIterations: 10 },
    metrics: new RunMetrics(createRegistry()),
    shortWaits: { enter: () => false, leave: () => undefined },
    wakeAt: () => Promise.resolve(),
  };
  const graph = graphOf({
    id: "w",
    name: "w",
    version: "1",
    nodes: types.map(({ typeId }) => ({ id: typeId, typeId, name: typeId, config: {}, inputs: {} })),
    edges: [],
    triggers: [],
    variables: [],
    metadata: {},
    settings: {},
  });
  return {
    async activate(redelivered = false) {
      const session = await Session.open(log, "acme", record.runId);
      if (session === undefined) throw new Error("no run");
      await new Activation(ports, session, graph).run(redelivered, new AbortController().signal, "", undefined);
    },
    events: async () => (await log.events("acme", record.runId)).map(({ type, payload }) => [type, payload]),
  };
}

verifies(
  "crash-safe",
  "what a node throws while the log is being written is its failure, not the worker's end",
  async () => {
    const unheard = await unheardDuring(async () => {
      const run = await begin({ typeId: "test.throws", mode: "parked", run: () => Promise.reject(new Error("no")) });
      await run.activate();
      const events = await run.events();
      expect(events.map(([name]) => name)).toContain("node.failed");
      expect(events.at(-1)?.[0]).toBe("run.failed");
    });
    expect(unheard).toEqual([]);
  },
);

verifies(
  "effect-once",
  "a log that cannot be written for a moment cuts off no effect under way: the run goes on with what it came to",
  async () => {
    let made = 0;
    const asked = Promise.withResolvers<AbortSignal>();
    const sent = Promise.withResolvers<string>();
    const beside = Promise.withResolvers<NodeResult>();
    const send: NodeType = {
      typeId: "test.send",
      mode: "task",
      async run(call) {
        const make = (): Promise<string> => {
          made++;
          asked.resolve(call.signal);
          return sent.promise;
        };
        return completed({ told: await call.effect({ provider: "smtp", idempotent: false }, make) });
      },
    };
    const run = await begin(send, { typeId: "test.beside", mode: "task", run: () => beside.promise });
    const first = run.activate();
    const signal = await asked.promise;
    await nats.server.kill();
    await until(() => !bus.connected, "the loss of the connection");
    beside.resolve(completed({}));
    await expect(first).rejects.toMatchObject({ code: "unavailable" });
    expect(signal.aborted).toBe(false);
    await nats.server.restart();
    await until(() => bus.connected, "the connection");
    const second = until(() => run.activate(true).then(() => true));
    sent.resolve("yes");
    await second;
    const events = await run.events();
    expect(events.at(-1)?.[0]).toBe("run.completed");
    expect(events).toContainEqual(["node.completed", expect.objectContaining({ outputs: { told: "yes" } })]);
    expect(made).toBe(1);
  },
  { timeout: 60_000 },
);
