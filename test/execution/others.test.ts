/** BeamLine's own programs beside our workers, each speaking as it does in the wild: the two gateways, the Rust worker, the C++ worker. */
import { Command } from "commander";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { dlqCommand } from "../../cli/dlq.ts";
import { execCommand } from "../../cli/exec.ts";
import type { CommandContext } from "../../cli/exec.context.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { about, all, assign, assignment, byText, resultFor, usageFor, type Json } from "./kit.ts";

const RUST_ASSIGN = "caf.exec.assign.rust";
const DECIDE = "beamline.router.v1.decide";
const RESULT = "caf.exec.result.v1";
const USAGE = "beamline.usage.v1.metered";

let world: World;
let outside: Bus;
/** What whoever listens to results and usage hears: bodies. */
const heard: string[] = [];
beforeAll(async () => {
  world = await startWorld({ workers: ["execution"], syncInterval: "10s" });
  // Ours leave that subject to the Rust workers: only those who watch over assignments know it.
  const env = { BEAMLINE_EXEC_SUBJECTS: RUST_ASSIGN, BEAMLINE_EXEC_GRACE_MS: "200" };
  await world.startWorker("routing", env);
  await world.startWorker("usage", env);
  outside = await world.connect("publisher", "outside");
  for (const subject of [RESULT, USAGE])
    outside.nc.subscribe(subject, { callback: (_error, message) => void heard.push(message.string()) });
}, 90_000);
afterAll(() => world[Symbol.asyncDispose]());

function jsonIn(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return {};
  }
}

/** A request as these programs make it: their own client's, with the headers they set and no others. */
async function request(subject: string, body: unknown, headers: Record<string, string> = {}): Promise<Json> {
  const reply = await world.caller.call(subject, JSON.stringify(body), { timeoutMs: 5_000, headers });
  return JSON.parse(reply.text) as Json;
}

const usageOf = (id: string): Promise<readonly Json[]> =>
  about(world.bus, "USAGE", USAGE, id).then((found) => found.map(({ body }) => body));

async function command(...args: string[]): Promise<Json[]> {
  const printed: Json[] = [];
  const context: CommandContext = {
    connect: () =>
      Promise.resolve({ bus: world.bus, caller: world.caller, [Symbol.asyncDispose]: () => Promise.resolve() }),
    out: () => ({
      json: false,
      line: () => undefined,
      record: (record) => void printed.push({ ...record }),
      table: (rows) => void printed.push(...rows),
    }),
  };
  const program = new Command().exitOverride();
  for (const add of [execCommand, dlqCommand]) add(program, context);
  await program.parseAsync(["node", "beamline", ...args]);
  return printed;
}

describe("the C gateway", () => {
  const hybrid = (more: Json = {}): Json => ({ version: "1", tenant_id: "acme", request_id: "cgw-1", ...more });

  test("decides with what it forwards of a task, and of a message, and finds the decision without a tenant", async () => {
    expect(await request(DECIDE, hybrid({ message: {} }))).toMatchObject({
      ok: true,
      decision: { provider_id: expect.stringMatching(/./) as string, reason: "weighted", priority: 50 },
      context: { request_id: "cgw-1" },
    });
    const message = { message_id: "cgw-m", message_type: "chat", payload: { text: "hi" }, metadata: { source: "gw" } };
    const asked = hybrid({ trace_id: "tr", run_id: "run", message, policy_id: "default", context: { user_id: "u" } });
    const decided = await request(DECIDE, asked);
    const found = await until(async () => {
      const one = await request("beamline.router.v1.get_decision", { message_id: "cgw-m" });
      return one["provider_id"] !== undefined && one;
    }, "the decision to be found");
    expect(found["provider_id"]).toBe((decided["decision"] as Json)["provider_id"]);
  });

  test("gets errors whose codes it turns into a status, and its admin calls without a key are refused", async () => {
    expect(await request(DECIDE, hybrid({ message: {}, policy_id: "nope" }))).toMatchObject({
      ok: false,
      error: { code: "policy_not_found" },
    });
    expect(await request("beamline.router.v1.get_decision", { message_id: "never" })).toMatchObject({
      ok: false,
      error: { code: "policy_not_found" },
    });
    for (const name of ["get_extension_health", "get_circuit_breaker_states"])
      expect(await request(`beamline.router.v1.admin.${name}`, {})).toMatchObject({
        ok: false,
        error: { code: "UNAUTHENTICATED" },
      });
  });
});

describe("the TypeScript gateway", () => {
  test("decides in the extended form with its headers", async () => {
    const body = {
      version: "1",
      request_id: "ts-1",
      tenant_id: "acme",
      task: { type: "chat", payload: { text: "hello" } },
    };
    const headers = {
      trace_id: "ts-trace",
      version: "1",
      tenant_id: "acme",
      traceparent: `00-${"ab".repeat(16)}-${"cd".repeat(8)}-01`,
      cp_phase: "cp1",
    };
    expect(await request(DECIDE, body, headers)).toMatchObject({
      ok: true,
      context: { request_id: "ts-1", trace_id: "ts-trace" },
    });
  });

  verifies("effect-once", "hears every result beside metering, and takes none away", async () => {
    // Its client finds the consumer it names, sees that it cannot be bound to, and listens directly.
    const consumer = await world.bus.jsm.consumers.info("EXEC", "router-results");
    expect(consumer.config.deliver_subject).toBeUndefined();
    const passed = new Set<unknown>();
    outside.nc.subscribe(RESULT, {
      callback: (_error, message) => {
        const body = jsonIn(message.string());
        const says = (name: string, fallback: unknown): unknown => message.headers?.get(name) || fallback;
        // What it lets through: an id when there are headers, version 1, a tenant.
        if (message.headers !== undefined && message.headers.get("Nats-Msg-Id") === "") return;
        if (says("version", body["version"] ?? "1") !== "1" || !says("tenant_id", body["tenant_id"])) return;
        passed.add(body["assignment_id"]);
      },
    });
    await outside.flush();
    const ids = await Promise.all(
      Array.from({ length: 20 }, (_, n) => assign(world.bus, assignment({ type: "echo", payload: n }))),
    );
    for (const id of ids) await usageFor(world.bus, id);
    await until(() => ids.every((id) => passed.has(id)), "every result at the gateway");
    for (const id of ids) expect(await usageOf(id)).toHaveLength(1);
  });

  test("an outside program that would pull from the consumer of metering gets nothing, and metering all", async () => {
    const inbox = `${outside.inboxPrefix}.thief`;
    const stolen: string[] = [];
    outside.nc.subscribe(inbox, { callback: (_error, message) => void stolen.push(message.string()) });
    outside.send("$JS.API.CONSUMER.MSG.NEXT.EXEC.router-results", JSON.stringify({ batch: 100 }), undefined, inbox);
    await outside.flush();
    const ids = await Promise.all([1, 2, 3].map((n) => assign(world.bus, assignment({ type: "echo", payload: n }))));
    for (const id of ids) await usageFor(world.bus, id);
    expect(stolen).toEqual([]);
  });

  verifies("effect-once", "its own copy of a usage event is billed to nobody, also where it is let in", async () => {
    const tenant_id = "copied";
    const totals = (): Promise<unknown> =>
      world.caller.request("beamline.router.v1.usage", { tenant_id }, { timeoutMs: 5_000 });
    const id = await assign(world.bus, assignment({ type: "echo", payload: 1 }, { tenant_id }));
    const { body } = await usageFor(world.bus, id);
    const copy = JSON.stringify({ ...body, event_type: "result", timestamp: Date.now() });
    const headers = { traceparent: `00-${"ab".repeat(16)}-${"cd".repeat(8)}-01` };
    outside.send(USAGE, copy, headers); // refused by nats.conf
    await outside.flush();
    expect(await usageOf(id)).toHaveLength(1);
    const unguarded = await world.connect("operator");
    unguarded.send(USAGE, copy, headers);
    await until(async () => (await usageOf(id)).length === 2, "the copy in the stream");
    expect(await totals()).toMatchObject({ total_requests: 1, records: [{ requests: 1, by_status: { success: 1 } }] });
  });
});

/** The Rust worker: no queue group, deduplicating by itself, envelopes without headers, `caf.status.heartbeat.v1`, `caf.deadletter.v1`. */
function startRustWorker(
  bus: Bus,
  id: string,
  subject = RUST_ASSIGN,
): { readonly done: string[]; beat(status: string): void } {
  const done: string[] = [];
  const seen = new Set<string>();
  const say = (to: string, kind: string, data: Json): void =>
    bus.send(to, JSON.stringify({ version: "v1", kind, data }));
  bus.nc.subscribe(subject, {
    callback: (_error, message) => {
      const body = jsonIn(message.string());
      const job = (body["job"] ?? {}) as Json;
      const [assignment_id = "", request_id, tenant_id, type] = [
        ...["assignment_id", "request_id", "tenant_id"].map((name) => body[name]),
        job["type"],
      ].map((value) => (typeof value === "string" ? value : undefined));
      if (assignment_id === "" || type === undefined || !("payload" in job)) {
        const payload_ref = { subject: message.subject, len: message.data.length };
        const ts = new Date().toISOString();
        return say("caf.deadletter.v1", "dead_letter", { reason: "PARSE_ERROR", payload_ref, ts });
      }
      if (seen.has(assignment_id)) return;
      seen.add(assignment_id);
      done.push(assignment_id);
      if (type === "silence") return;
      const known = type === "echo";
      say(RESULT, "exec_result", {
        version: "1.0",
        assignment_id,
        request_id,
        status: known ? "success" : "error",
        provider_id: id,
        job_type: type,
        ...(known && { output: job["payload"] }),
        latency_ms: 3,
        cost: 0.0,
        ...(typeof body["trace_id"] === "string" && { trace_id: body["trace_id"] }),
        tenant_id,
        ...(!known && { error_code: "UNKNOWN_JOB_TYPE", error_message: `Unknown job type: ${type}` }),
      });
    },
  });
  return {
    done,
    beat: (status) =>
      say("caf.status.heartbeat.v1", "heartbeat", {
        worker_id: id,
        timestamp: new Date().toISOString(),
        status,
        load: 0.5,
      }),
  };
}

describe("the Rust worker", () => {
  let one: ReturnType<typeof startRustWorker>;
  let two: ReturnType<typeof startRustWorker>;
  let ids = 0;
  beforeAll(async () => {
    one = startRustWorker(outside, "rust-1");
    two = startRustWorker(outside, "rust-2");
    await outside.flush();
  });

  /** Decides, and gives the assignment that follows. */
  async function decided(task: Json, options: Json = {}): Promise<string> {
    const request_id = `rust-${++ids}`;
    const asked = { version: "1", request_id, tenant_id: "rusty", task, options };
    const push = { push_assignment: true, assignment_subject: RUST_ASSIGN };
    expect(await request(DECIDE, { ...asked, ...push })).toMatchObject({ ok: true });
    const found = await until(
      async () => (await all(world.bus, "EXEC", RUST_ASSIGN)).find(({ body }) => body["request_id"] === request_id),
      "the assignment",
    );
    return String(found.body["assignment_id"]);
  }

  verifies("effect-once", "two of it, each doing every assignment, are one usage event; ours keep away", async () => {
    const id = await decided({ type: "echo", payload: { text: "hello there" } });
    await until(() => one.done.includes(id) && two.done.includes(id), "both to have done it");
    expect((await usageFor(world.bus, id)).body).toMatchObject({
      status: "success",
      event_type: "echo",
      latency_ms: 3,
    });
    const results = await until(async () => {
      const found = (await all(world.bus, "EXEC", RESULT)).filter(
        ({ body }) => (body["data"] as Json)?.["assignment_id"] === id,
      );
      return found.length === 2 && found;
    }, "both results");
    expect(results.map(({ body }) => (body["data"] as Json)["provider_id"]).sort(byText)).toEqual(["rust-1", "rust-2"]);
    const later = await assign(world.bus, assignment({ type: "echo", payload: 1 }));
    await usageFor(world.bus, later);
    expect(await usageOf(id)).toHaveLength(1);
    expect(await about(world.bus, "EXEC_ACKS", "caf.exec.assign.v1.ack", id)).toEqual([]);
    expect((await command("exec", "show", id)).map(({ what, status, job }) => [what, status, job])).toEqual([
      ["assignment", "", "echo"],
      ["result", "success", "echo"],
      ["result", "success", "echo"],
    ]);
  });

  test("a reference in place of a payload is an assignment it can read", async () => {
    const id = await decided({ type: "echo", payload_ref: "s3://bucket/key" });
    await until(() => one.done.includes(id), "it to be done");
  });

  test("a type it does not know is an error that is billed once", async () => {
    const id = await decided({ type: "juggle", payload: { text: "hello there" } });
    expect((await usageFor(world.bus, id)).body).toMatchObject({ status: "error", event_type: "juggle" });
  });

  verifies(
    "clear-failure",
    "one that never answers is asked again, does not start again, and ends as a timeout",
    async () => {
      const id = await decided(
        { type: "silence", payload: { text: "hello there" } },
        { deadline_ms: 400, retry: { max_attempts: 2, backoff_ms: 10 } },
      );
      expect((await resultFor(world.bus, id, 30_000)).body).toMatchObject({ status: "timeout" });
      expect(one.done.filter((done) => done === id)).toHaveLength(1);
      await usageFor(world.bus, id);
      expect(await usageOf(id)).toHaveLength(1);
    },
  );

  test("its heartbeats are heard beside ours, and its dead letters are listed with why", async () => {
    const listening = command("exec", "workers", "--for", "400");
    const beating = setInterval(() => {
      one.beat("idle");
      two.beat("busy");
    }, 20);
    const workers = await listening.finally(() => clearInterval(beating));
    expect(workers).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ worker_id: "rust-1", status: "ready", cpu: 0.5 }),
        expect.objectContaining({ worker_id: "rust-2", status: "busy" }),
      ]),
    );
    world.bus.send(RUST_ASSIGN, "{not json");
    const [letter] = await until(async () => {
      const found = await command("dlq", "list", "--subject", "caf.deadletter.v1");
      return found.length === 2 && found;
    }, "its dead letters");
    expect(letter).toMatchObject({ reason: "PARSE_ERROR", redrivable: false });
    expect(letter?.["error"]).toContain(RUST_ASSIGN);
  });
});

describe("the C++ worker", () => {
  test("its acknowledgement and its result, all in text, a timeout without a code included, are taken like ours", async () => {
    const id = `caf-${Date.now()}`;
    outside.send(
      "caf.exec.assign.v1.ack",
      JSON.stringify({
        version: "1",
        assignment_id: id,
        status: "accepted",
        reason: "",
        correlation: { trace_id: "t" },
        tenant_id: "acme",
        metadata: {},
      }),
    );
    outside.send(
      RESULT,
      JSON.stringify({
        version: "1",
        assignment_id: id,
        request_id: "r",
        status: "timeout",
        provider_id: "caf-01",
        job: '{"type":"http.request"}',
        latency_ms: "150",
        cost: "0.0",
        trace_id: "t",
        tenant_id: "acme",
      }),
    );
    expect((await usageFor(world.bus, id)).body).toMatchObject({
      provider_id: "caf-01",
      event_type: "http.request",
      latency_ms: 150,
      cost: 0,
      status: "timeout",
    });
    const shown = await command("exec", "show", id);
    expect(shown.map(({ what, status, job }) => [what, status, job])).toEqual([
      ["ack", "accepted", ""],
      ["result", "timeout", "http.request"],
    ]);
    expect(await command("dlq", "list", "--subject", "caf.exec.>")).toEqual([]);
  });
});

verifies(
  "clear-failure",
  "whoever listens to results and usage hears nothing else there: no question of ours",
  async () => {
    // Asks the streams whether they know a result of it.
    const cancel = { assignment_id: "nobody-knows", tenant_id: "acme" };
    expect(await request("beamline.router.v1.cancel", cancel)).toMatchObject({ ok: true });
    await outside.flush();
    expect(heard.length).toBeGreaterThan(20);
    for (const text of heard) expect(jsonIn(text), text).not.toEqual({});
  },
);
