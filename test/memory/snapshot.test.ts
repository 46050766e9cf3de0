/** The system in figures, of a system whose other workers answer, and of one where they do not run. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Subscription } from "@nats-io/transport-node";
import { OrchestratorDefinition } from "../../contracts/gen/aios/orchestrator.ts";
import { AIRuntimeDefinition } from "../../contracts/gen/aios/runtime.ts";
import { routesOf } from "../../contracts/routes.ts";
import { startWorld, type World } from "./world.ts";

let world: World;
const said: Subscription[] = [];

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await world.worker();
}, 60_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

const of = (tenant: string) => world.call("getSystemSnapshot", {}, { tenant });

/** Stands in for another worker: says the same to everybody. */
function say(subject: string, reply: unknown): void {
  said.push(
    world.bus.nc.subscribe(subject, { callback: (_error, message) => void message.respond(JSON.stringify(reply)) }),
  );
}

test("without the other workers the counts are zero, and nobody waits for them", async () => {
  const started = performance.now();
  expect(await of("alone")).toMatchObject({ active_tasks: 0, active_agents: 0, loaded_models: [], gpu_utilization: 0 });
  expect(performance.now() - started).toBeLessThan(5_000);
});

test("counts come from the orchestrator, models from the runtime, and a metric stands before either", async () => {
  say(routesOf(OrchestratorDefinition).getSystemStatus.subject, {
    pending_tasks: 4,
    active_agents: 2,
    loaded_models: ["zeta"],
  });
  say(routesOf(AIRuntimeDefinition).listModels.subject, {
    models: [
      { model_name: "alpha", status: "ready" },
      { model_name: "beta", status: "loading" },
      { model_name: "zeta", status: "ready" },
    ],
  });
  await world.bus.flush();
  expect(await of("whole")).toMatchObject({ active_tasks: 4, active_agents: 2, loaded_models: ["alpha", "zeta"] });
  await world.call("updateMetric", { key: "tasks.active", value: 9 }, { tenant: "whole" });
  await world.call("updateMetric", { key: "gpu.utilization", value: 61.5 }, { tenant: "whole" });
  expect(await of("whole")).toMatchObject({ active_tasks: 9, active_agents: 2, gpu_utilization: 61.5 });
  expect(await of("another")).toMatchObject({ active_tasks: 4, gpu_utilization: 0 });
});
