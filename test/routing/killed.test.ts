/** Routing and execution workers killed under load: every decision that was answered stands, every assignment ends in one usage event. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { all, byText } from "../execution/kit.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { DECIDE, type Json } from "./kit.ts";

const REQUESTS = 300;

async function answering(bus: Bus, worker: string): Promise<number> {
  let found = 0;
  for await (const _ of await bus.nc.requestMany(`$SRV.PING.${worker}`, "", { maxWait: 300, strategy: "timer" }))
    found++;
  return found;
}

let world: World;
beforeAll(async () => {
  world = await startWorld({ workers: ["routing", "execution", "usage"], processes: true, syncInterval: "10s" });
}, 90_000);
afterAll(() => world[Symbol.asyncDispose]());

verifies(
  "crash-safe",
  "one of two routing and one of two execution workers killed under load: one usage event per assignment, one answer per key",
  async () => {
    const { bus } = world;
    const alive = new Set<string>();
    bus.nc.subscribe("caf.worker.heartbeat.v1", {
      callback: (_error, message) => void alive.add(message.json<{ worker_id: string }>().worker_id),
    });
    const doomed = await Promise.all([
      world.startWorker("routing"),
      world.startWorker("execution", { BEAMLINE_EXEC_WORKER_ID: "doomed" }),
    ]);
    await until(
      async () => alive.has("doomed") && (await answering(bus, "routing")) === 2,
      "two of each worker",
      30_000,
    );

    /** Asks as a client does: again with the same key when the answer was lost. */
    const decide = async (n: number): Promise<Json> => {
      const request = {
        version: "1",
        request_id: `r-${n}`,
        tenant_id: `t${n % 3}`,
        task: { type: "sleep", payload: { ms: 50 + (n % 5) * 10, number: n } },
        idempotency_key: `k-${n}`,
        push_assignment: true,
      };
      for (;;) {
        try {
          return (await world.caller.request(DECIDE, request, { timeoutMs: 2_000 })) as Json;
        } catch (thrown) {
          const { code } = BeamlineError.from(thrown);
          if (code !== "unavailable" && code !== "deadline_exceeded") throw thrown;
        }
      }
    };
    const first: Json[] = [];
    const asking = (async () => {
      for (let n = 0; n < REQUESTS; n += 20)
        first.push(...(await Promise.all(Array.from({ length: 20 }, (_, i) => decide(n + i)))));
    })();
    await until(() => first.length >= REQUESTS / 3, "a third of the decisions", 30_000);
    await Promise.all(doomed.map((one) => one.kill()));
    await asking;

    // Whoever answered, the other worker answers the same.
    const again = await Promise.all(Array.from({ length: REQUESTS }, (_, n) => decide(n)));
    expect(again).toEqual(first);

    const assigned = async (): Promise<string[]> =>
      (await all(bus, "EXEC", "caf.exec.assign.v1"))
        .filter(({ headers }) => headers["Beamline-Publication"] === undefined)
        .map(({ body }) => String(body["assignment_id"]));
    const metered = async (): Promise<string[]> =>
      (await all(bus, "USAGE", "beamline.usage.v1.metered")).map(({ body }) => String(body["assignment_id"]));
    await until(async () => (await assigned()).length >= REQUESTS, "every assignment", 60_000);
    await until(async () => (await metered()).length >= (await assigned()).length, "usage of every assignment", 60_000);
    const ids = await assigned();
    expect((await metered()).sort(byText)).toEqual([...ids].sort(byText));
    // Every answer that promised an assignment is kept, whoever died after it; and no request was assigned twice.
    const requests = (await all(bus, "EXEC", "caf.exec.assign.v1")).map(({ body }) => body["request_id"]);
    expect(new Set(requests).size).toBe(REQUESTS);
    expect(new Set(ids).size).toBe(REQUESTS);
  },
  { timeout: 120_000 },
);
