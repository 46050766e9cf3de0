/** When a replay says that it went another way than its source. */
import { expect, test } from "vitest";
import { apply, initialState } from "../../../contracts/openwop/fold.ts";
import type { RunEvent, RunRecord } from "../../../contracts/openwop/log.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import { divergence } from "./replay.ts";

/** `a=1` is a turn of node a with that output, `a!` one that failed, `end` the end of the run. */
function log(words: string): RunEvent[] {
  const events: Pick<RunEvent, "type" | "nodeId" | "payload">[] = [{ type: "run.started", payload: {} }];
  for (const word of words.split(" ")) {
    if (word === "end") {
      events.push({ type: "run.completed", payload: {} });
      continue;
    }
    const [nodeId = "", value] = word.replace("!", "").split("=");
    const payload = word.endsWith("!") ? { error: { code: "x", message: "x" } } : { outputs: { value } };
    events.push({ type: "node.started", nodeId, payload: { nodeId } });
    events.push({ type: word.endsWith("!") ? "node.failed" : "node.completed", nodeId, payload });
  }
  return events.map((event, sequence) => ({
    ...event,
    eventId: `${event.type}-${sequence}`,
    runId: "r",
    timestamp: new Date(sequence).toISOString(),
    sequence,
  }));
}

function replayed(words: string): RunState {
  const record = { owner: { tenant: "t" }, inputs: {}, configurable: {}, variables: [], channels: {} };
  const state = initialState(record as unknown as RunRecord);
  for (const event of log(words)) apply(state, event);
  return state;
}

test.each([
  ["the same", "a=1 b=2 end", "a=1 b=2", undefined],
  ["another output", "a=1 b=2 end", "a=1 b=3", ["output", "b"]],
  ["a failure instead", "a=1 b=2 end", "a=1 b!", ["type-mismatch", "b"]],
  ["a node more", "a=1 end", "a=1 b=2", ["extra", "b"]],
  ["the same turns of a loop", "a=1 a=2 end", "a=1 a=2", undefined],
  ["a turn more", "a=1 end", "a=1 a=2", ["extra", "a"]],
  ["a turn less", "a=1 a=2 end", "a=1", ["missing", "a"]],
  ["a source that has not come so far yet", "a=1", "a=1 a=2 b=2", undefined],
  ["a source that has come further in a loop", "a=1 a=2", "a=1", undefined],
  ["a source that goes on, and said something else", "a=1 a=2 a=3", "a=1 a=4", ["output", "a"]],
])("%s", (_what, source, replay, expected) => {
  const event = divergence("source", log(source), replayed(replay));
  const { divergenceKind, divergencePoint } = (event?.payload ?? {}) as Record<string, unknown>;
  expect(event === undefined ? undefined : [divergenceKind, divergencePoint]).toEqual(expected);
});
