/** Deliveries of webhooks to real receivers: what is sent, how failures are dealt with, and where nothing is ever sent. */
import { createHmac } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import type { Bus } from "../../../bus/connect.ts";
import { listDeadLetters, redrive } from "../../../bus/redrive.ts";
import { ensureBuckets, ensureStreams } from "../../../bus/streams.ts";
import type { RunRecord } from "../../../contracts/openwop/log.ts";
import { buckets, streams } from "../../../contracts/streams.ts";
import { systemClock, type Clock } from "../../../runtime/clock.ts";
import { createEgress, type Egress } from "../../../runtime/egress.ts";
import { systemIds } from "../../../runtime/ids.ts";
import { createLogger } from "../../../runtime/log.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { runRecord } from "../../../test/kit/runrecord.ts";
import { until } from "../../../test/kit/until.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { RunLog } from "../log.ts";
import { Records } from "../records.ts";
import { BREAK_AFTER, FAIL_AFTER, REST_MS } from "./webhook.circuit.ts";
import { stateOf, Webhooks, type Subscription } from "./webhooks.ts";

interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const TRIES = 8;
const nothing: Received = { path: "", headers: {}, body: "" };
const clock: Clock & { ahead: number } = {
  ...systemClock,
  ahead: 0,
  now: () => systemClock.now() + clock.ahead,
  sleep: (ms, signal) => systemClock.sleep(ms, signal),
};
/** What a name resolves to, by test. */
const names = new Map<string, readonly string[]>();
const lines: string[] = [];

let nats: TestNats;
let bus: Bus;
let log: RunLog;
let receiver: Server;
let port = 0;
let received: Received[] = [];
/** What the receiver answers; undefined is nothing at all. */
let answer: (one: Received) => { status: number; location?: string } | undefined;
let egress: Egress;
let webhooks: Webhooks;
let other: Webhooks;

beforeAll(async () => {
  receiver = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      const one = { path: request.url ?? "", headers: request.headers, body };
      received.push(one);
      const given = answer(one);
      if (given !== undefined)
        response.writeHead(given.status, given.location === undefined ? {} : { location: given.location }).end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  ({ port } = receiver.address() as { port: number });
  nats = await startTestNats({ syncInterval: "10s" });
  bus = await nats.connect("worker-runs");
  await ensureStreams(bus, [streams.runs, streams.runHooks, streams.deadLetters]);
  await ensureBuckets(bus, [buckets.runWebhooks]);
  log = new RunLog(bus, clock, systemIds);
  egress = createEgress({
    allow: ["hooks.test"],
    resolve: (host) => Promise.resolve(names.get(host) ?? ["127.0.0.1"]),
  });
  const logger = createLogger({ component: "webhooks", level: "debug", write: (line) => lines.push(line) });
  const options = { bus, log, egress, clock, logger, insecure: true, backoffMs: [20] };
  webhooks = await Webhooks.open(options);
  other = await Webhooks.open(options);
}, 60_000);
afterAll(async () => {
  await Promise.all([webhooks.stop(Date.now() + 500), other.stop(Date.now() + 500)]);
  await egress.close();
  receiver.closeAllConnections();
  receiver.close();
  await nats.stop();
});
beforeEach(() => {
  received = [];
  answer = () => ({ status: 200 });
});

const url = (path: string): string => `http://hooks.test:${port}/${path}`;
const at = (path: string): Received[] => received.filter((one) => one.path === `/${path}`);

/** The runs that deliveries are about, sorted. */
function runsOf(deliveries: readonly Received[]): string[] {
  const ids = deliveries.map(({ body }) => (JSON.parse(body) as { runId: string }).runId);
  return ids.toSorted();
}

function register(path: string, tags: readonly string[] = [], target = url(path)): Promise<Subscription> {
  return webhooks.register("acme", systemIds.v7(), target, ["run.completed"], tags, undefined);
}

/** A run that has ended, as its log tells it. */
async function run(tenant = "acme", more: Partial<RunRecord> = {}): Promise<string> {
  const runId = systemIds.v7();
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const record = runRecord(runId, { owner: { tenant }, traceparent, ...more });
  await log.create(record, [
    { type: "run.started", payload: {} },
    { type: "run.completed", payload: {} },
  ]);
  return runId;
}

async function shown({ webhookId }: Subscription): Promise<Subscription & { readonly shownAs: string }> {
  const found = (await webhooks.list("acme")).find((one) => one.webhookId === webhookId);
  if (found === undefined) throw new Error("there is no such webhook");
  return { ...found, shownAs: stateOf(found, clock.now()) };
}

verifies(
  "one-trace",
  "a delivery: body, headers in both spellings, a signature anybody can check, the run's trace",
  async () => {
    const hook = await register("signed");
    const runId = await run();
    const [{ headers, body } = nothing] = await until(() => at("signed").length > 0 && at("signed"));
    const told = JSON.parse(body);
    expect(told).toMatchObject({ runId, workspaceId: "acme", type: "run.completed" });
    expect(told.event).toMatchObject({ runId, type: "run.completed", sequence: 1, eventId: expect.any(String) });
    expect(Object.keys(told).toSorted()).toEqual(["event", "runId", "type", "workspaceId"]);
    expect(headers["content-type"]).toBe("application/json");
    expect(headers["user-agent"]).toMatch(/^openwop-webhook-dispatcher\/\d/);
    for (const name of ["webhook-id", "event-type", "timestamp", "signature", "signature-algorithm"]) {
      expect([name, headers[`x-openwop-${name}`]]).toEqual([name, headers[`openwop-${name}`]]);
    }
    const timestamp = String(headers["x-openwop-timestamp"]);
    const mac = createHmac("sha256", hook.secret).update(`${timestamp}.${body}`).digest("hex");
    expect(headers).toMatchObject({
      "x-openwop-webhook-id": hook.webhookId,
      "x-openwop-event-type": "run.completed",
      "x-openwop-signature": `sha256=${mac}`,
      "x-openwop-signature-algorithm": "v1",
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    });
    expect(Math.abs(Number(timestamp) - Date.now() / 1_000)).toBeLessThan(300);
    await webhooks.unregister("acme", hook.webhookId);
  },
);

verifies(
  "tenant-wall",
  "filters: exact names, tags in common, and never another tenant's runs or a replay",
  async () => {
    const [all, tagged] = [await register("all"), await register("tagged", ["gold", "silver"])];
    const fork = { sourceRunId: "r", fromSeq: 0, effectsOf: "r" };
    await run("other", { tags: ["gold"] });
    await run("acme", { tags: ["gold"], fork: { ...fork, mode: "replay" } });
    const plain = await run("acme", { tags: ["bronze"] });
    const gold = await run("acme", { tags: ["iron", "gold"] });
    const branch = await run("acme", { tags: ["silver"], fork: { ...fork, mode: "branch" } });
    await until(() => at("all").length >= 3 && at("tagged").length >= 2, "the deliveries");
    expect(runsOf(at("all"))).toEqual([plain, gold, branch].toSorted());
    expect(runsOf(at("tagged"))).toEqual([gold, branch].toSorted());
    for (const { webhookId } of [all, tagged]) await webhooks.unregister("acme", webhookId);
  },
);

verifies(
  "effect-once",
  "two workers deliver every event once; what came before the subscription is not told",
  async () => {
    await run();
    // Times are told in milliseconds: what happened in that of the subscription is after it.
    clock.ahead += 1;
    const hook = await register("once");
    const runs = await Promise.all(Array.from({ length: 60 }, () => run()));
    await until(() => at("once").length >= runs.length, "all deliveries");
    expect(runsOf(at("once"))).toEqual(runs.toSorted());
    await webhooks.unregister("acme", hook.webhookId);
    await run();
    const last = await register("last");
    await run();
    await until(() => at("last").length > 0, "the delivery of another hook");
    expect(at("once")).toHaveLength(runs.length);
    await webhooks.unregister("acme", last.webhookId);
  },
);

test("a failure comes again, signed anew; success clears the count", async () => {
  answer = () => ({ status: at("again").length < 3 ? 503 : 204 });
  const hook = await register("again");
  await run();
  await until(() => at("again").length === 3, "the third try");
  const told = at("again");
  expect(new Set(told.map(({ body }) => body)).size).toBe(1);
  for (const { headers, body } of told) {
    const signed = `${String(headers["openwop-timestamp"])}.${body}`;
    expect(headers["openwop-signature"]).toBe(
      `sha256=${createHmac("sha256", hook.secret).update(signed).digest("hex")}`,
    );
  }
  await until(async () => (await shown(hook)).failures === 0, "a count that is cleared");
  expect((await shown(hook)).shownAs).toBe("active");
  await webhooks.unregister("acme", hook.webhookId);
});

test("a redirect is a failure and is not followed; a receiver that does not answer is given five seconds", async () => {
  answer = ({ path }) =>
    path === "/moved" ? { status: 302, location: url("elsewhere") } : path === "/silent" ? undefined : { status: 200 };
  const moved = await register("moved");
  await run();
  await until(async () => (await shown(moved)).failures > 0, "the failure");
  await webhooks.unregister("acme", moved.webhookId);
  expect(at("elsewhere")).toEqual([]);
  const silent = await register("silent");
  const began = performance.now();
  await run();
  await until(async () => (await shown(silent)).failures > 0, "the failure", 30_000);
  expect(performance.now() - began).toBeGreaterThan(4_900);
  await webhooks.unregister("acme", silent.webhookId);
}, 60_000);

verifies(
  "clear-failure",
  "the circuit: four failures rest it, its deliveries end as dead letters, one probe an hour later, redriven they arrive",
  async () => {
    answer = () => ({ status: 500 });
    const hook = await register("broken");
    const first = await run();
    await until(async () => (await shown(hook)).deadLetters === 1, "the dead letter");
    expect(at("broken")).toHaveLength(BREAK_AFTER);
    expect((await shown(hook)).shownAs).toBe("paused");
    clock.ahead += REST_MS + 1_000;
    expect((await shown(hook)).shownAs).toBe("dead-lettered");
    const runs = await Promise.all(Array.from({ length: 10 }, () => run()));
    await until(async () => (await shown(hook)).deadLetters === 11, "the other dead letters");
    expect(at("broken")).toHaveLength(BREAK_AFTER + 1);
    const mine = async (): Promise<number[]> =>
      (await listDeadLetters(bus, { subject: "log.run_hooks.>", tenantId: "acme" }, { limit: 100 })).entries
        .filter(({ letter }) => JSON.stringify(letter).includes(hook.webhookId))
        .map(({ seq, letter }) => {
          expect(letter?.context.attempts).toBe(TRIES);
          return seq;
        });
    await webhooks.revive("acme", hook.webhookId);
    answer = () => ({ status: 200 });
    const letters = await mine();
    expect(letters).toHaveLength(11);
    expect((await redrive(bus, letters)).map(({ outcome }) => outcome)).toEqual(letters.map(() => "redriven"));
    await until(() => at("broken").length === BREAK_AFTER + 1 + 11, "what was redriven");
    const delivered = at("broken").slice(BREAK_AFTER + 1);
    expect(runsOf(delivered)).toEqual([first, ...runs].toSorted());
    expect(await shown(hook)).toMatchObject({ shownAs: "active", deadLetters: 0, failures: 0 });
    expect(await mine()).toEqual([]);
    await webhooks.unregister("acme", hook.webhookId);
  },
);

test("the hundredth failure of a week fails a subscription: it is not called any more, until it is revived", async () => {
  answer = () => ({ status: 500 });
  const hook = await register("failed");
  const records = new Records<Subscription>(bus, buckets.runWebhooks);
  const today = Math.floor(clock.now() / (24 * REST_MS));
  const recent = { [today - 5]: 90, [today - 1]: FAIL_AFTER - 91 };
  await records.put(["acme", hook.webhookId], { ...hook, recent });
  await run();
  await until(async () => (await shown(hook)).deadLetters === 1, "the dead letter");
  expect([at("failed").length, (await shown(hook)).shownAs]).toEqual([1, "failed"]);
  await run();
  await until(async () => (await shown(hook)).deadLetters === 2, "the dead letter of one that was not tried");
  expect(at("failed")).toHaveLength(1);
  await webhooks.revive("acme", hook.webhookId);
  answer = () => ({ status: 200 });
  await run();
  await until(() => at("failed").length === 2, "a delivery");
  await webhooks.unregister("acme", hook.webhookId);
});

verifies(
  "clear-failure",
  "where a name leads is judged again at delivery: every address, and only the judged one is called",
  async () => {
    names.set("turncoat.test", ["93.184.216.34"]);
    const target = `http://turncoat.test:${port}/turncoat`;
    await webhooks.check(target);
    const hook = await register("turncoat", [], target);
    for (const addresses of [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["169.254.169.254"]]) {
      names.set("turncoat.test", addresses);
      await webhooks.revive("acme", hook.webhookId);
      await run();
      await until(async () => (await shown(hook)).failures > 0, "the refusal");
    }
    expect(at("turncoat")).toEqual([]);
    await webhooks.unregister("acme", hook.webhookId);
    // hooks.test is a name no resolver knows: only the address that was judged can have been called.
    const pinned = await register("pinned");
    await run();
    await until(() => at("pinned").length === 1, "the delivery");
    expect(at("pinned")[0]?.headers.host).toBe(`hooks.test:${port}`);
    await webhooks.unregister("acme", pinned.webhookId);
  },
);

verifies("acked-is-durable", "a list of webhooks that was read while one was registered is not kept", async () => {
  const first = await register("first");
  await bus.flush(); // the notice of it is here
  let late: Subscription | undefined;
  const spies = [webhooks, other].map((one) => {
    const list = one.list.bind(one);
    return vi.spyOn(one, "list").mockImplementation(async (tenant) => {
      const found = await list(tenant);
      if (late === undefined) {
        late = await register("late");
        await bus.flush();
      }
      return found;
    });
  });
  await run();
  await until(() => late !== undefined, "a list read too early");
  for (const spy of spies) spy.mockRestore();
  const runs = await Promise.all(Array.from({ length: 8 }, () => run()));
  await until(() => at("first").length === 9 && at("late").length >= 8, "deliveries to both");
  expect(runsOf(at("late"))).toEqual(expect.arrayContaining(runs));
  for (const { webhookId } of [first, late as unknown as Subscription]) await webhooks.unregister("acme", webhookId);
});

test("no secret is in the log", async () => {
  const mine = "a-secret-of-the-caller-0123456789";
  answer = () => ({ status: 500 });
  const hook = await webhooks.register("acme", systemIds.v7(), url("quiet"), ["run.completed"], [], mine);
  await run();
  await until(async () => (await shown(hook)).deadLetters > 0, "the dead letter");
  expect(lines.join("")).not.toContain(mine);
  const { entries } = await listDeadLetters(bus, {}, { limit: 500 });
  expect(JSON.stringify(entries.map(({ letter, body }) => [letter, Buffer.from(body).toString()]))).not.toContain(mine);
  await webhooks.unregister("acme", hook.webhookId);
});
