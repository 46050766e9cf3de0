/** What cannot be sent, for want of a right or of room: told at once, in the words of who called. K, S and T as in the headers of call, serve and stream. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { BeamlineError } from "../contracts/errors.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { verifies } from "../test/kit/verifies.ts";
import { Caller, errorOfReply, isError } from "./call.ts";
import type { Bus } from "./connect.ts";
import type { Endpoint } from "./endpoint.ts";
import { Server } from "./serve.ts";
import { openStream } from "./stream.ts";

const TO = "aios.test.v1.refused";
const common = { subject: TO, name: "test-refused", dialect: "aios", timeoutMs: 20_000 } as const;

let nats: TestNats;
let workerBus: Bus;
let caller: Caller;
let server: Server | undefined;

beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "1m" });
});
afterAll(() => nats.stop());
beforeEach(async () => {
  workerBus = await nats.connect("worker", "worker");
  caller = new Caller(await nats.connect("client", "publisher"));
});
afterEach(async () => {
  await server?.stop(Date.now() + 500);
  server = undefined;
  await Promise.all([workerBus.close(), caller.bus.close()]);
});

async function serve(endpoint: Endpoint): Promise<void> {
  server = new Server(workerBus, [endpoint], { name: "test", version: "1.0.0" });
  await server.ready();
}

async function collect(messages: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = [];
  for await (const one of messages) all.push(one);
  return all;
}

async function failure(work: Promise<unknown>): Promise<BeamlineError> {
  try {
    await work;
  } catch (thrown) {
    if (thrown instanceof BeamlineError) return thrown;
    throw thrown;
  }
  throw new Error("it did not fail");
}

/** The error a call is answered with. */
async function refusal(): Promise<BeamlineError> {
  const reply = await caller.call(TO, "{}", { timeoutMs: 20_000 });
  expect(isError(reply.headers)).toBe(true);
  return errorOfReply(reply);
}

test("K2: a stream from a subject the caller has no right to is permission_denied at once", async () => {
  const before = Date.now();
  const error = await failure(collect(openStream(caller, "log.memory.x", "{}", { timeoutMs: 60_000 })));
  expect([error.code, error.message]).toEqual([
    "permission_denied",
    "the bus user of this process may not send to log.memory.x",
  ]);
  expect(Date.now() - before).toBeLessThan(10_000); // the silence of a worker would be 15 s
});

const words = (): unknown =>
  expect.stringMatching(
    `^the reply of ${TO} has \\d{7} bytes, more than the ${workerBus.maxPayload} the bus takes in one message$`,
  );

verifies(
  "clear-failure",
  "S6: a worker whose user may not hear its own calls does not start, and says which",
  async () => {
    const faults: string[] = [];
    caller.bus.onFault(({ code }) => faults.push(code));
    const endpoint: Endpoint = { ...common, kind: "request", answer: () => "{}" };
    server = new Server(caller.bus, [endpoint], { name: "test", version: "1.0.0" });
    expect(await failure(server.ready())).toMatchObject({
      code: "permission_denied",
      message: `listen on ${TO}: the bus user may not do that`,
    });
    expect(faults).toContain("permission_denied");
  },
);

verifies("clear-failure", "a reply that is too large is told by what was called and by the limit", async () => {
  const size = workerBus.maxPayload + 1;
  await serve({ ...common, kind: "request", answer: () => "x".repeat(size) });
  expect(await refusal()).toMatchObject({ code: "message_too_large", message: words() });
});

test("T3: so is a message of a stream that is too large, after what was sent before it", async () => {
  const size = workerBus.maxPayload + 1;
  await serve({
    ...common,
    kind: "stream",
    async *stream() {
      yield "a";
      yield "x".repeat(size);
    },
  });
  const got: string[] = [];
  const reading = (async () => {
    for await (const one of openStream(caller, TO, "{}", { timeoutMs: 20_000 })) got.push(one);
  })();
  expect(await failure(reading)).toMatchObject({ code: "message_too_large", message: words() });
  expect(got).toEqual(["a"]);
});

verifies("clear-failure", "S3: an error whose words are too many for a message is answered by its code", async () => {
  const text = "é".repeat(workerBus.maxPayload);
  const thrown = new BeamlineError("not_found", text, { field: "goal_id", details: { goal_id: text } });
  await serve({ ...common, kind: "request", answer: () => Promise.reject(thrown) });
  const error = await refusal();
  expect(error).toMatchObject({ code: "not_found", field: "goal_id" });
  expect(error.message).toMatch(/^é+…$/);
});
