/**
 * Every form of a request × every outcome, over both ways in: what is answered, and what is left behind. Over gRPC there is one form, the proto's.
 * Every refused request asks for an assignment and brings an idempotency key: neither may leave a trace.
 */
import { createHash } from "node:crypto";
import { status as grpc, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { bareForms, changed, everyForm, forms } from "../../workers/routing/testkit.ts";
import type { Form } from "../../workers/routing/intake/forms.ts";
import { all } from "../execution/kit.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { admin, ask, exchange, putPolicy, serveExtension, type Json } from "./kit.ts";

let world: World;
let router: GrpcClient<typeof RouterDefinition>;

const provider = { providers: [{ name: "openai", weight: 100 }] };

beforeAll(async () => {
  world = await startWorld({
    workers: ["routing"],
    syncInterval: "10s",
    env: { BEAMLINE_ROUTER_TENANTS: "acme", BEAMLINE_ROUTER_POLICY_QUOTA: "50" },
  });
  router = grpcClient(RouterDefinition, world.grpc);
  const outside = await world.connect("publisher", "extensions");
  serveExtension(outside, "beamline.ext.validate.guard.v1", () => ({ status: "reject", reason: "no" }));
  serveExtension(outside, "beamline.ext.pre.silent.v1", () => undefined);
  serveExtension(outside, "beamline.ext.pre.broken.v1", () => ({ ok: false }));
  serveExtension(outside, "beamline.ext.post.broken.v1", () => ({ ok: false }));
  await outside.flush();
  for (const extension of [
    { id: "guard", type: "validator" },
    { id: "silent", type: "pre", timeout_ms: 20 },
    { id: "broken", type: "pre" },
    { id: "closing", type: "post", subject: "beamline.ext.post.broken.v1" },
    { id: "absent", type: "pre" },
  ])
    await admin(world, "upsert_extension", { tenant_id: "*", extension });
  const policies: Record<string, object> = {
    sticky: { ...provider, sticky: { enabled: true, session_key: "user_id" } },
    empty: { providers: [{ name: "x", weight: 0 }] },
    falling: { providers: [{ name: "x", weight: 0 }], fallbacks: [{ when: {}, to: "y", retry: 0 }] },
    again: { providers: [{ name: "x", weight: 0 }], fallbacks: [{ when: {}, to: "y", retry: 3 }] },
    best: { ...provider, defaults: { algorithm: "best_score" } },
    blocked: { ...provider, validators: [{ id: "guard" }] },
    late: { ...provider, pre: [{ id: "silent", mode: "required" }] },
    unregistered: { ...provider, pre: [{ id: "nobody" }] },
    failing: { ...provider, pre: [{ id: "broken", mode: "required" }] },
    unserved: { ...provider, pre: [{ id: "absent", mode: "required" }] },
    ending: { ...provider, post: [{ id: "closing", mode: "required" }] },
  };
  for (const form of [...everyForm, "grpc"])
    policies[`limited-${form}`] = { ...provider, rate_limit: { enabled: true, requests_per_second: 1, burst: 1 } };
  for (const [id, document] of Object.entries(policies)) await putPolicy(world, "acme", id, document);
}, 90_000);
afterAll(async () => {
  router?.[Symbol.dispose]();
  await world?.[Symbol.asyncDispose]();
});

let ids = 0;
interface Wanted {
  readonly policy?: string;
  readonly tenant?: string | undefined;
  readonly context?: Json;
  readonly key?: string;
}

/** A request of the form with an id of its own; the id is found in dead letters. */
function requestOf(
  form: Form,
  { policy = "default", tenant = "acme", context = { user_id: "u" }, key }: Wanted,
): Json & { id: string } {
  const id = `o-${++ids}`;
  const inMessage = form === "seed" || form === "hybrid";
  const tenantAt = form === "seed" ? "message.tenant_id" : "tenant_id";
  const body = changed(forms[form], {
    [inMessage ? "message.message_id" : "message_id"]: id,
    policy_id: policy,
    context,
    idempotency_key: key ?? id,
    push_assignment: true,
    [tenantAt]: tenant === "" ? undefined : tenant,
  });
  return { ...body, id };
}

function decisionIn(form: Form, reply: Json): unknown {
  if (bareForms.has(form)) return reply;
  expect(reply["ok"]).toBe(true);
  return reply["decision"];
}

const grpcRequest = ({
  policy = "default",
  tenant = "acme",
  context = { user_id: "u" },
  key,
}: Wanted): { id: string; request: object } => {
  const id = `o-${++ids}`;
  const message = { message_id: id, tenant_id: tenant, message_type: "chat", payload: Buffer.from('{"text":"hi"}') };
  return {
    id,
    request: { message, policy_id: policy, context: context as Record<string, string>, idempotency_key: key ?? id },
  };
};

async function overGrpc(request: object): Promise<{ decision?: Json; error?: ServiceError }> {
  return router.call("decide", request).then(
    (decision) => ({ decision: decision as unknown as Json }),
    (error: unknown) => ({ error: error as ServiceError }),
  );
}

const made: [string, Wanted, object][] = [
  ["weighted", {}, { provider_id: "openai", reason: "weighted", priority: 50 }],
  [
    "sticky, the second time",
    { policy: "sticky", context: { user_id: "u-sticky" } },
    { reason: "sticky", priority: 100 },
  ],
  ["fallback", { policy: "falling" }, { provider_id: "y", reason: "fallback", priority: 25 }],
  [
    "retry",
    { policy: "again", context: { current_provider: "z" } },
    { provider_id: "z", reason: "retry", priority: 50 },
  ],
  ["best_score", { policy: "best" }, { provider_id: "openai", reason: "best_score", priority: 50 }],
];

describe.each(everyForm)("the %s form", (form) => {
  test.each(made)("is decided: %s", async (_, wanted, decision) => {
    await ask(world, requestOf(form, wanted));
    expect(decisionIn(form, await ask(world, requestOf(form, wanted)))).toMatchObject(decision);
  });

  test("is replayed", async () => {
    const first = requestOf(form, { key: `replay-${form}` });
    expect(await ask(world, first)).toEqual(await ask(world, first));
  });
});

test.each(made)("over gRPC: %s", async (_, wanted, decision) => {
  await overGrpc(grpcRequest(wanted).request);
  expect((await overGrpc(grpcRequest(wanted).request)).decision).toMatchObject(decision);
});

interface Refusal {
  readonly what: string;
  readonly wanted: Wanted;
  readonly code: string;
  readonly http: string;
  readonly grpc: number;
  readonly intake?: string;
  /** What the text or the details name. */
  readonly names: string;
  readonly dead?: boolean;
}

const refusals: Refusal[] = [
  {
    what: "no tenant",
    wanted: { tenant: "" },
    code: "invalid_request",
    http: "400",
    grpc: grpc.INVALID_ARGUMENT,
    intake: "CORRELATION_FIELDS_INVALID",
    names: "tenant_id",
    dead: true,
  },
  {
    what: "a tenant that is none",
    wanted: { tenant: "a b" },
    code: "invalid_request",
    http: "400",
    grpc: grpc.INVALID_ARGUMENT,
    intake: "CORRELATION_FIELDS_INVALID",
    names: "tenant_id",
    dead: true,
  },
  {
    what: "a tenant that may not",
    wanted: { tenant: "evil" },
    code: "unauthorized",
    http: "401",
    grpc: grpc.UNAUTHENTICATED,
    intake: "TENANT_FORBIDDEN",
    names: "tenant_not_allowed",
    dead: true,
  },
  {
    what: "an unknown policy",
    wanted: { policy: "nope" },
    code: "policy_not_found",
    http: "404",
    grpc: grpc.NOT_FOUND,
    names: "nope",
  },
  {
    what: "nobody to choose",
    wanted: { policy: "empty" },
    code: "decision_failed",
    http: "500",
    grpc: grpc.INTERNAL,
    names: "no provider available",
  },
  {
    what: "a limit that is none",
    wanted: { policy: "best", context: { max_cost: "free" } },
    code: "invalid_request",
    http: "400",
    grpc: grpc.INVALID_ARGUMENT,
    intake: "SCHEMA_VALIDATION_FAILED",
    names: "max_cost",
    dead: true,
  },
  {
    what: "an extension nobody registered",
    wanted: { policy: "unregistered" },
    code: "extension_not_found",
    http: "404",
    grpc: grpc.NOT_FOUND,
    names: "nobody",
  },
  {
    what: "an extension that does not answer",
    wanted: { policy: "late" },
    code: "extension_timeout",
    http: "504",
    grpc: grpc.UNAVAILABLE,
    names: "silent",
  },
  {
    what: "a validator that says no",
    wanted: { policy: "blocked" },
    code: "validator_blocked",
    http: "403",
    grpc: grpc.PERMISSION_DENIED,
    names: "guard",
  },
  {
    what: "an extension that fails",
    wanted: { policy: "failing" },
    code: "extension_error",
    http: "500",
    grpc: grpc.INTERNAL,
    names: "broken",
  },
  {
    what: "an extension nobody serves",
    wanted: { policy: "unserved" },
    code: "extension_unavailable",
    http: "503",
    grpc: grpc.UNAVAILABLE,
    names: "absent",
  },
  {
    what: "a post extension that fails",
    wanted: { policy: "ending" },
    code: "post_processor_failed",
    http: "500",
    grpc: grpc.INTERNAL,
    names: "closing",
  },
];

async function letterOf(id: string): Promise<Json | undefined> {
  const letters = await all(world.bus, "DLQ", "beamline.router.v1.decide.dlq");
  return letters.find(({ body }) => (body["context"] as Json)["msg_id"] === id)?.body;
}

async function lastSequence(stream: string): Promise<number> {
  return (await world.bus.jsm.streams.info(stream)).state.last_seq;
}

describe("refusals", () => {
  // Extensions that fail four times here must not open their circuit: five in a row would.
  describe.each(everyForm)("the %s form", (form) => {
    test.each(refusals)("$what: $code", async ({ wanted, code, http, intake, names, dead }) => {
      const body = requestOf(form, wanted);
      const before = [await lastSequence("EXEC"), await lastSequence("ROUTING_KEYS")];
      const text = JSON.stringify(body);
      const { reply, error, headers } = await exchange(world, text);
      expect(error).toBe(true);
      expect(headers["Nats-Service-Error-Code"]).toBe(http);
      expect(reply).toMatchObject({
        ok: false,
        error: { code, message: expect.stringMatching(/./) as unknown, ...(intake && { intake_error_code: intake }) },
        context: { trace_id: "t1" },
      });
      expect(JSON.stringify(reply["error"])).toContain(names);
      if (dead) {
        const letter = await until(() => letterOf(body.id), "the dead letter");
        expect(letter).toMatchObject({
          original_subject: "beamline.router.v1.decide",
          original_payload_hash: createHash("sha256").update(text).digest("hex"),
          validation_error: { code: intake },
        });
      } else expect(await letterOf(body.id)).toBeUndefined();
      expect([await lastSequence("EXEC"), await lastSequence("ROUTING_KEYS")]).toEqual(before);
    });

    test("beyond the limit of its policy", async () => {
      const { reply, headers } = await until(async () => {
        const one = await exchange(world, requestOf(form, { policy: `limited-${form}` }));
        return one.error ? one : undefined;
      });
      expect(reply).toMatchObject({ error: { code: "rate_limit_exceeded", details: { retry_after_seconds: 1 } } });
      expect(headers["Nats-Service-Error-Code"]).toBe("429");
    });

    test("a key with another content", async () => {
      await ask(world, requestOf(form, { key: `conflict-${form}` }));
      const body = requestOf(form, { key: `conflict-${form}`, context: { other: 1 } });
      expect((await exchange(world, body)).reply).toMatchObject({
        error: {
          code: "invalid_request",
          intake_error_code: "IDEMPOTENCY_VIOLATION",
          details: { field: "idempotency_key" },
        },
      });
      expect(await letterOf(body.id)).toBeUndefined();
    });
  });

  test("a payload that is too small, in the form that has the rule", async () => {
    const body = changed(requestOf("extended", {}), { "task.payload": {} });
    expect((await exchange(world, body)).reply).toMatchObject({
      error: { code: "invalid_request", intake_error_code: "PAYLOAD_TOO_SMALL", details: { field: "task.payload" } },
    });
    expect(await letterOf(String(body["id"]))).toBeUndefined();
  });

  test.each(["extended", "hybrid"] as const)("the wrong version, in the %s form", async (form) => {
    for (const [version, message] of [
      ["2", "Unsupported version"],
      [undefined, "Missing version field"],
    ] as const) {
      const body = changed(requestOf(form, {}), { version });
      expect((await exchange(world, body)).reply).toMatchObject({
        error: { code: "invalid_request", intake_error_code: "VERSION_UNSUPPORTED", message },
      });
      expect(await until(() => letterOf(String(body["id"])))).toMatchObject({
        context: { validation_stage: "version" },
      });
    }
  });

  verifies("one-contract", "over gRPC every refusal is the same refusal", async () => {
    for (const one of refusals) {
      const { id, request } = grpcRequest(one.wanted);
      const before = [await lastSequence("EXEC"), await lastSequence("ROUTING_KEYS")];
      const { error } = await overGrpc(request);
      const expected = one.code.startsWith("extension_") ? [one.grpc, grpc.UNAVAILABLE] : [one.grpc];
      expect(expected, one.what).toContain(error?.code);
      if (one.dead) expect(await until(() => letterOf(id), "the dead letter")).toBeDefined();
      expect([await lastSequence("EXEC"), await lastSequence("ROUTING_KEYS")]).toEqual(before);
    }
    const limited = await until(async () => (await overGrpc(grpcRequest({ policy: "limited-grpc" }).request)).error);
    expect(limited.code).toBe(grpc.RESOURCE_EXHAUSTED);
    await overGrpc(grpcRequest({ key: "conflict-grpc" }).request);
    const conflict = (await overGrpc(grpcRequest({ key: "conflict-grpc", context: { other: "1" } }).request)).error;
    expect(conflict?.code).toBe(grpc.INVALID_ARGUMENT);
    const first = grpcRequest({ key: "replay-grpc" }).request;
    expect((await overGrpc(first)).decision).toEqual((await overGrpc(first)).decision);
  });
});
