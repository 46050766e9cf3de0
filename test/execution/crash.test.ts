/** Workers killed under load: every assignment ends in one result and one usage event. */
import { afterAll, beforeAll, expect } from "vitest";
import { startWorld, type World } from "../kit/world.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { all, byText, assign, assignment, count } from "./kit.ts";

const ASSIGNMENTS = 300;

let world: World;
beforeAll(async () => {
  world = await startWorld({ workers: ["execution", "usage"], processes: true, syncInterval: "10s" });
}, 90_000);
afterAll(() => world[Symbol.asyncDispose]());

verifies(
  "crash-safe",
  "one of two execution workers and one of two usage workers killed under load: one usage event per assignment",
  async () => {
    const { bus } = world;
    const alive = new Set<string>();
    bus.nc.subscribe("caf.worker.heartbeat.v1", {
      callback: (_error, message) => void alive.add(message.json<{ worker_id: string }>().worker_id),
    });
    const usageConsumers = async () => (await bus.jsm.consumers.info("EXEC", "router-results")).num_waiting;
    const doomed = await Promise.all([
      world.startWorker("execution", { BEAMLINE_EXEC_WORKER_ID: "doomed" }),
      world.startWorker("usage"),
    ]);
    await until(async () => alive.has("doomed") && (await usageConsumers()) >= 2, "two of each worker", 30_000);
    const ids = await Promise.all(
      Array.from({ length: ASSIGNMENTS }, (_, n) =>
        assign(bus, assignment({ type: "sleep", payload: { ms: 100 + (n % 5) * 20 } }, { tenant_id: `t${n % 3}` })),
      ),
    );
    const metered = () => count(bus, "USAGE", "beamline.usage.v1.metered");
    await until(async () => (await metered()) > ASSIGNMENTS / 5, "a fifth of the usage");
    await Promise.all(doomed.map((one) => one.kill()));
    expect(await metered()).toBeLessThan(ASSIGNMENTS);
    await until(async () => (await metered()) >= ASSIGNMENTS, "all usage", 60_000);
    const late = await assign(bus, assignment({ type: "echo", payload: "last" }));
    await until(async () => (await metered()) > ASSIGNMENTS, "usage of what came last");
    // What the killed worker had in hand came again, to the other one.
    const { delivered } = await bus.jsm.consumers.info("EXEC", "exec-workers");
    expect(delivered.consumer_seq).toBeGreaterThan(ASSIGNMENTS + 1);
    const events = (await all(bus, "USAGE", "beamline.usage.v1.metered")).map(({ body }) => body["assignment_id"]);
    expect(events.sort(byText)).toEqual([...ids, late].sort(byText));
    const results = (await all(bus, "EXEC", "caf.exec.result.v1")).map(({ body }) => body["assignment_id"]);
    expect(results.sort(byText)).toEqual([...ids, late].sort(byText));
  },
  { timeout: 120_000 },
);
