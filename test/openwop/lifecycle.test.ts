/** Runs from start to end, over REST and gRPC. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { bearer, startHost, type Host } from "./host.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

test("a run is created, executed and read over REST", async () => {
  const runId = await host.start("conformance-multi-node");
  const snapshot = await host.reaches(runId, "completed", "failed");
  expect(snapshot.status).toBe("completed");
  const events = await host.events(runId);
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, at) => at));
  expect(events.filter(({ type }) => type === "node.completed").map(({ nodeId }) => nodeId)).toEqual(["a", "b", "c"]);
  expect(events.at(-1)?.type).toBe("run.completed");
});

test("the same over gRPC, event by event", async () => {
  const { run_id } = await host.grpc.call("createRun", { workflow_id: "conformance-noop" }, bearer());
  const streamed = [];
  for await (const event of host.grpc.stream(
    "streamRunEvents",
    { run_id, last_sequence: -1n, stream_modes: ["debug"] },
    bearer(),
  ))
    streamed.push(event);
  const events = await host.events(run_id);
  expect(streamed.map(({ seq, type, event_id }) => [Number(seq), type, event_id])).toEqual(
    events.map(({ sequence, type, eventId }) => [sequence, type, eventId]),
  );
});
