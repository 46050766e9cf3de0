/** One decision by every way in: gRPC client, NATS request, command line. What each may get wrong, and what each is told. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";
import { status as grpc, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MemoryServiceDefinition } from "../../contracts/gen/aios/memory.ts";
import { RouterAdminDefinition, RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { EngineDefinition } from "../../contracts/gen/openwop/v1/openwop.ts";
import { header } from "../../contracts/headers.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { verifies } from "../kit/verifies.ts";
import { ADMIN_KEY, startWorld, type World } from "../kit/world.ts";

const DECIDE = "beamline.router.v1.decide";
const admin = { metadata: { "x-api-key": ADMIN_KEY } };

let world: World;
let router: GrpcClient<typeof RouterDefinition>;
let policies: GrpcClient<typeof RouterAdminDefinition>;

beforeAll(async () => {
  world = await startWorld({ workers: ["routing"], syncInterval: "1m" });
  router = grpcClient(RouterDefinition, world.grpc);
  policies = grpcClient(RouterAdminDefinition, world.grpc);
  await policies.call(
    "upsertPolicy",
    {
      tenant_id: "acme",
      policy: {
        policy_id: "split",
        providers: [
          { id: "openai", weight: 0.7 },
          { id: "anthropic", weight: 0.3 },
        ],
      },
    },
    admin,
  );
});
afterAll(async () => {
  router?.[Symbol.dispose]();
  policies?.[Symbol.dispose]();
  await world?.[Symbol.asyncDispose]();
});

const message = (tenant_id = "acme"): object => ({
  message_id: "m1",
  tenant_id,
  message_type: "chat",
  payload: '{"text":"hi"}',
});
const overNats = (request: object, headers = {}): Promise<unknown> =>
  world.caller.request(DECIDE, request, { timeoutMs: 5_000, headers });
const overGrpc = (
  request: object,
  settings = {},
): Promise<{ provider_id: string; metadata: Readonly<Record<string, string>> }> =>
  router.call("decide", request, settings);
const refusal = (promise: Promise<unknown>): Promise<ServiceError> =>
  promise.then(
    () => Promise.reject(new Error("it was not refused")),
    (error: unknown) => error as ServiceError,
  );

describe("the sample of the contract", () => {
  // As it stands in the contract's own documentation.
  const sample = {
    message: {
      message_id: "msg_1234567890",
      tenant_id: "tenant_abc123",
      trace_id: "trace_abc123",
      message_type: "chat",
      payload: '{"text": "Hello, world!"}',
      metadata: { source: "gateway" },
      timestamp_ms: 1704067200000,
      run_id: "run_abc123",
      flow_id: "flow_xyz789",
      step_id: "step_012345",
      idempotency_key: "idem_key_345",
      span_id: "span_678901",
    },
    policy_id: "default",
    context: { user_id: "user_123" },
    idempotency_key: "request_idem_key_456",
  };

  test("gets a decision over NATS", async () => {
    expect(await overNats(sample)).toMatchObject({
      provider_id: "openai",
      reason: "weighted",
      priority: 50,
      metadata: { algorithm: "weighted_round_robin" },
    });
  });

  test("gets a decision over gRPC", async () => {
    const request = { ...sample, message: { ...sample.message, payload: Buffer.from(sample.message.payload) } };
    expect(await overGrpc(request)).toMatchObject({
      provider_id: "openai",
      reason: "weighted",
      priority: 50,
      metadata: { algorithm: "weighted_round_robin" },
    });
  });
});

verifies("one-contract", "a 70/30 policy is 70/30 over gRPC, over NATS and by the command line", async () => {
  const share = (decisions: readonly { provider_id: string }[]): number =>
    decisions.filter((one) => one.provider_id === "openai").length / decisions.length;
  const grpcDecisions = [];
  const natsDecisions = [];
  const decided = async (request: object): Promise<{ provider_id: string }> =>
    (await overNats(request)) as { provider_id: string };
  for (let i = 0; i < 100; i++)
    grpcDecisions.push(await overGrpc({ message: { ...message(), payload: Buffer.from("{}") }, policy_id: "split" }));
  for (let i = 0; i < 100; i++) natsDecisions.push(await decided({ message: message(), policy_id: "split" }));
  // Smooth round robin of one worker: exact over any ten calls in a row.
  expect(share(grpcDecisions)).toBe(0.7);
  expect(share(natsDecisions)).toBe(0.7);

  const cli = fileURLToPath(new URL("../../cli/beamline.ts", import.meta.url));
  const { password } = world.servers.credentials.publisher;
  const env = {
    PATH: process.env["PATH"],
    NATS_URL: world.servers.nats.url,
    NATS_USER: "publisher",
    NATS_PASSWORD: password,
  };
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [cli, "decide", "--json", "--tenant", "acme", "--policy", "split", '{"text":"hi"}'],
    { env },
  );
  expect(["openai", "anthropic"]).toContain((JSON.parse(stdout) as { provider_id: string }).provider_id);
});

verifies("one-contract", "a refusal is the same refusal over gRPC and over NATS", async () => {
  const byGrpc = await refusal(overGrpc({ message: { ...message(), payload: Buffer.from("{}") }, policy_id: "nope" }));
  const byNats = await refusal(overNats({ message: message(), policy_id: "nope" }));
  expect([byGrpc.code, byGrpc.details]).toEqual([grpc.NOT_FOUND, byNats.message]);
  expect(byNats.code).toBe("policy_not_found");
});

describe("bad input", () => {
  test("JSON that is none, over NATS", async () => {
    const reply = await world.caller.call(DECIDE, "{nope", { timeoutMs: 5_000 });
    expect(JSON.parse(reply.text)).toMatchObject({ ok: false, error: { code: "invalid_request" } });
    expect(reply.headers[header.serviceErrorCode]).toBe("400");
  });

  test.each([
    ["no tenant", { message: { message_id: "m1", message_type: "chat", payload: "{}" } }, "message.tenant_id"],
    ["a number for a tenant", { message: { ...message(), tenant_id: 5 } }, "message.tenant_id"],
    ["a list for a message", { message: [] }, "message"],
  ])("%s, over NATS", async (_what, request, field) => {
    const reply = await world.caller.call(DECIDE, JSON.stringify(request), { timeoutMs: 5_000 });
    const body = JSON.parse(reply.text) as { error: { code: string; message: string } };
    expect(body.error.code).toBe("invalid_request");
    expect(reply.text).toContain(field);
  });

  test("no tenant, over gRPC", async () => {
    const error = await refusal(
      overGrpc({ message: { message_id: "m1", message_type: "chat", payload: Buffer.from("{}") } }),
    );
    expect(error.code).toBe(grpc.INVALID_ARGUMENT);
    expect(error.details).toContain("tenant_id");
  });

  test("bytes that are no such message", async () => {
    const error = await refusal(router.raw("decide", Buffer.from([0xff, 0xff, 0xff])));
    expect([error.code, error.details]).toEqual([
      grpc.INVALID_ARGUMENT,
      "request is not a valid beamline.flow.v1.RouteRequest",
    ]);
  });

  test("a payload that is not UTF-8 is refused, not mangled", async () => {
    const error = await refusal(overGrpc({ message: { ...message(), payload: Buffer.from([0xc3, 0x28]) } }));
    expect([error.code, error.details]).toEqual([grpc.INVALID_ARGUMENT, "message.payload must be valid UTF-8"]);
  });

  test("a message beyond the edge's limit", async () => {
    const error = await refusal(overGrpc({ message: { ...message(), payload: Buffer.alloc(5 * 1024 * 1024, "x") } }));
    expect(error.code).toBe(grpc.RESOURCE_EXHAUSTED);
    expect(error.details).toContain("larger than max");
  });

  test("a message beyond the contract's limit", async () => {
    const error = await refusal(overGrpc({ message: { ...message(), payload: Buffer.alloc(1_100_000, "x") } }));
    expect(error.code).toBe(grpc.INVALID_ARGUMENT);
    expect(error.details).toContain("exceeds limit");
  });

  test("an RPC that does not exist", async () => {
    using stranger = grpcClient(
      {
        ...RouterDefinition,
        methods: { ...RouterDefinition.methods, nothing: { ...RouterDefinition.methods.decide, name: "Nothing" } },
      },
      world.grpc,
    );
    expect((await refusal(stranger.call("nothing", {}))).code).toBe(grpc.UNIMPLEMENTED);
  });

  test("a deadline that has passed", async () => {
    expect(
      (await refusal(overGrpc({ message: { ...message(), payload: Buffer.from("{}") } }, { timeoutMs: -1 }))).code,
    ).toBe(grpc.DEADLINE_EXCEEDED);
  });

  test("an admin call without the key, and with a wrong one", async () => {
    for (const metadata of [{}, { "x-api-key": "wrong-key-1" }, { authorization: "Bearer wrong-key-1" }]) {
      const error = await refusal(policies.call("listPolicies", { tenant_id: "acme" }, { metadata }));
      expect([error.code, error.details]).toEqual([grpc.UNAUTHENTICATED, "missing or invalid API key"]);
    }
    expect(
      (
        await policies.call(
          "listPolicies",
          { tenant_id: "acme" },
          { metadata: { authorization: `Bearer ${ADMIN_KEY}` } },
        )
      ).policies.length,
    ).toBe(1);
  });

  test("a tenant name that is none", async () => {
    const error = await refusal(
      overGrpc({ message: { ...message(), payload: Buffer.from("{}") } }, { metadata: { "x-tenant-id": "a b" } }),
    );
    expect(error.code).toBe(grpc.INVALID_ARGUMENT);
  });

  test("OpenWOP without a bearer is unauthenticated before anything else, with its envelope attached", async () => {
    using engine = grpcClient(EngineDefinition, world.grpc);
    const error = await refusal(engine.call("getRun", { run_id: "r1" }));
    expect(error.code).toBe(grpc.UNAUTHENTICATED);
    const details = Buffer.from(error.metadata.get("grpc-status-details-bin")[0] as Buffer).toString("latin1");
    expect(details).toContain("openwop.dev/spec/v1/ErrorEnvelope");
    expect(details).toContain('{"error":"unauthenticated"');
  });
});

verifies(
  "clear-failure",
  "an RPC whose worker is not running is UNAVAILABLE at once and says which worker",
  async () => {
    using memory = grpcClient(MemoryServiceDefinition, world.grpc);
    const before = Date.now();
    const error = await refusal(memory.call("getMetric", { key: "x" }, { timeoutMs: 20_000 }));
    expect(error.code).toBe(grpc.UNAVAILABLE);
    expect(error.details).toContain("no memory worker");
    expect(Date.now() - before).toBeLessThan(5_000);
  },
);

verifies("tenant-wall", "a tenant never decides by another's policy, and cannot tell whether it exists", async () => {
  const others = await refusal(
    overGrpc({ message: { ...message("evil"), payload: Buffer.from("{}") }, policy_id: "split" }),
  );
  const nobodys = await refusal(
    overGrpc({ message: { ...message("evil"), payload: Buffer.from("{}") }, policy_id: "splat" }),
  );
  expect([others.code, others.details]).toEqual([nobodys.code, nobodys.details]);
  const asked = await refusal(policies.call("getPolicy", { tenant_id: "evil", policy_id: "split" }, admin));
  expect(asked.code).toBe(grpc.NOT_FOUND);
});
