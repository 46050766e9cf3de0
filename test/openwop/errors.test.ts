/** Every error code that a caller can provoke, over REST and over gRPC: the same envelope, and the status of the mapping (OpenWOP, errors). */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canonicalJson } from "../../contracts/openwop/json.ts";
import { buckets } from "../../contracts/streams.ts";
import { Records } from "../../workers/runs/records.ts";
import { Tokens } from "../../workers/runs/tokens.ts";
import { verifies } from "../kit/verifies.ts";
import { KEYS, startHost, type Host } from "./host.ts";
import { grpcSurface, restSurface, type Reply, type Surface } from "./surface.ts";

const [CURRENT, RETIRED] = ["current-secret-0123456789", "retired-secret-0123456789"];
const retired = new Tokens([{ id: "k1", secret: RETIRED }]);
const stranger = new Tokens([{ id: "k9", secret: "a-secret-of-somebody-else" }]);

let host: Host;
let surfaces: readonly Surface[];
beforeAll(async () => {
  host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "false", OPENWOP_TOKEN_SECRETS: `k2:${CURRENT},k1:${RETIRED}` });
  surfaces = [restSurface(host), grpcSurface(host)];
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

/** An envelope without what differs from call to call: ids and times. */
function bare(body: unknown): unknown {
  const text = JSON.stringify(body)
    .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "<id>")
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "<time>");
  return JSON.parse(text);
}

async function waiting(workflowId: string, status: string): Promise<string> {
  const runId = await host.start(workflowId);
  await host.reaches(runId, status);
  return runId;
}

async function tokenFor(tokens: Tokens, expiresAt: number, intent: "resolve" | "inspect" = "resolve"): Promise<string> {
  const runId = await waiting("conformance-interrupt-external-event", "waiting-external");
  const { interrupt } = (await host.rest("GET", `/v1/runs/${runId}`)).body;
  const { nodeId, interruptId } = interrupt;
  return tokens.sign({ tenant: "acme", runId, nodeId, interruptId, expiresAt, intent });
}

const soon = (): number => Date.now() + 60_000;
const event = { orderId: "fixture-order-1", status: "completed" };

interface Row {
  readonly code: string;
  readonly http: number;
  readonly grpc: number;
  readonly what?: string;
  provoke(this: void, on: Surface): Promise<Reply>;
}

const rows: readonly Row[] = [
  {
    code: "unauthenticated",
    http: 401,
    grpc: 16,
    provoke: (on) => on.create({ workflowId: "conformance-noop" }, { key: "nobody" }),
  },
  { code: "key_expired", http: 401, grpc: 16, provoke: (on) => on.get("some-run", KEYS.old) },
  { code: "key_revoked", http: 401, grpc: 16, provoke: (on) => on.get("some-run", KEYS.gone) },
  {
    code: "forbidden",
    http: 403,
    grpc: 7,
    provoke: (on) => on.create({ workflowId: "conformance-noop" }, { key: KEYS.low }),
  },
  {
    code: "forbidden",
    what: "a token that may only look",
    http: 403,
    grpc: 7,
    provoke: async (on) => on.resolveToken(await tokenFor(retired, soon(), "inspect"), event),
  },
  { code: "validation_error", http: 400, grpc: 3, provoke: (on) => on.create({}) },
  {
    code: "validation_error",
    what: "a key that is too long",
    http: 400,
    grpc: 3,
    provoke: (on) => on.create({ workflowId: "conformance-noop" }, { idempotencyKey: "k".repeat(256) }),
  },
  {
    code: "validation_error",
    what: "more runs than may be cancelled at once",
    http: 400,
    grpc: 3,
    provoke: (on) => on.bulkCancel(Array.from({ length: 101 }, (_, at) => `run-${at}`)),
  },
  { code: "run_not_found", http: 404, grpc: 5, provoke: (on) => on.get("no-such-run") },
  { code: "workflow_not_found", http: 404, grpc: 5, provoke: (on) => on.create({ workflowId: "no-such-workflow" }) },
  {
    code: "artifact_not_found",
    http: 404,
    grpc: 5,
    provoke: async (on) => on.artifact(await host.start("conformance-noop"), "nothing"),
  },
  {
    code: "interrupt_not_found",
    http: 404,
    grpc: 5,
    provoke: async (on) => on.resolve(await waiting("conformance-approval", "waiting-approval"), "nowhere", {}),
  },
  {
    code: "interrupt_not_found",
    what: "a token signed by somebody else",
    http: 404,
    grpc: 5,
    provoke: async (on) => on.inspectToken(await tokenFor(stranger, soon())),
  },
  {
    code: "interrupt_already_resolved",
    http: 409,
    grpc: 9,
    async provoke(on) {
      const runId = await waiting("conformance-approval", "waiting-approval");
      await on.resolve(runId, "gate", { action: "accept" });
      return on.resolve(runId, "gate", { action: "accept" });
    },
  },
  {
    code: "interrupt_expired",
    http: 410,
    grpc: 9,
    provoke: async (on) => on.resolveToken(await tokenFor(retired, Date.now() - 1), event),
  },
  {
    code: "interrupt_expired",
    what: "looking",
    http: 410,
    grpc: 9,
    provoke: async (on) => on.inspectToken(await tokenFor(retired, Date.now() - 1)),
  },
  {
    code: "interrupt_gone",
    http: 410,
    grpc: 9,
    async provoke(on) {
      const runId = await waiting("conformance-interrupt-parent-child-cancel", "waiting-approval");
      const [child] = (await host.rest("GET", `/v1/runs/${runId}`)).body.childRuns;
      await host.reaches(child.runId, "waiting-approval");
      await on.cancel(runId);
      await host.reaches(child.runId, "cancelled");
      return on.resolve(child.runId, "child-gate", { action: "accept" });
    },
  },
  {
    code: "interrupt_cancelled",
    http: 422,
    grpc: 9,
    async provoke(on) {
      const runId = await waiting("conformance-approval", "waiting-approval");
      await on.cancel(runId);
      return on.resolve(runId, "gate", { action: "accept" });
    },
  },
  { code: "subscription_not_found", http: 404, grpc: 5, provoke: (on) => on.unregisterWebhook("no-such-webhook") },
  {
    code: "webhook_url_rejected",
    http: 400,
    grpc: 3,
    provoke: (on) => on.registerWebhook({ url: "https://169.254.169.254/latest", events: ["run.completed"] }),
  },
  {
    code: "run_terminal",
    http: 409,
    grpc: 9,
    async provoke(on) {
      return on.pause(await waiting("conformance-noop", "completed"));
    },
  },
  {
    code: "run_state_conflict",
    http: 409,
    grpc: 9,
    provoke: async (on) => on.resume(await waiting("conformance-approval", "waiting-approval")),
  },
  {
    code: "idempotency_key_mismatch",
    http: 409,
    grpc: 10,
    async provoke(on) {
      const idempotencyKey = `mismatch-${on.name}`;
      await on.create({ workflowId: "conformance-noop" }, { idempotencyKey });
      return on.create({ workflowId: "conformance-multi-node" }, { idempotencyKey });
    },
  },
  {
    code: "idempotency_in_flight",
    http: 409,
    grpc: 10,
    async provoke(on) {
      const idempotencyKey = `in-flight-${on.name}`;
      const body = { workflowId: "conformance-noop" };
      const digest = (text: string): string => createHash("sha256").update(text).digest("base64url");
      const elsewhere = {
        requestDigest: digest(canonicalJson(body)),
        executionId: "elsewhere",
        state: "pending",
        leaseOwner: "elsewhere",
        leaseUntil: Date.now() + 600_000,
      };
      await new Records<unknown>(host.bed.bus, buckets.runIdempotency).put(
        ["acme", "runs.create", digest(idempotencyKey)],
        elsewhere,
      );
      return on.create(body, { idempotencyKey });
    },
  },
  {
    code: "unsupported_stream_mode",
    http: 400,
    grpc: 3,
    provoke: async (on) => on.stream(await host.start("conformance-noop"), ["sideways"]),
  },
  {
    code: "mock_provider_forbidden",
    http: 403,
    grpc: 7,
    provoke: (on) =>
      on.create(
        { workflowId: "conformance-stream-text", configurable: { mockProvider: { id: "stream-text" } } },
        { key: KEYS.live },
      ),
  },
  {
    code: "unsupported_mock_provider",
    http: 400,
    grpc: 3,
    provoke: (on) =>
      on.create({ workflowId: "conformance-stream-text", configurable: { mockProvider: { id: "no-such" } } }),
  },
  {
    code: "replay_source_missing",
    http: 422,
    grpc: 9,
    provoke: async (on) => on.fork(await waiting("conformance-noop", "completed"), "replay", 9_999),
  },
];

describe("codes of answers", () => {
  test.concurrent.each(
    rows.map((row) => [row.what === undefined ? row.code : `${row.code}: ${row.what}`, row] as const),
  )("%s", { timeout: 40_000 }, async (_name, { code, http, grpc, provoke }) => {
    const [rest, rpc] = await Promise.all(surfaces.map((on) => provoke(on)));
    expect([rest?.status, rpc?.status], JSON.stringify([rest?.body, rpc?.body])).toEqual([http, grpc]);
    expect(rest?.body.error).toBe(code);
    expect(bare(rpc?.body)).toEqual(bare(rest?.body));
    expect(Object.keys(rest?.body).filter((key) => !["error", "message", "details"].includes(key))).toEqual([]);
  });
});

const node = (id: string, typeId: string, config: object = {}): object => ({
  id,
  typeId,
  name: id,
  position: { x: 0, y: 0 },
  config,
  inputs: {},
});

async function apply(id: string, nodes: readonly object[], more: object = {}): Promise<Reply> {
  const base = { name: id, version: "1", edges: [], triggers: [], variables: [], metadata: {}, settings: {} };
  const { status, body } = await host.rest("PUT", `/v1/workflows/${id}`, { id, nodes, ...base, ...more });
  return { ok: status < 300, status, body };
}

const edge = (sourceNodeId: string, targetNodeId: string): object => ({
  id: `${sourceNodeId}-${targetNodeId}`,
  sourceNodeId,
  targetNodeId,
});

describe("codes of runs that fail", () => {
  const failing: readonly (readonly [code: string, workflowId: string, more?: object])[] = [
    ["recursion_limit_exceeded", "conformance-cap-breach", { configurable: { recursionLimit: 3 } }],
    ["run_timeout", "conformance-run-duration-breach", { configurable: { runTimeoutMs: 200 } }],
    ["capability_not_provided", "conformance-capability-missing"],
    ["approval_rejected", "conformance-approval-timeout"],
    ["unsupported_node_type", "unknown-type"],
    ["unknown_child_workflow", "unknown-child"],
    ["channel_access_denied", "private-channel"],
    ["interrupt_expired", "unanswered"],
  ];
  beforeAll(async () => {
    const applied = [
      await apply("unknown-type", [node("n", "acme.never-heard-of")]),
      await apply("unknown-child", [node("n", "core.subWorkflow", { workflowId: "no-such-workflow" })]),
      await apply("private-channel", [node("n", "core.channelWrite", { channelName: "c", value: 1 })], {
        channels: { c: { reducer: "append", access: "private" } },
      }),
      await apply("unanswered", [node("n", "core.interrupt", { kind: "custom", timeoutMs: 100 })]),
    ];
    expect(applied.map(({ ok, body }) => ok || body)).toEqual(applied.map(() => true));
  });
  test.concurrent.each(failing)("%s", { timeout: 20_000 }, async (code, workflowId, more) => {
    const [rest, rpc] = await Promise.all(
      surfaces.map(async (on) => {
        const { body } = await on.create({ workflowId, ...(more as object | undefined) });
        await host.reaches(body.runId, "failed");
        return (await on.get(body.runId)).body;
      }),
    );
    expect(rest.error.code, JSON.stringify(rest.error)).toBe(code);
    expect(rest.error.message).not.toBe("");
    expect(bare(rpc.error)).toEqual(bare(rest.error));
  });
});

describe("tokens", () => {
  verifies("clear-failure", "malformed tokens are refused alike over both surfaces, and change nothing", async () => {
    const good = await tokenFor(retired, soon());
    const [payload = "", mac = ""] = good.split(".");
    const bad = [
      "not-a-token",
      "a.b.c",
      ".",
      `${payload}.`,
      `.${mac}`,
      `${payload}.${mac}.${mac}`,
      `${payload}.${mac.slice(1)}`,
      `${payload.slice(0, -4)}.${mac}`,
      `${Buffer.from("[]").toString("base64url")}.${mac}`,
      `${Buffer.from('{"runId":1}').toString("base64url")}.${mac}`,
      `${"x".repeat(5_000)}.${mac}`,
    ];
    for (const token of bad) {
      for (const ask of [(on: Surface) => on.inspectToken(token), (on: Surface) => on.resolveToken(token, event)]) {
        const [rest, rpc] = await Promise.all(surfaces.map(ask));
        expect([400, 404], token).toContain(rest?.status);
        expect(rpc?.status).toBe(rest?.status === 400 ? 3 : 5);
        expect(bare(rpc?.body)).toEqual(bare(rest?.body));
      }
    }
    expect((await surfaces[0]?.inspectToken(good))?.ok).toBe(true);
  });

  test.each(["rest", "grpc"])(
    "rotation over %s: what the retired secret signed is still answered, without a bearer",
    async (name) => {
      const on = surfaces.find((one) => one.name === name);
      const token = await tokenFor(retired, soon());
      expect((await on?.inspectToken(token))?.body.kind).toBe("external-event");
      expect((await on?.resolveToken(token, event))?.ok).toBe(true);
      const runId = await waiting("conformance-interrupt-external-event", "waiting-external");
      const { interrupt } = (await host.rest("GET", `/v1/runs/${runId}`)).body;
      const [payload = ""] = interrupt.interruptToken.split(".");
      expect(JSON.parse(Buffer.from(payload, "base64url").toString("utf8")).kid).toBe("k2");
    },
  );
});

describe("what cannot be read", () => {
  test("oversized bodies, bytes that are no message, cursors that are none", async () => {
    const big = { workflowId: "conformance-noop", inputs: { big: "x".repeat(5_000_000) } };
    const refused = await host.rest("POST", "/v1/runs", big);
    expect([refused.status, refused.body.error]).toEqual([413, "validation_error"]);
    const auth = { metadata: { authorization: `Bearer ${KEYS.full}` } };
    await expect(host.grpc.raw("createRun", Buffer.alloc(17 * 1024 * 1024), auth)).rejects.toMatchObject({ code: 8 });
    await expect(host.grpc.raw("createRun", Buffer.from([0x0a, 0xff, 0xff]), auth)).rejects.toMatchObject({ code: 3 });
    const runId = await host.start("conformance-noop");
    for (const cursor of ["abc", "1.5", "99999999999999999999", "0x1"]) {
      const paths = [`events?lastEventId=${cursor}`, `events/poll?lastSequence=${cursor}&timeout=1`];
      for (const path of paths) {
        const { status, body } = await host.rest("GET", `/v1/runs/${runId}/${path}`);
        expect([cursor, status, body.error]).toEqual([cursor, 400, "validation_error"]);
      }
    }
  });

  test("cyclic graphs, edges to nowhere, doubled ids are refused with their path", async () => {
    const [a, b] = [node("a", "core.noop"), node("b", "core.noop")];
    const cases: readonly (readonly [readonly object[], readonly object[], RegExp])[] = [
      [[a, b], [edge("a", "b"), edge("b", "a")], /^edges\[1\] closes a cycle/],
      [[a], [edge("a", "a")], /^edges\[0\] closes a cycle/],
      [[a], [edge("a", "nowhere")], /^edges\[0\]\.targetNodeId/],
      [[a, a], [], /^nodes\[1\]\.id/],
    ];
    for (const [nodes, edges, message] of cases) {
      const { status, body } = await apply("wrong", nodes, { edges });
      expect([status, body.error]).toEqual([400, "validation_error"]);
      expect(body.message).toMatch(message);
    }
    expect((await host.rest("GET", "/v1/workflows/wrong")).status).toBe(404);
  });
});

describe("limits of an edge", () => {
  test("429 with Retry-After, the same over both surfaces, before scopes, for this credential alone", async () => {
    const limited = await host.listen({ ratePerSecond: 3 });
    const [rest, rpc] = [restSurface(limited), grpcSurface(limited)];
    const exceed = async (on: Surface): Promise<Reply> => {
      for (;;) {
        const reply = await on.create({}, { key: KEYS.low });
        if (reply.body.error !== "forbidden") return reply;
      }
    };
    const [overRest, overGrpc] = [await exceed(rest), await exceed(rpc)];
    expect([overRest.status, overGrpc.status]).toEqual([429, 8]);
    expect(overRest.body).toMatchObject({ error: "rate_limited", details: { scope: "key", limit: 3 } });
    expect(overGrpc.body).toEqual(overRest.body);
    expect(overRest.body.details.retryAfterMs / 1_000).toBe(overRest.body.details.retryAfter);
    expect((await rest.get("no-such-run")).status).toBe(404);
    expect((await rpc.capabilities()).ok).toBe(true);
  });

  test("503: streams and calls of both surfaces count together, discovery does not", async () => {
    const small = await host.listen({ inflightCap: 1 });
    const [rest, rpc] = [restSurface(small), grpcSurface(small)];
    const runId = await waiting("conformance-approval", "waiting-approval");
    const leave = new AbortController();
    const asked = { run_id: runId, last_sequence: -1n, stream_modes: ["debug"] };
    const settings = { metadata: { authorization: `Bearer ${KEYS.full}` }, signal: leave.signal };
    const stream = small.grpc.stream("streamRunEvents", asked, settings)[Symbol.asyncIterator]();
    await stream.next();
    const [overRest, overGrpc] = [await rest.get(runId), await rpc.get(runId)];
    expect([overRest.status, overGrpc.status]).toEqual([503, 14]);
    expect(overRest.body).toMatchObject({ error: "service_unavailable", details: { retryAfter: 1 } });
    const { correlationId, ...details } = overRest.body.details;
    expect(correlationId).toMatch(/^[0-9a-f]{32}$/);
    expect(overGrpc.body).toEqual({ ...overRest.body, details });
    expect([(await rest.capabilities()).ok, (await rpc.capabilities()).ok]).toEqual([true, true]);
    leave.abort();
    await stream.return?.();
    await expect.poll(async () => (await rpc.get(runId)).ok).toBe(true);
    expect((await rest.get(runId)).ok).toBe(true);
  });
});

test("If-None-Match: a run that has not moved is not sent again", async () => {
  const runId = await waiting("conformance-noop", "completed");
  const first = await host.rest("GET", `/v1/runs/${runId}`);
  const etag = first.headers.get("etag") ?? "";
  expect(etag).toMatch(/^".+"$/);
  for (const asked of [etag, `W/${etag}`, `"other", ${etag}`, "*"]) {
    const again = await host.rest("GET", `/v1/runs/${runId}`, undefined, { "if-none-match": asked });
    expect([asked, again.status, again.body]).toEqual([asked, 304, undefined]);
  }
  const other = await host.rest("GET", `/v1/runs/${runId}`, undefined, { "if-none-match": '"other"' });
  expect([other.status, other.body.runId]).toEqual([200, runId]);
});
