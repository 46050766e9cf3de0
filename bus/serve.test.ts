/** Calls, serving and streams against a real server. K, S and T are the invariants in the headers of call, serve and stream. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { BeamlineError } from "../contracts/errors.ts";
import { header } from "../contracts/headers.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import { Caller } from "./call.ts";
import type { Bus } from "./connect.ts";
import type { Answer, Endpoint, Stream } from "./endpoint.ts";
import { textOf } from "./headers.ts";
import { Server, type ServeOptions } from "./serve.ts";
import { openStream } from "./stream.ts";

let nats: TestNats;
let workerBus: Bus;
let caller: Caller;
const servers: Server[] = [];
let count = 0;

beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "1m" });
});
afterAll(() => nats.stop());
beforeEach(async () => {
  workerBus = await nats.connect("worker", "worker");
  caller = new Caller(await nats.connect("client", "publisher"));
});
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop(Date.now() + 500)));
  await Promise.all([workerBus.close(), caller.bus.close()]);
});

const subject = (): string => `aios.test.v1.method_${count}`;
const common = (): Pick<Endpoint, "subject" | "name" | "dialect" | "timeoutMs"> => ({
  subject: subject(),
  name: `test-${++count}`,
  dialect: "aios",
  timeoutMs: 5_000,
});

async function serve(endpoint: Endpoint, options: Partial<ServeOptions> = {}): Promise<Server> {
  const server = new Server(workerBus, [endpoint], { name: "test", version: "1.0.0", ...options });
  servers.push(server);
  await server.ready();
  return server;
}

async function answering(
  answer: Answer,
  options: Partial<ServeOptions> = {},
): Promise<{ subject: string; server: Server }> {
  const endpoint: Endpoint = { ...common(), kind: "request", answer };
  return { subject: endpoint.subject, server: await serve(endpoint, options) };
}

async function streaming(stream: Stream): Promise<string> {
  const endpoint: Endpoint = { ...common(), kind: "stream", stream };
  await serve(endpoint);
  return endpoint.subject;
}

const call = (to: string, options: Partial<Parameters<Caller["call"]>[2]> = {}): ReturnType<Caller["call"]> =>
  caller.call(to, "{}", { timeoutMs: 3_000, ...options });
const failure = (promise: Promise<unknown>): Promise<BeamlineError> =>
  promise.then(
    () => Promise.reject(new Error("it did not fail")),
    (error: unknown) => error as BeamlineError,
  );

test("a call is answered", async () => {
  const { subject: to } = await answering((text, context) => JSON.stringify({ text, tenant: context.tenant }));
  expect((await call(to, { headers: { tenant_id: "acme" } })).text).toBe('{"text":"{}","tenant":"acme"}');
  expect((await call(to)).text).toContain('"tenant":"default"');
});

verifies("clear-failure", "K1: nobody listening is unavailable at once and says which worker", async () => {
  const before = Date.now();
  const error = await failure(call("aios.nobody.v1.x", { worker: "memory", timeoutMs: 20_000 }));
  expect(error.code).toBe("unavailable");
  expect(error.message).toContain("no memory worker is serving aios.nobody.v1.x");
  expect(Date.now() - before).toBeLessThan(5_000);
});

test("K1: a subject the caller has no right to is permission_denied at once", async () => {
  const error = await failure(call("log.memory.x", { timeoutMs: 20_000 }));
  expect([error.code, error.message]).toEqual([
    "permission_denied",
    "the bus user of this process may not send to log.memory.x",
  ]);
});

test("K1: nobody answering is deadline_exceeded", async () => {
  const { subject: to } = await answering(() => new Promise<string>(() => undefined));
  expect((await failure(call(to, { timeoutMs: 50 }))).code).toBe("deadline_exceeded");
});

test("K3: a cancelled call is cancelled at the worker too", async () => {
  let aborted: unknown;
  let started = false;
  const { subject: to } = await answering((_text, { signal }) => {
    started = true;
    return new Promise<string>((_, reject) => {
      signal.addEventListener("abort", () => {
        aborted = signal.reason;
        reject(BeamlineError.from(signal.reason));
      });
    });
  });
  const gone = new AbortController();
  const error = failure(call(to, { signal: gone.signal }));
  await until(() => started);
  gone.abort();
  expect((await error).code).toBe("cancelled");
  await until(() => aborted !== undefined);
  expect((aborted as BeamlineError).code).toBe("cancelled");
});

test("the handler's signal aborts when the deadline passes", async () => {
  let reason: BeamlineError | undefined;
  const { subject: to } = await answering(
    (_text, { signal }) =>
      new Promise<string>(() => signal.addEventListener("abort", () => (reason = signal.reason as BeamlineError))),
  );
  await failure(call(to, { timeoutMs: 60, headers: { [header.deadline]: String(Date.now() + 60) } }));
  await until(() => reason);
  expect(reason?.code).toBe("deadline_exceeded");
});

verifies("clear-failure", "S1: beyond its limits a worker refuses at once, and says so", async () => {
  const release = Promise.withResolvers<string>();
  const { subject: to, server } = await answering(() => release.promise, { concurrency: 2, queue: 1 });
  const accepted = [call(to), call(to), call(to)];
  await until(() => server.load.active === 2 && server.load.waiting === 1);
  const refused = await call(to);
  expect(refused.headers[header.serviceErrorCode]).toBe("429");
  expect(JSON.parse(refused.text)).toMatchObject({
    ok: false,
    error: { code: "resource_exhausted", details: { retry_after_seconds: 1 } },
  });
  release.resolve("done");
  expect((await Promise.all(accepted)).map((reply) => reply.text)).toEqual(["done", "done", "done"]);
});

test("S1: however many wait for a place, each is answered when their turn comes", async () => {
  const blocked = Promise.withResolvers<string>();
  let first = true;
  const { subject: to, server } = await answering(
    () => {
      if (!first) return "{}"; // at once: nothing comes between one call and the next
      first = false;
      return blocked.promise;
    },
    { concurrency: 1, queue: 20_000 },
  );
  const calls = [call(to, { timeoutMs: 20_000 })];
  await until(() => server.load.active === 1);
  for (let i = 0; i < 10_000; i++) calls.push(call(to, { timeoutMs: 20_000 }));
  await until(() => server.load.waiting === 10_000);
  blocked.resolve("{}");
  expect((await Promise.all(calls)).length).toBe(10_001);
  expect(server.load).toEqual({ active: 0, waiting: 0 });
});

test("S2: a call whose deadline has passed is not run", async () => {
  let ran = false;
  const { subject: to } = await answering(() => {
    ran = true;
    return "x";
  });
  const reply = await call(to, { headers: { [header.deadline]: String(Date.now() - 1) } });
  expect(JSON.parse(reply.text)).toMatchObject({ error: { code: "deadline_exceeded" } });
  expect(ran).toBe(false);
});

verifies(
  "crash-safe",
  "S3: a drain answers what was accepted and refuses what still waits when time is up",
  async () => {
    const release = Promise.withResolvers<string>();
    const { subject: to, server } = await answering(() => release.promise, { concurrency: 1, queue: 5 });
    const running = call(to);
    await until(() => server.load.active === 1);
    const stopped = server.stop(Date.now() + 5_000);
    release.resolve("finished");
    await stopped;
    expect((await running).text).toBe("finished");
    expect((await failure(call(to))).code).toBe("unavailable");

    const stuck = await answering(() => new Promise<string>(() => undefined), { concurrency: 1, queue: 5 });
    const first = failure(call(stuck.subject, { timeoutMs: 2_000 }));
    const second = call(stuck.subject);
    await until(() => stuck.server.load.waiting === 1);
    await stuck.server.stop(Date.now() + 20);
    expect(JSON.parse((await second).text)).toMatchObject({ error: { code: "unavailable" } });
    await first;
  },
);

test("bytes that are not UTF-8 are refused, not mangled", async () => {
  const { subject: to } = await answering((text) => text);
  const inbox: string[] = [];
  const reply = caller.inbox.openForEver((message) => void inbox.push(textOf(message)));
  caller.bus.send(to, Uint8Array.from([0x22, 0xc3, 0x28, 0x22]), undefined, reply);
  await until(() => inbox.length === 1);
  expect(JSON.parse(inbox[0] ?? "")).toMatchObject({
    error: { code: "invalid_argument", message: "body is not valid UTF-8" },
  });
  expect((await caller.call(to, '"\uFFFD"', { timeoutMs: 3_000 })).text).toBe('"\uFFFD"');
});

test("S4: a stranger's error stays inside, and the worker stays up", async () => {
  const seen: BeamlineError[] = [];
  const { subject: to } = await answering(
    () => {
      throw new TypeError("password=hunter2");
    },
    { onError: (error) => seen.push(error) },
  );
  for (const _ of [1, 2]) {
    const reply = await call(to);
    expect(reply.text).not.toContain("hunter2");
    expect(JSON.parse(reply.text)).toEqual({ ok: false, error: { code: "internal", message: "internal error" } });
  }
  expect(seen[0]?.cause).toBeInstanceOf(TypeError);
});

verifies("tenant-wall", "S5: a reply never goes to a subject of the system's own", async () => {
  let ran = 0;
  const { subject: to } = await answering(() => {
    ran++;
    return "forged";
  });
  const operator = await nats.connect("watch", "operator");
  const heard: string[] = [];
  operator.nc.subscribe("log.>", { callback: (_error, message) => void heard.push(textOf(message)) });
  operator.nc.subscribe("$KV.>", { callback: (_error, message) => void heard.push(textOf(message)) });
  await operator.flush();
  for (const reply of ["log.memory.forged", "$KV.policies.x", "sched.x"]) caller.bus.send(to, "{}", undefined, reply);
  await call(to); // arrives after them on the same connection
  await operator.flush();
  expect(ran).toBe(4);
  expect(heard).toEqual([]);
});

test("a call to a worker that is killed with the connection open ends by its deadline, one whose bus is lost at once (K2)", async () => {
  await using own = await startTestNats({ syncInterval: "1m" });
  const bus = await own.connect("client", "publisher");
  const server = new Server(
    await own.connect("worker", "worker"),
    [{ ...common(), subject: "aios.k2.v1.x", kind: "request", answer: () => new Promise<string>(() => undefined) }],
    { name: "test", version: "1.0.0" },
  );
  await server.ready();
  const lonely = new Caller(bus);
  const pending = failure(lonely.call("aios.k2.v1.x", "{}", { timeoutMs: 20_000 }));
  await until(() => server.load.active === 1);
  await own.server.kill();
  expect((await pending).code).toBe("unavailable");
  expect((await failure(lonely.call("aios.k2.v1.x", "{}", { timeoutMs: 20_000 }))).code).toBe("unavailable");
  await own.server.restart();
  await until(() => bus.connected);
  const again = failure(lonely.call("aios.k2.v1.x", "{}", { timeoutMs: 100 }));
  expect(["deadline_exceeded", "unavailable"]).toContain((await again).code);
});

test("service discovery lists the worker with its statistics", async () => {
  const { subject: to } = await answering(() => "x");
  await call(to);
  const operator = new Caller(await nats.connect("cli", "operator"));
  const ping = (await operator.request("$SRV.PING.test", "", { timeoutMs: 1_000 })) as { type: string; name: string };
  expect(ping).toMatchObject({ type: "io.nats.micro.v1.ping_response", name: "test" });
  const info = (await operator.request("$SRV.INFO.test", "", { timeoutMs: 1_000 })) as { endpoints: unknown[] };
  expect(info.endpoints).toEqual([expect.objectContaining({ subject: to, queue_group: "test" })]);
  const stats = (await operator.request("$SRV.STATS.test", "", { timeoutMs: 1_000 })) as {
    endpoints: { num_requests: number }[];
  };
  expect(stats.endpoints[0]?.num_requests).toBe(1);
});

async function* numbers(n: number, sent?: { count: number }): AsyncGenerator<string> {
  for (let i = 0; i < n; i++) {
    if (sent !== undefined) sent.count = i + 1;
    yield String(i);
  }
}

const stream = (to: string, options: Partial<Parameters<typeof openStream>[3]> = {}): AsyncGenerator<string> =>
  openStream(caller, to, "{}", { timeoutMs: 5_000, ...options });

async function collect(messages: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = [];
  for await (const one of messages) all.push(one);
  return all;
}

test("T1, T3: a stream arrives in order and ends", async () => {
  const to = await streaming(() => numbers(500));
  expect(await collect(stream(to))).toEqual(Array.from({ length: 500 }, (_, i) => String(i)));
});

test("T2: the worker runs no further ahead than the window", async () => {
  const sent = { count: 0 };
  const to = await streaming(() => numbers(100, sent));
  const reader = stream(to, { window: 8 });
  await reader.next();
  await until(() => sent.count === 9); // eight under way, the ninth waits for room
  const rest = await collect(reader);
  expect(rest.length).toBe(99);
});

test("T2: a plain NATS client gets everything and the end mark", async () => {
  const to = await streaming(() => numbers(100));
  const marks: string[] = [];
  const inbox = caller.inbox.openForEver((message) => marks.push(message.headers?.get(header.stream) ?? ""));
  caller.bus.send(to, "{}", undefined, inbox);
  await until(() => marks.includes("end"));
  expect(marks.filter((mark) => mark === "data").length).toBe(100);
});

test("T3: an error in the middle arrives after what was sent before it", async () => {
  const to = await streaming(async function* () {
    yield "a";
    throw new BeamlineError("not_found", "gone");
  });
  const got: string[] = [];
  const error = await failure(
    (async () => {
      for await (const one of stream(to)) got.push(one);
    })(),
  );
  expect(got).toEqual(["a"]);
  expect([error.code, error.message]).toEqual(["not_found", "gone"]);
});

test.each(["leaving the loop", "its signal"])("T4: a caller cancels by %s", async (how) => {
  let reason: unknown;
  let cleanedUp = false;
  const to = await streaming(async function* (_text, { signal }) {
    signal.addEventListener("abort", () => (reason = signal.reason));
    try {
      for (let i = 0; ; i++) yield String(i);
    } finally {
      cleanedUp = true;
    }
  });
  const gone = new AbortController();
  const reading = (async () => {
    for await (const one of stream(to, { window: 4, signal: gone.signal })) {
      if (one !== "10") continue;
      if (how === "its signal") gone.abort();
      else break;
    }
  })();
  if (how === "its signal") expect((await failure(reading)).code).toBe("cancelled");
  else await reading;
  await until(() => cleanedUp);
  expect((reason as BeamlineError).code).toBe("cancelled");
});

verifies(
  "clear-failure",
  "T5: a worker that falls silent in the middle of a stream is unavailable, never a hang",
  async () => {
    const to = await streaming(async function* () {
      yield "a";
      await new Promise(() => undefined);
    });
    const error = await failure(collect(stream(to, { silenceMs: 100 })));
    expect(error.code).toBe("unavailable");
  },
);

test("nobody serving a stream is unavailable at once", async () => {
  expect((await failure(collect(stream("aios.nobody.v1.stream", { worker: "inference" })))).message).toContain(
    "no inference worker",
  );
});
