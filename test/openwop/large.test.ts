/** Runs too large to be told in one answer: it is said what is too large and by how much, and the run goes on (OpenWOP, errors; debug bundle). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startHost, type Host } from "./host.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";
import { edge, node, workflow } from "./workflow.kit.ts";

const SIZE = 1_500_000;
const COPIES = 6;

let host: Host;
let large: string;
let small: string;
beforeAll(async () => {
  host = await startHost();
  // A variable a step, and a wait between, so that no two copies are one append.
  const names = Array.from({ length: COPIES }, (_, at) => `copy${at}`);
  const nodes = names.flatMap((name) => [
    node(name, "core.setVariable", { name }, { inputs: { value: { type: "variable", variableName: "payload" } } }),
    node(`after-${name}`, "core.delay", { ms: 1 }),
  ]);
  const ids = [...nodes.map(({ id }) => id), "gate"];
  const definition = workflow("large", [...nodes, node("gate", "core.approvalGate", { title: "go on?" })], {
    edges: ids.slice(1).map((id, at) => edge(`${ids[at] ?? ""}>${id}`)),
    variables: [{ name: "payload", type: "string", required: true }],
  });
  expect((await host.rest("PUT", "/v1/workflows/large", definition)).status).toBe(201);
  [large, small] = [await grown("x".repeat(SIZE)), await grown("y".repeat(400_000))];
}, 120_000);
afterAll(async () => host[Symbol.asyncDispose]());

/** A run of it that has come to its gate. */
async function grown(payload: string): Promise<string> {
  const runId = await host.start("large", { inputs: { payload } });
  for (let after = -1, looks = 0; looks < 200; looks++) {
    const { body } = await host.rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=${after}&timeout=10`);
    const events = body.events as { sequence: number; type: string }[];
    if (events.some(({ type }) => type === "interrupt.requested")) return runId;
    if (body.isComplete === true) throw new Error(`the run ended: ${JSON.stringify(events.at(-1))}`);
    after = events.at(-1)?.sequence ?? after;
  }
  throw new Error("the run does not come to its gate");
}

const tooLarge = (what: string): unknown => ({
  error: "validation_error",
  message: expect.stringContaining(what),
  details: { reason: "answer_too_large", what, bytes: expect.any(Number), maxBytes: expect.any(Number) },
});

describe.each(["rest", "grpc"] as const)("over %s", (name) => {
  let on: Surface;
  beforeAll(() => {
    on = name === "rest" ? restSurface(host) : grpcSurface(host);
  });

  test("a snapshot", async () => {
    const { ok, body } = await on.get(large);
    expect([ok, body]).toEqual([false, tooLarge("snapshot")]);
    expect(body.details.bytes).toBeGreaterThan(body.details.maxBytes);
    expect(body.details.bytes).toBeGreaterThan(SIZE * COPIES);
    expect((await on.get(small)).body.status).toBe("waiting-approval");
  });

  test("the history of a fork; a fork that copies little is made, and goes its way", async () => {
    const { ok, body } = await on.fork(large, "branch", 30);
    expect([ok, body.error, body.details]).toEqual([
      false,
      "validation_error",
      { field: "fromSeq", reason: "history_too_large", bytes: expect.any(Number), maxBytes: 4 * 1024 * 1024 },
    ]);
    const whole = await on.fork(large, "replay", 0);
    expect(whole.ok).toBe(true);
    const cancelled = await on.cancel(whole.body.runId);
    expect(cancelled.body).toMatchObject({ status: "cancelled" });
  });
});

test("a debug bundle that is too large without any event; the difference of two states", async () => {
  const bundle = await host.rest("GET", `/v1/runs/${large}/debug-bundle`);
  expect(bundle.body).toEqual(tooLarge("debug bundle without its events"));
  const diff = await host.rest("GET", `/v1/runs/${large}:diff?against=${small}`);
  expect(diff.body).toEqual(tooLarge("difference of the states"));
  expect([bundle.status, diff.status]).toEqual([400, 400]);
});

test("the difference of many large events is cut, and says so", async () => {
  const other = await grown("z".repeat(400_000));
  const { status, body } = await host.rest("GET", `/v1/runs/${small}:diff?against=${other}`);
  expect([status, body.truncated, body.divergedAtSeq]).toEqual([200, true, 0]);
  expect(body.eventDiffs.length).toBeGreaterThan(0);
  expect(body.stateDiff.variables.a.copy0).toBe("y".repeat(400_000));
  const same = await host.rest("GET", `/v1/runs/${small}:diff?against=${small}`);
  expect(same.body).toMatchObject({ truncated: false, divergedAtSeq: null });
});

test("steps that are too large for one append together, with nothing to wait for between them", async () => {
  const names = Array.from({ length: COPIES }, (_, at) => `copy${at}`);
  const value = { type: "variable", variableName: "payload" } as const;
  const nodes = names.map((name) => node(name, "core.setVariable", { name }, { inputs: { value } }));
  const definition = workflow("quick", nodes, {
    edges: names.slice(1).map((id, at) => edge(`${names[at] ?? ""}>${id}`)),
    variables: [{ name: "payload", type: "string", required: true }],
  });
  expect((await host.rest("PUT", "/v1/workflows/quick", definition)).status).toBe(201);
  const runId = await host.start("quick", { inputs: { payload: "x".repeat(SIZE) } });
  const told = await restSurface(host).stream(runId, ["updates"]);
  expect(told.body.at(-1)).toBe("run.completed");
});

test("one step that is too large alone ends the run, which says so", async () => {
  const value = { type: "variable", variableName: "payload" } as const;
  const definition = workflow(
    "vast",
    [node("vast", "core.identity", {}, { inputs: { a: value, b: value, c: value } })],
    {
      variables: [{ name: "payload", type: "string", required: true }],
    },
  );
  expect((await host.rest("PUT", "/v1/workflows/vast", definition)).status).toBe(201);
  const runId = await host.start("vast", { inputs: { payload: "x".repeat(SIZE) } });
  const told = await restSurface(host).stream(runId, ["updates"]);
  expect(told.body.at(-1)).toBe("run.failed");
  const { body } = await host.rest("GET", `/v1/runs/${runId}`);
  expect(body.error).toMatchObject({
    code: "internal_error",
    message: "one step of the run came to more than its log takes at once",
  });
});

test("such a run goes on, and ends", async () => {
  const answer = await host.rest("POST", `/v1/runs/${large}/interrupts/gate`, { resumeValue: { action: "accept" } });
  expect([answer.status, answer.body.runId]).toEqual([200, large]);
  const told = await restSurface(host).stream(large, ["updates"]);
  expect(told.body.at(-1)).toBe("run.completed");
});
