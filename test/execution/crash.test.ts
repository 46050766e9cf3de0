/** Workers killed under load: every assignment ends in one result and one usage event. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { startWorld, type World } from "../kit/world.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { all, byText, assign, assignment, count } from "./kit.ts";

const ASSIGNMENTS = 300;

/** How many processes of a worker answer service discovery. */
async function answering(bus: Bus, worker: string): Promise<number> {
  let found = 0;
  for await (const _ of await bus.nc.requestMany(`$SRV.PING.${worker}`, "", { maxWait: 300, strategy: "timer" }))
    found++;
  return found;
}

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

verifies(
  "crash-safe",
  "decisions with assignments through two routing workers, one of them and one of two execution workers killed: one usage event per assignment",
  async () => {
    const { bus, caller } = world;
    const beats = new Set<string>();
    bus.nc.subscribe("caf.worker.heartbeat.v1", {
      callback: (_error, message) => void beats.add(message.json<{ worker_id: string }>().worker_id),
    });
    await world.startWorker("routing");
    const doomed = await Promise.all([
      world.startWorker("routing"),
      world.startWorker("execution", { BEAMLINE_EXEC_WORKER_ID: "doomed-2" }),
    ]);
    const decide = (n: number) =>
      caller.request(
        "beamline.router.v1.decide",
        {
          version: "1",
          request_id: `load-${n}`,
          tenant_id: "load",
          task: { type: "sleep", payload: { ms: 50 + (n % 4) * 10, of: "load" } },
          push_assignment: true,
        },
        { timeoutMs: 3_000 },
      );
    await until(
      async () => beats.has("doomed-2") && (await answering(bus, "routing")) >= 2,
      "two of each worker",
      30_000,
    );
    let answered = 0;
    let killed = false;
    await Promise.all(
      Array.from({ length: 8 }, async (_, lane) => {
        for (let n = 0; n < 25; n++) {
          await decide(lane * 25 + n).then(
            () => answered++,
            () => undefined, // Asked while its worker was killed: an outside client asks again or gives up.
          );
          if (answered > 60 && !killed) {
            killed = true;
            await Promise.all(doomed.map((one) => one.kill()));
          }
        }
      }),
    );
    expect(answered).toBeGreaterThan(150);
    const published = async () =>
      new Set(
        (await all(bus, "EXEC", "caf.exec.assign.v1"))
          .filter(({ body }) => body["tenant_id"] === "load")
          .map(({ body }) => body["assignment_id"]),
      );
    const metered = async () =>
      (await all(bus, "USAGE", "beamline.usage.v1.metered"))
        .filter(({ body }) => body["tenant_id"] === "load")
        .map(({ body }) => body["assignment_id"]);
    await until(async () => (await metered()).length >= (await published()).size, "all usage", 60_000);
    const ids = [...(await published())];
    expect(ids.length).toBeGreaterThanOrEqual(answered - 16);
    expect((await metered()).sort(byText)).toEqual(ids.sort(byText));
  },
  { timeout: 120_000 },
);
