/** The main path over NATS on real servers: each tier written and read once. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startWorld, type World } from "./world.ts";

let world: World;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await world.worker();
}, 60_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

describe("the main path", () => {
  test("an event is read back, newest first", async () => {
    await world.call("pushEvent", { id: "e1", category: "task", source: "agent-1", data_json: Buffer.from('{"n":1}') });
    await world.call("pushEvent", {
      id: "e2",
      category: "task",
      source: "agent-1",
      data_json: Buffer.from('{"n":2}'),
      critical: true,
    });
    const { events } = await world.call("getRecentEvents", { count: 20 });
    expect(events.map(({ id }) => id)).toEqual(["e2", "e1"]);
    expect(events[0]?.critical).toBe(true);
    expect(events[1]?.data_json.toString()).toBe('{"n":1}');
  });

  test("a goal is active until it ends", async () => {
    await world.call("storeGoal", {
      id: "g1",
      description: "tidy up",
      status: "pending",
      priority: 2,
      created_at: 10n,
    });
    await world.call("storeGoal", { id: "g2", description: "urgent", status: "pending", priority: 1, created_at: 20n });
    expect((await world.call("getActiveGoals", {})).goals.map(({ id }) => id)).toEqual(["g2", "g1"]);
    await world.call("updateGoal", { id: "g2", status: "completed", result: "done" });
    expect((await world.call("getActiveGoals", {})).goals.map(({ id }) => id)).toEqual(["g1"]);
  });

  test("knowledge is found by what it means", async () => {
    await world.call("addKnowledge", {
      title: "Disk",
      content: "When the volume is full, delete old log files.",
      source: "runbook",
      tags: ["ops"],
    });
    await world.call("addKnowledge", {
      title: "Bread",
      content: "Knead the dough for ten minutes.",
      source: "cookbook",
    });
    const { results } = await world.call("semanticSearch", {
      query: "no space left on device",
      collections: ["knowledge"],
      n_results: 2,
    });
    expect(results[0]?.content).toBe("[runbook] Disk: When the volume is full, delete old log files.");
    expect(results[0]?.relevance).toBeGreaterThan(0);
    expect(JSON.parse(results[0]?.metadata_json.toString() ?? "")).toMatchObject({
      source: "runbook",
      tags: ["ops"],
      title: "Disk",
    });
  });
});
