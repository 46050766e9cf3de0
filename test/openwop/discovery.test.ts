/** What discovery says is so, claim by claim, and what is not so is not said (OpenWOP, discovery). */
import { createPublicKey, verify } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canonicalJson } from "../../contracts/openwop/json.ts";
import { buckets, streams } from "../../contracts/streams.ts";
import { until } from "../kit/until.ts";
import { bearer, startHost, type Host } from "./host.ts";
import { profilesOf } from "./profiles.ts";
import { apply, edge, node, waiting } from "./provoke.ts";

const PATH = "/.well-known/openwop";

let host: Host;
// oxlint-disable-next-line typescript/no-explicit-any
let claims: any;
beforeAll(async () => {
  host = await startHost({
    OPENWOP_GRPC_ENDPOINT: "grpcs://engine.example:443",
    OPENWOP_PRODUCTION: "true",
    OPENWOP_INFLIGHT_CAP: "512",
    OPENWOP_MAX_NODE_EXECUTIONS: "4",
    OPENWOP_MAX_LOOP_ITERATIONS: "2",
    OPENWOP_MAX_RUN_MS: "2000",
  });
  claims = (await host.rest("GET", PATH, undefined, {}, "")).body;
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

describe("the document", () => {
  test("for everybody, to be kept a while, not sent twice, and the same over gRPC", async () => {
    const first = await host.rest("GET", PATH, undefined, {}, "");
    expect([first.status, first.headers.get("content-type")]).toEqual([200, "application/json; charset=utf-8"]);
    expect(first.headers.get("cache-control")).toBe("public, max-age=300");
    const etag = first.headers.get("etag") ?? "";
    const again = await host.rest("GET", PATH, undefined, { "if-none-match": etag }, "");
    expect([again.status, again.body]).toEqual([304, undefined]);
    expect(first.headers.get("capabilities-etag")).toBeTruthy();
    const later = await host.rest("GET", PATH);
    expect(later.headers.get("capabilities-etag")).toBe(first.headers.get("capabilities-etag"));
    expect((await host.grpc.call("getCapabilities", {}, {})).capabilities).toEqual(first.body);
  });

  test("the required fields, well-formed, and nothing beyond them in limits", () => {
    expect(claims.protocolVersion).toMatch(/^1\.(0|[1-9]\d*)$/);
    expect(claims.protocolVersions).toContain(claims.protocolVersion);
    expect(claims.supportedEnvelopes).toContain("clarification.request");
    for (const version of Object.values(claims.schemaVersions)) expect(Number.isInteger(version)).toBe(true);
    const known = [
      "clarificationRounds",
      "schemaRounds",
      "envelopesPerTurn",
      "maxNodeExecutions",
      "maxRunDurationMs",
      "maxLoopIterations",
      "maxRequestBodyBytes",
    ];
    expect(Object.keys(claims.limits).toSorted()).toEqual(known.toSorted());
    for (const limit of Object.values(claims.limits)) expect(Number.isInteger(limit)).toBe(true);
    expect([typeof claims.engineVersion, claims.eventLogSchemaVersion]).toEqual(["number", 2]);
  });

  test("profileDerivation: the profiles that follow from it, over both surfaces, and none from less", async () => {
    const ours = [
      "openwop-core",
      "openwop-interrupts",
      "openwop-stream-sse",
      "openwop-stream-poll",
      "openwop-core-standard",
      "openwop-fixtures",
      "openwop-replay-fork",
      "openwop-production",
    ];
    expect(profilesOf(claims)).toEqual(ours);
    expect(profilesOf((await host.grpc.call("getCapabilities", {}, {})).capabilities)).toEqual(ours);
    const without = (...names: readonly string[]): string[] => ours.filter((name) => !names.includes(name));
    const silent = { ...claims, supportedEnvelopes: [] };
    expect(profilesOf(silent)).toEqual(without("openwop-interrupts", "openwop-core-standard"));
    const grpcOnly = { ...claims, supportedTransports: ["grpc"] };
    const overRest = ["openwop-stream-sse", "openwop-stream-poll", "openwop-core-standard"];
    expect(profilesOf(grpcOnly)).toEqual(without(...overRest));
    const { supportedTransports: _unsaid, ...unsaid } = claims;
    expect(profilesOf(unsaid)).toEqual(ours);
    expect(profilesOf({ ...claims, fixtures: [] })).toEqual(without("openwop-fixtures"));
    expect(profilesOf({ ...claims, replay: { supported: true, modes: [] } })).toEqual(without("openwop-replay-fork"));
    expect(profilesOf({ ...claims, production: { supported: false } })).toEqual(without("openwop-production"));
    for (const broken of [
      { protocolVersion: "2.0" },
      { protocolVersion: "1.0.0" },
      { supportedEnvelopes: "clarification.request" },
      { schemaVersions: { "clarification.request": -1 } },
      { limits: { ...claims.limits, schemaRounds: 1.5 } },
    ])
      expect(profilesOf({ ...claims, ...broken })).toEqual([]);
  });

  test("families that are not served are not named", () => {
    const named =
      "protocolVersion protocolVersions supportedEnvelopes schemaVersions limits implementation engineVersion eventLogSchemaVersion supportedTransports grpc fixtures runs replay webhooks auth idempotency testing debugBundle compliance observability production";
    const known = new Set(named.split(" "));
    expect(Object.keys(claims).filter((name) => !known.has(name))).toEqual([]);
    expect(JSON.stringify(claims)).not.toContain("tier");
  });

  test("the REST surface described, for everybody", async () => {
    const { status, body } = await host.rest("GET", "/v1/openapi.json", undefined, {}, "");
    expect([status, /^3\.[1-9]/.test(body.openapi)]).toEqual([200, true]);
    // Every path that is described is served: none of them is an unknown route.
    for (const [path, methods] of Object.entries<object>(body.paths)) {
      for (const method of Object.keys(methods)) {
        const asked = path.replaceAll(/\{\w+\}/g, "none");
        const answer = await host.rest(
          method.toUpperCase(),
          asked,
          method === "get" || method === "delete" ? undefined : {},
          {},
          "",
        );
        const open = path.startsWith("/.well-known") || path === "/v1/openapi.json" || path.includes("{token}");
        expect([path, method, answer.status === 401]).toEqual([path, method, !open]);
      }
    }
  });

  test("what OpenAPI says of queries and headers is so: a value it does not allow is refused by its name", async () => {
    interface Parameter {
      readonly in: string;
      readonly name: string;
      readonly required?: boolean;
      readonly schema: { readonly type: string; readonly enum?: readonly string[]; readonly pattern?: string };
    }
    type Operations = Record<string, { readonly parameters: readonly Parameter[] }>;
    const { body } = await host.rest("GET", "/v1/openapi.json", undefined, {}, "");
    const refused: string[] = [];
    for (const [path, operations] of Object.entries(body.paths as Record<string, Operations>)) {
      const asked = path.replaceAll(/\{\w+\}/g, "none");
      for (const [method, { parameters }] of Object.entries(operations)) {
        const needed = parameters.filter((one) => one.in === "query" && one.required === true);
        for (const one of parameters.filter((each) => each.in === "query")) {
          const query = new URLSearchParams(Object.fromEntries(needed.map(({ name }) => [name, "0"])));
          if (one.schema.type === "string" && one.schema.enum === undefined && one.schema.pattern === undefined)
            query.delete(one.name);
          else query.set(one.name, "no such");
          const answer = await host.rest(method.toUpperCase(), `${asked}?${query.toString()}`);
          expect([path, answer.status, answer.body.details?.field]).toEqual([path, 400, one.name]);
          refused.push(one.name);
        }
        const mutates = method !== "get" && path !== "/v1/interrupts/{token}";
        if (!mutates) continue;
        expect(parameters.map(({ name }) => name)).toContain("Idempotency-Key");
        const keyed = await host.rest(method.toUpperCase(), asked, method === "delete" ? undefined : {}, {
          "idempotency-key": "k".repeat(256),
        });
        expect([path, keyed.body.details?.field]).toEqual([path, "Idempotency-Key"]);
      }
    }
    const all = "against bufferMs cursor fromSeq lastSequence limit status streamMode timeout toSeq";
    expect(refused.toSorted().join(" ")).toBe(all);
    const created: readonly Parameter[] = body.paths["/v1/runs"].post.parameters;
    const headers = created.filter((one) => one.in === "header").map(({ name }) => name);
    expect(headers.toSorted()).toEqual(["Idempotency-Key", "X-Dedup", "X-Force-Engine-Version"]);
    const streamed: readonly Parameter[] = body.paths["/v1/runs/{runId}/events"].get.parameters;
    expect(streamed.map(({ name }) => name)).toContain("Last-Event-ID");
  });
});

describe("claims", () => {
  test("transports: gRPC where it is said to be, with TLS when it says grpcs; nothing of it when nobody said where", async () => {
    expect(claims.supportedTransports).toEqual(["rest", "grpc"]);
    expect(claims.grpc).toEqual({
      supported: true,
      endpoint: "grpcs://engine.example:443",
      service: "openwop.v1.Engine",
      tls: "required",
    });
    await using silent = await startHost({ OPENWOP_FIXTURES: "false", OPENWOP_PRODUCTION: "true" });
    const { body } = await silent.rest("GET", PATH, undefined, {}, "");
    expect([body.supportedTransports, body.grpc, body.fixtures, body.production]).toEqual([
      ["rest"],
      undefined,
      undefined,
      undefined,
    ]);
    await using plain = await startHost({ OPENWOP_GRPC_ENDPOINT: "grpc://h:1", OPENWOP_PRODUCTION: "true" });
    const said = (await plain.rest("GET", PATH, undefined, {}, "")).body;
    expect([said.grpc.tls, said.production]).toEqual(["disabled", undefined]);
    await using forgetful = await startHost({
      OPENWOP_GRPC_ENDPOINT: "grpcs://h:1",
      OPENWOP_PRODUCTION: "true",
      OPENWOP_IDEMPOTENCY_MS: "1h",
    });
    expect((await forgetful.rest("GET", PATH, undefined, {}, "")).body.production).toBeUndefined();
  });

  test("fixtures: every one that is listed is there", async () => {
    expect(new Set(claims.fixtures).size).toBe(claims.fixtures.length);
    for (const id of claims.fixtures) {
      const { body } = await host.rest("GET", `/v1/workflows/${id}`);
      expect([body.id, body.nodes.length > 0]).toEqual([id, true]);
    }
  });

  test("limits end runs: executions, loops, time; a run option cannot widen them", async () => {
    const wide = { recursionLimit: 1_000, maxLoopIterations: 1_000, runTimeoutMs: 3_600_000 };
    const chain = ["a", "b", "c", "d", "e"];
    const arrows = chain.slice(1).map((id, at) => edge(chain[at] ?? "", id));
    await apply(
      host,
      "long",
      chain.map((id) => node(id, "core.noop")),
      { edges: arrows },
    );
    await apply(host, "loop", [node("head", "core.loop", { times: 9 })], {
      edges: [{ ...edge("head", "head"), condition: { expression: "output.continue" } }],
    });
    await apply(host, "slow", [node("wait", "core.delay", { ms: 60_000 })]);
    const failing = async (workflowId: string): Promise<string> => {
      const { error } = await host.reaches(await host.start(workflowId, { configurable: wide }), "failed");
      return error.code;
    };
    expect(await Promise.all([failing("long"), failing("loop"), failing("slow")])).toEqual([
      "recursion_limit_exceeded",
      "loop_limit_exceeded",
      "run_timeout",
    ]);
    expect([claims.limits.maxNodeExecutions, claims.limits.maxLoopIterations, claims.limits.maxRunDurationMs]).toEqual([
      4, 2, 2_000,
    ]);
  });

  test("mock providers: every one that is listed runs, and no other", async () => {
    const configs: Record<string, object> = {
      "stream-text": { tokens: ["a"] },
      "tool-calls": { toolCalls: [{ name: "t", arguments: {} }] },
      error: { code: "overloaded", message: "no room" },
      "usage-only": { usage: { promptTokens: 1, completionTokens: 2, totalTokens: 3 } },
    };
    expect(Object.keys(configs).toSorted()).toEqual(claims.testing.mockProviders.toSorted());
    for (const [id, config] of Object.entries(configs)) {
      const runId = await host.start("conformance-stream-text", { configurable: { mockProvider: { id, config } } });
      const { status, error } = await host.reaches(runId, "completed", "failed");
      expect([id, status, error?.code]).toEqual(
        id === "error" ? [id, "failed", "overloaded"] : [id, "completed", undefined],
      );
    }
    expect(claims.testing.testKeyPrefix).toBe("hk_test_");
  });

  test("retention: what is said is how long the streams keep it", async () => {
    const seconds = async (stream: string): Promise<number> =>
      (await host.bed.bus.jsm.streams.info(stream)).config.max_age / 1e9;
    expect(await seconds(streams.runs.name)).toBe(claims.production.retention.minWindowSeconds);
    expect(await seconds(`KV_${buckets.runIdempotency.name}`)).toBeGreaterThanOrEqual(
      claims.idempotency.layer1RetentionSeconds,
    );
    expect(await seconds(`KV_${buckets.runInvocations.name}`)).toBe(claims.idempotency.layer2RetentionSeconds);
    expect(await seconds(streams.runAudit.name)).toBe(0);
    expect(claims.idempotency).toMatchObject({ supported: true, crossRegion: "single-region" });
    expect(claims.idempotency.layer1RetentionSeconds).toBeGreaterThanOrEqual(86_400);
  });

  test("the audit log's key is the one that signed its checkpoints", async () => {
    const { auditLogIntegrity, profiles } = claims.auth;
    expect(profiles).toEqual(["openwop-audit-log-integrity"]);
    expect(auditLogIntegrity).toMatchObject({
      hashChain: true,
      checkpointSignatureAlgorithm: "ed25519",
      checkpointIntervalEntries: 1_000,
      checkpointIntervalSeconds: 300,
    });
    const key = createPublicKey({
      key: Buffer.from(auditLogIntegrity.checkpointPublicKey, "base64"),
      format: "der",
      type: "spki",
    });
    await waiting(host, "conformance-noop", "completed");
    interface Checkpoint {
      readonly signature: string;
      readonly [member: string]: unknown;
    }
    const checkpoints = await until(async () => {
      const { result } = await host.grpc.call("verifyAuditLog", { from_seq: 0n, to_seq: 100n }, bearer());
      const found = (result as { checkpoints: Checkpoint[] } | undefined)?.checkpoints ?? [];
      return found.length > 0 && found;
    }, "a checkpoint");
    for (const { signature, ...signed } of checkpoints)
      expect(verify(null, Buffer.from(canonicalJson(signed)), key, Buffer.from(signature, "base64"))).toBe(true);
  });

  test("what is claimed of runs, replays, webhooks and bundles is exactly what the other scenarios try", () => {
    expect(claims.runs.pauseResume).toEqual({ supported: true, drainPolicies: ["immediate", "drain-current-node"] });
    expect(claims.replay).toEqual({
      supported: true,
      modes: ["replay", "branch"],
      sideEffectSuppression: "recorded-outcome",
    });
    expect(claims.webhooks).toEqual({ supported: true, signatureAlgorithms: ["v1"], durable: true });
    expect([claims.debugBundle, claims.compliance]).toEqual([{ supported: true }, { defaultMode: "mask" }]);
    expect(claims.production).toMatchObject({
      supported: true,
      backpressure: { supported: true, inflightCap: 512, retryAfterSeconds: 1 },
      debugBundle: { supported: true, truncationMetadata: true },
    });
  });
});

test("without a worker: 503 and the envelope, over both surfaces", async () => {
  await using empty = await startHost({}, 0);
  const { status, body } = await empty.rest("GET", PATH, undefined, {}, "");
  expect([status, body.error]).toEqual([503, "service_unavailable"]);
  await expect(empty.grpc.call("getCapabilities", {}, {})).rejects.toMatchObject({ code: 14 });
});
