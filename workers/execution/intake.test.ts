/** What an assignment comes to when something is away or changes its mind while it is worked on, on a real server. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import type { MessageContext } from "../../bus/consume.ts";
import { keyOf } from "../../bus/keys.ts";
import { ensureBuckets, ensureStreams } from "../../bus/streams.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { buckets, streams } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { about, assignment } from "../../test/execution/kit.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { CancelBook } from "./cancellations.ts";
import { Intake, type IntakePorts } from "./intake.ts";
import { Jobs, type Job } from "./job.ts";
import { executionMeasures } from "./measures.ts";
import { busReports } from "./reports.ts";
import { busStarted } from "./started.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
  await ensureStreams(bus, [streams.exec, streams.execAcks, streams.deadLetters]);
  await ensureBuckets(bus, [buckets.execStarted]);
}, 60_000);
afterAll(() => nats?.stop());

function intake(run: Job["run"], more: Partial<IntakePorts> = {}): Intake {
  const jobs = new Jobs([{ types: ["mail"], effect: "once", run }]);
  return new Intake({
    workerId: "w",
    jobs,
    inputs: { of: ({ payload }) => Promise.resolve(payload) },
    reports: busReports(bus, () => systemClock.now()),
    started: busStarted(bus),
    cancellations: new CancelBook(),
    measures: executionMeasures(createRegistry(), new Set(jobs.types)),
    clock: systemClock,
    log: silentLogger,
    jobTimeoutMs: 60_000,
    leaveUnknown: false,
    ...more,
  });
}

/** One delivery of an assignment; its id. */
async function deliver(to: Intake, given = assignment({ type: "mail", payload: {} })): Promise<string> {
  const context: MessageContext = {
    subject: "caf.exec.assign.v1",
    headers: {},
    msgId: given.assignment_id,
    attempt: 1,
    deliveryCount: 1,
    streamSequence: 1,
    timestampMs: Date.now(),
    signal: new AbortController().signal,
  };
  await to.handle(Buffer.from(JSON.stringify(given)), context);
  return given.assignment_id;
}

const resultOf = async (id: string): Promise<unknown> => (await about(bus, "EXEC", "caf.exec.result.v1", id))[0]?.body;

verifies(
  "effect-once",
  "a job whose bus went away while it was marked is done once it is back, and not taken for one that had begun",
  async () => {
    let done = 0;
    const started = busStarted(bus);
    const one = intake(() => Promise.resolve({ payload: ++done }), {
      started: {
        async begin(...asked) {
          const begun = started.begin(...asked);
          await Promise.all([begun, nats.server.kill().then(() => nats.server.restart())]);
          return begun;
        },
      },
    });
    expect(await resultOf(await deliver(one))).toMatchObject({ status: "success", payload: 1 });
    expect(done).toBe(1);
  },
);

verifies(
  "effect-once",
  "a mark that was stored and not known to be keeps nobody from beginning, and a job that began is not begun again",
  async () => {
    let done = 0;
    let known = false;
    const started = busStarted(bus);
    const one = intake(
      () => {
        done++;
        return Promise.reject(new BeamlineError("unavailable", "no mail today"));
      },
      {
        started: {
          async begin(...asked) {
            const mark = await started.begin(...asked);
            if (known) return mark;
            known = true;
            throw new BeamlineError("unavailable", "its answer was lost");
          },
        },
      },
    );
    const given = assignment(
      { type: "mail", payload: {} },
      { options: { deadline_ms: 30_000, retry: { max_attempts: 1 } } },
    );
    await expect(deliver(one, given)).rejects.toMatchObject({ message: "its answer was lost" });
    expect(done).toBe(0);
    expect(await resultOf(await deliver(one, given))).toMatchObject({ status: "error", error_code: "NETWORK_ERROR" });
    expect(done).toBe(1);
    const other = intake(() => Promise.reject(new Error("begun again")), { workerId: "other" });
    await expect(deliver(other, given)).rejects.toMatchObject({
      message: expect.stringContaining("worker w began") as string,
    });
  },
);

verifies("effect-once", "a result does not hang on an acknowledgement that was refused before it", async () => {
  const real = busReports(bus, () => systemClock.now());
  const refused = Promise.withResolvers<void>();
  const one = intake(
    async () => {
      await refused.promise;
      return { payload: "sent" };
    },
    {
      reports: {
        ...real,
        ack: () => {
          refused.resolve();
          return Promise.reject(new BeamlineError("unavailable", "away for longer than anybody waits"));
        },
      },
    },
  );
  const id = await deliver(one);
  expect(await resultOf(id)).toMatchObject({ status: "success", payload: "sent" });
  expect((await about(bus, "EXEC_ACKS", "caf.exec.assign.v1.ack", id))[0]?.body).toMatchObject({ status: "accepted" });
});

test("what is cancelled while it is marked is not begun", async () => {
  const cancellations = new CancelBook();
  const given = assignment({ type: "mail", payload: {} });
  let done = 0;
  const one = intake(() => Promise.reject(new Error(`begun ${++done} times`)), {
    cancellations,
    started: {
      begin() {
        cancellations.note(keyOf("acme", given.assignment_id), "changed my mind");
        return Promise.resolve(undefined);
      },
    },
  });
  expect(await resultOf(await deliver(one, given))).toMatchObject({
    status: "cancelled",
    error_code: "CANCELLED_BY_USER",
  });
  expect(done).toBe(0);
});
