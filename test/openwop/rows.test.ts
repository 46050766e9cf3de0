/**
 * Rows of OpenWOP's conformance suite about streams, order, forks and fixtures, written from their descriptions and run over both surfaces; and
 * every fixture's run, which both show alike, event by event.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LOG_SCHEMA_VERSION, TERMINAL_EVENTS } from "../../contracts/openwop/log.ts";
import { fixtures } from "../../workers/runs/fixtures.ts";
import { nodeTypes } from "../../workers/runs/nodes/index.ts";
import { checkWorkflow } from "../../workers/runs/operations/workflows.ts";
import { startHost, type Host } from "./host.ts";
import { overGrpc, overSse, seen, type Reader } from "./reading.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";
import { node, workflow } from "./workflow.kit.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

const MODES = ["updates", "values", "messages", "debug"];

describe.each(["rest", "grpc"] as const)("over %s", (name) => {
  let on: Surface;
  let read: Reader;
  beforeAll(() => {
    on = name === "rest" ? restSurface(host) : grpcSurface(host);
    read = name === "rest" ? overSse(host) : overGrpc(host);
  });
  const good = name === "rest" ? 200 : 0;
  const bad = name === "rest" ? 400 : 3;
  const started = async (workflowId: string, more: object = {}): Promise<string> => {
    const { ok, body } = await on.create({ workflowId, ...more });
    expect(ok, JSON.stringify(body)).toBe(true);
    return body.runId;
  };
  const delayed = (delayMs: number): Promise<string> => started("conformance-delay", { inputs: { delayMs } });
  const ended = async (workflowId: string, more: object = {}): Promise<string> => {
    const runId = await started(workflowId, more);
    await host.reaches(runId, "completed", "failed");
    return runId;
  };
  const typesOf = async (runId: string, ...modes: string[]): Promise<string[]> =>
    (await read(runId, { modes })).events.map(({ type }) => type);

  test("eventOrdering: increasing without gaps, the same each time, one terminal event and it is last", async () => {
    const runId = await ended("conformance-noop");
    const [first, second] = [await read(runId, { modes: ["debug"] }), await read(runId, { modes: ["debug"] })];
    expect(first).toEqual(second);
    expect(first.events.map(({ sequence }) => sequence)).toEqual(first.events.map((_, at) => at));
    expect(first.events.filter(({ type }) => TERMINAL_EVENTS.has(type))).toEqual(first.events.slice(-1));
  });

  test("multi-node-ordering: a, b, c", async () => {
    const { events } = await read(await ended("conformance-multi-node"), { modes: ["debug"] });
    const of = (type: string): string[] => events.filter((one) => one.type === type).map(({ nodeId }) => nodeId);
    expect([of("node.started"), of("node.completed")]).toEqual([
      ["a", "b", "c"],
      ["a", "b", "c"],
    ]);
  });

  test("stream-modes: updates end with the run, debug shows more, values the state; a bad mode is refused", async () => {
    const runId = await delayed(150);
    const live = await read(runId);
    expect([live.status, live.events[0]?.type, live.events.at(-1)?.type]).toEqual([
      good,
      "run.started",
      "run.completed",
    ]);
    expect(live.events.map(({ type }) => type)).not.toContain("node.started");
    const [updates, debug] = [await typesOf(runId, "updates"), await typesOf(runId, "debug")];
    expect(debug.length).toBeGreaterThan(updates.length);
    expect(debug.filter((type) => updates.includes(type))).toEqual(updates);
    const values = await read(runId, { modes: ["values"] });
    expect(new Set(values.events.map(({ type }) => type))).toEqual(new Set(["state.snapshot"]));
    expect(values.events.at(-1)?.payload).toMatchObject({ runId, status: "completed" });
    for (const modes of [["bogus"], ["updates", "bogus"], ["values", "updates"]]) {
      const { status, error } = await read(runId, { modes });
      expect([status, error?.error, error?.details?.["supported"]]).toEqual([bad, "unsupported_stream_mode", MODES]);
    }
  });

  test("stream-modes-mixed: a union, in the order of the log", async () => {
    const mockProvider = { id: "stream-text", config: { tokens: ["one", "two"] } };
    const runId = await ended("conformance-stream-text", { configurable: { mockProvider } });
    const both = await read(runId, { modes: ["updates", "messages"] });
    expect(both.status).toBe(good);
    const chunks = await typesOf(runId, "messages");
    expect(chunks).toEqual(["ai.message.chunk", "ai.message.chunk"]);
    const types = both.events.map(({ type }) => type);
    expect(types.toSorted()).toEqual([...(await typesOf(runId, "updates")), ...chunks].toSorted());
    const sequences = both.events.map(({ sequence }) => sequence);
    expect(sequences).toEqual(sequences.toSorted((a, b) => a - b));
  });

  test("stream-modes-buffer: nothing is lost, the end is not held back; impossible values are refused", async () => {
    const runId = await delayed(300);
    const before = performance.now();
    const buffered = await read(runId, { bufferMs: 4_000 });
    expect(performance.now() - before).toBeLessThan(3_900);
    expect(buffered.events).toEqual((await read(runId, { bufferMs: 0 })).events);
    for (const bufferMs of [99_999, -1]) {
      const { status, error } = await read(runId, { bufferMs });
      expect([status, error?.error]).toEqual([bad, "validation_error"]);
    }
  });

  test("streamReconnect: strictly after the cursor, from anywhere, also at the end and beyond", async () => {
    const runId = await ended("conformance-multi-node");
    const all = (await read(runId, { modes: ["debug"] })).events;
    for (const { sequence } of all) {
      const later = await read(runId, { modes: ["debug"], after: sequence });
      expect([later.status, later.events]).toEqual([good, all.slice(sequence + 1)]);
    }
    expect(await read(runId, { after: 9_999 })).toEqual({ status: good, events: [] });
    const live = await started("conformance-delay", { inputs: { delayMs: 200 } });
    expect((await read(live, { after: 0 })).events.at(-1)?.type).toBe("run.completed");
    const unknown = await read("no-such-run");
    expect([unknown.status, unknown.error?.error]).toEqual([name === "rest" ? 404 : 5, "run_not_found"]);
  });

  test("version-negotiation: what each event has; era-key: the version of the log's layout", async () => {
    const runId = await ended("conformance-noop");
    for (const event of (await read(runId, { modes: ["debug"] })).events) {
      expect(event).toMatchObject({
        runId,
        eventId: expect.stringMatching(/.+/),
        type: expect.stringMatching(/\w+\.\w+/),
      });
      expect(new Date(event.timestamp).toISOString()).toBe(event.timestamp);
    }
    expect((await on.get(runId)).body.eventLogSchemaVersion).toBe(LOG_SCHEMA_VERSION);
  });

  test("node-failed-payload-shape", async () => {
    const { events } = await read(await ended("conformance-failure"));
    expect(events.find(({ type }) => type === "node.failed")?.payload).toMatchObject({
      nodeId: "fail",
      error: { code: expect.any(String), message: expect.any(String) },
    });
    expect(events.map(({ type }) => type)).toEqual(["run.started", "node.failed", "run.failed"]);
  });

  test("append-ordering: as many entries as writes, in the order of the log", async () => {
    const nodes = Array.from({ length: 12 }, (_, at) =>
      node(`w${at}`, "core.channelWrite", { channelName: "events", value: at }),
    );
    expect((await host.rest("PUT", "/v1/workflows/appends", workflow("appends", nodes))).status).toBeLessThan(300);
    const runId = await ended("appends");
    const { events } = await read(runId, { modes: ["debug"] });
    const written = events.filter(({ type }) => type === "channel.written");
    const values = written.map(({ payload }) => (payload as { value: number }).value);
    expect((await on.get(runId)).body.variables.events).toEqual(values);
    expect(values).toHaveLength(12);
  });

  test("highConcurrency: ten keys at once are ten runs", async () => {
    const body = { workflowId: "conformance-idempotent", inputs: { nonce: "1" } };
    const keys = Array.from({ length: 10 }, (_, at) => `${name}-${Math.random()}-${at}`);
    const made = await Promise.all(keys.map((idempotencyKey) => on.create(body, { idempotencyKey })));
    expect(new Set(made.map((one) => one.body.runId)).size).toBe(10);
  });

  test("replay-fork-arbitrary: from every place of the log the replay ends as its source, and tells the same", async () => {
    const runId = await ended("conformance-multi-node");
    const source = (await read(runId, { modes: ["debug"] })).events;
    const told = (events: typeof source): unknown[] => events.map(({ type, nodeId }) => [type, nodeId]);
    for (const { sequence } of source) {
      const fork = await on.fork(runId, "replay", sequence);
      expect([fork.ok, fork.body.runId === runId]).toEqual([true, false]);
      await host.reaches(fork.body.runId, "completed");
      const { events } = await read(fork.body.runId, { modes: ["debug"] });
      expect(told(events)).toEqual(told(source));
      expect(events.slice(0, sequence).map(({ eventId }) => eventId)).toEqual(
        source.slice(0, sequence).map(({ eventId }) => eventId),
      );
    }
    expect((await read(runId, { modes: ["debug"] })).events).toEqual(source);
  });

  test("a run forked while it waits asks again, or takes the answer its source got", async () => {
    const runId = await started("conformance-approval");
    await host.reaches(runId, "waiting-approval");
    const branch = await on.fork(runId, "branch", 1);
    await host.reaches(branch.body.runId, "waiting-approval");
    await on.resolve(branch.body.runId, "gate", { action: "accept" });
    await host.reaches(branch.body.runId, "completed");
    await on.resolve(runId, "gate", { action: "reject" });
    await host.reaches(runId, "failed");
    const replay = await on.fork(runId, "replay", 0);
    expect((await host.reaches(replay.body.runId, "failed")).error.code).toBe("approval_rejected");
  });
});

test("fixtures-valid: each is a workflow as the contract has them", () => {
  const types = nodeTypes({} as never, {} as never);
  for (const one of fixtures) expect(checkWorkflow(JSON.parse(JSON.stringify(one)), types).id).toBe(one.id);
});

describe("fixtures-gating: discovery lists what can be started, and both surfaces show each run alike", () => {
  const inputs: Readonly<Record<string, object>> = {
    "conformance-identity": { payload: { deep: [1, { ü: null }] } },
    "conformance-idempotent": { nonce: "n" },
    "conformance-delay": { delayMs: 20 },
  };
  const mockProvider = { id: "stream-text" };

  test.each(fixtures.map(({ id }) => id))("%s", { timeout: 30_000 }, async (workflowId) => {
    const { body } = await host.rest("GET", "/.well-known/openwop", undefined, {}, "");
    expect(body.fixtures).toContain(workflowId);
    const configurable = workflowId === "conformance-stream-text" ? { mockProvider } : {};
    const runId = await host.start(workflowId, { inputs: inputs[workflowId] ?? {}, configurable });
    const waits = ["waiting-approval", "waiting-input", "waiting-external"];
    const patient = ["conformance-cancellable", "conformance-run-duration-breach"].includes(workflowId);
    const { status } = await host.reaches(runId, "completed", "failed", ...waits, ...(patient ? ["running"] : []));
    if (waits.includes(status) || patient) await host.rest("POST", `/v1/runs/${runId}/cancel`, { reason: "seen" });
    const polled = (await host.events(runId)).map(seen);
    expect(TERMINAL_EVENTS.has(polled.at(-1)?.type ?? "")).toBe(true);
    // A stream shows chunks of text under the name of its mode.
    const streamed = polled.map((one) => (one.type === "output.chunk" ? { ...one, type: "ai.message.chunk" } : one));
    const debug = { modes: ["debug"] };
    const [sse, grpc] = await Promise.all([overSse(host)(runId, debug), overGrpc(host)(runId, debug)]);
    expect(sse.events).toEqual(streamed);
    expect(grpc.events).toEqual(streamed);
    const [one, other] = await Promise.all([restSurface(host).get(runId), grpcSurface(host).get(runId)]);
    expect(other.body).toEqual(one.body);
  });
});
