/** Idempotency keys when something goes away, on a real server. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { ensureBuckets } from "../../bus/streams.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { buckets } from "../../contracts/streams.ts";
import { systemClock, type Clock } from "../../runtime/clock.ts";
import { systemIds } from "../../runtime/ids.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import type { Answer, Asker } from "./caller.ts";
import { Idempotency, type IdempotencyRecord } from "./idempotency.ts";
import { Records } from "./records.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect("worker-runs");
  await ensureBuckets(bus, [buckets.runIdempotency]);
}, 60_000);
afterAll(() => nats?.stop());

const asker = (idempotencyKey: string): Asker => ({
  tenant: "acme",
  principal: "tester",
  scopes: ["*"],
  traceparent: "",
  base: "",
  idempotencyKey,
});

/** A worker's idempotency, its clock so many milliseconds ahead. */
function worker(name: string, aheadMs = 0): Idempotency {
  const clock: Clock = { ...systemClock, now: () => systemClock.now() + aheadMs };
  return new Idempotency(
    new Records<IdempotencyRecord>(bus, buckets.runIdempotency),
    name,
    clock,
    systemIds,
    86_400_000,
  );
}

const answer = (run: string): Answer => ({ status: 201, body: { run } });

verifies(
  "effect-once",
  "D8: the bus was away when the call had ended: it is answered, and so is the next one",
  async () => {
    let runs = 0;
    let back: Promise<unknown> | undefined;
    const call = (): Promise<Answer> =>
      worker("w").once(asker("away"), "runs.create", {}, async () => {
        runs++;
        await nats.server.kill();
        await until(() => !bus.connected, "the loss of the connection");
        back = nats.server.restart();
        return answer("one");
      });
    expect((await call()).body).toEqual({ run: "one" });
    expect((await call()).body).toEqual({ run: "one" });
    expect(runs).toBe(1);
    await back;
  },
);

verifies(
  "effect-once",
  "D5: a holder whose key was taken over takes nothing from its successor, whatever it comes to itself",
  async () => {
    for (const code of ["validation_error", "unavailable"] as const) {
      const late = Promise.withResolvers<Answer>();
      const begun = Promise.withResolvers<void>();
      const first = worker("slow").once(asker(code), "runs.create", {}, () => {
        begun.resolve();
        return late.promise;
      });
      const heard = expect(first).rejects.toMatchObject({ code });
      await begun.promise;
      const second = worker("quick", 60_000).once(asker(code), "runs.create", {}, ({ again }) =>
        Promise.resolve(answer(again ? "taken over" : "new")),
      );
      expect((await second).body).toEqual({ run: "taken over" });
      late.reject(new BeamlineError(code, "too late"));
      await heard;
      const third = worker("third").once(asker(code), "runs.create", {}, () => Promise.resolve(answer("third")));
      expect((await third).body).toEqual({ run: "taken over" });
    }
  },
);
