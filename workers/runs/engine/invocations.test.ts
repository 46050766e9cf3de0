/** Effects and what is kept of them, on a real server. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../../bus/connect.ts";
import { ensureBuckets } from "../../../bus/streams.ts";
import { buckets } from "../../../contracts/streams.ts";
import { systemClock, type Clock } from "../../../runtime/clock.ts";
import { systemIds } from "../../../runtime/ids.ts";
import { runRecord } from "../../../test/kit/runrecord.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { until } from "../../../test/kit/until.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { Records } from "../records.ts";
import { Invocations, type Invocation } from "./invocations.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect("worker-runs");
  await ensureBuckets(bus, [buckets.runInvocations]);
}, 60_000);
afterAll(() => nats?.stop());

const worker = (name: string, clock = systemClock): Invocations =>
  new Invocations(new Records<Invocation>(bus, buckets.runInvocations), name, clock, () => undefined);

verifies(
  "effect-once",
  "I4: an effect whose bus was away when it ended has its outcome kept: nobody makes it again",
  async () => {
    const record = runRecord(systemIds.v7());
    const never = new AbortController().signal;
    let made = 0;
    let back: Promise<unknown> | undefined;
    const effect = async (): Promise<string> => {
      made++;
      await nats.server.kill();
      await until(() => !bus.connected, "the loss of the connection");
      back = nats.server.restart();
      return "sent";
    };
    const once = (who: string, make: () => Promise<string>): Promise<string> =>
      worker(who).once(record, "mail", 0, 1, { provider: "smtp", idempotent: false }, make, never);
    expect(await once("one", effect)).toBe("sent");
    expect(await once("other", effect)).toBe("sent");
    expect(made).toBe(1);
    await back;
  },
);

verifies(
  "effect-once",
  "I4: who waits for the outcome of another waits through a loss of the bus",
  async () => {
    const record = runRecord(systemIds.v7());
    const never = new AbortController().signal;
    const begun = Promise.withResolvers<void>();
    const sent = Promise.withResolvers<string>();
    const waits = Promise.withResolvers<void>();
    const clock: Clock = {
      ...systemClock,
      sleep(ms, signal) {
        waits.resolve();
        return systemClock.sleep(ms, signal);
      },
    };
    const once = (who: string, make: () => Promise<string>): Promise<string> =>
      worker(who, clock).once(record, "mail", 0, 1, { provider: "smtp", idempotent: false }, make, never);
    const one = once("one", () => {
      begun.resolve();
      return sent.promise;
    });
    await begun.promise;
    const other = once("other", () => Promise.reject(new Error("made again")));
    await waits.promise;
    await nats.server.kill();
    await until(() => !bus.connected, "the loss of the connection");
    // Longer than one read takes to give up.
    await expect(new Records(bus, buckets.runInvocations).get("any")).rejects.toMatchObject({ code: "unavailable" });
    await nats.server.restart();
    sent.resolve("sent");
    expect(await Promise.all([one, other])).toEqual(["sent", "sent"]);
  },
  { timeout: 60_000 },
);
