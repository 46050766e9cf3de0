/** A provider that is asked while the bus goes away, on a real server. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { Caller } from "../../../bus/call.ts";
import type { Bus } from "../../../bus/connect.ts";
import { requestEndpoint } from "../../../bus/endpoint.ts";
import { Server } from "../../../bus/serve.ts";
import { readAssignment } from "../../../contracts/execution/assignment.ts";
import { assignment } from "../../../test/execution/kit.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { until } from "../../../test/kit/until.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import type { JobContext } from "../job.ts";
import { askJob } from "./ask.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "1m" });
  bus = await nats.connect("worker-inference");
}, 60_000);
afterAll(() => nats?.stop());

/** Serves providers; `seen` are the keys it was asked by. */
async function serve(answer: () => Promise<object>): Promise<{ seen: (string | undefined)[]; stop(): Promise<void> }> {
  const seen: (string | undefined)[] = [];
  const subject = "beamline.provider.v1.invoke";
  const endpoint = requestEndpoint({ subject, dialect: "beamline", timeoutMs: 5_000 }, async (_text, { headers }) => {
    seen.push(headers["idempotency_key"]);
    return JSON.stringify(await answer());
  });
  const server = new Server(bus, [endpoint], { name: "inference", version: "1" });
  await server.ready();
  return { seen, stop: () => server.stop(Date.now()) };
}

const given = assignment({ type: "chat", payload: { text: "hi" } });
const context: JobContext = {
  assignment: readAssignment(Buffer.from(JSON.stringify(given)), {}),
  attempt: 1,
  deadline: Date.now() + 60_000,
  signal: new AbortController().signal,
  traceparent: "",
};

verifies(
  "effect-once",
  "A1: an answer that a lost connection kept from its job is asked for again by its key",
  async () => {
    const asking = await nats.connect("worker-execution");
    let lost = false;
    const inference = await serve(async () => {
      if (!lost) {
        lost = true;
        void asking.nc.reconnect();
        await until(() => !asking.connected, "the connection to be lost");
      }
      return { status: "success", body: '{"text":"hello"}', cost: 0.5 };
    });
    const caller = new Caller(asking);
    const output = await askJob(caller, asking).run({ text: "hi" }, context);
    expect(output).toMatchObject({ payload: { text: "hello" }, cost: 0.5 });
    expect(inference.seen).toEqual([given.assignment_id, given.assignment_id]);
    await inference.stop();
    caller.stop();
  },
);

test("with the bus there, a worker that is not is told at once", async () => {
  const asking = await nats.connect("worker-execution");
  const caller = new Caller(asking);
  await expect(askJob(caller, asking).run({ text: "hi" }, context)).rejects.toMatchObject({
    code: "RESOURCE_UNAVAILABLE",
  });
  caller.stop();
});
