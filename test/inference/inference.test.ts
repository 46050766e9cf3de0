/** Providers, models and budgets, over gRPC and over the bus, against servers that speak the vendors' wire formats. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openStream } from "../../bus/stream.ts";
import { ApiGatewayDefinition } from "../../contracts/gen/aios/api_gateway.ts";
import { AIRuntimeDefinition } from "../../contracts/gen/aios/runtime.ts";
import { ProviderDefinition } from "../../contracts/gen/beamline/provider/v1/provider.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { startWorld, type World } from "../kit/world.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { assign, assignment, resultFor, usageFor } from "../execution/kit.ts";
import { flushRedis } from "../execution/flush.redis.ts";
import { startVendors, type Vendors } from "./vendors.ts";

let vendors: Vendors;
let world: World;
let providers: GrpcClient<typeof ProviderDefinition>;
let gateway: GrpcClient<typeof ApiGatewayDefinition>;
let models: GrpcClient<typeof AIRuntimeDefinition>;
beforeAll(async () => {
  vendors = await startVendors();
  world = await startWorld({
    workers: ["inference", "execution", "usage"],
    syncInterval: "10s",
    env: {
      OPENAI_API_KEY: "sk-openai-test",
      OPENAI_BASE_URL: `${vendors.url}/v1`,
      OPENAI_MODEL: "gpt-4o",
      ANTHROPIC_API_KEY: "sk-anthropic-test",
      ANTHROPIC_BASE_URL: vendors.url,
    },
  });
  providers = grpcClient(ProviderDefinition, world.grpc);
  gateway = grpcClient(ApiGatewayDefinition, world.grpc);
  models = grpcClient(AIRuntimeDefinition, world.grpc);
});
afterAll(async () => {
  for (const client of [providers, gateway, models]) client[Symbol.dispose]();
  await world[Symbol.asyncDispose]();
  await vendors[Symbol.asyncDispose]();
});

const ask = (provider_id: string, body: object | string, more: object = {}) =>
  providers.call("invoke", {
    provider_id,
    message_id: "m1",
    tenant_id: "acme",
    body: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
    ...more,
  });
const parsed = (body: Buffer): Record<string, unknown> => JSON.parse(body.toString("utf8")) as Record<string, unknown>;

describe("Provider", () => {
  verifies(
    "one-contract",
    "invoke answers the same over gRPC and over the bus, with tokens and integer cost",
    async () => {
      const request = {
        provider_id: "openai:gpt-4o-mini",
        message_id: "m7",
        tenant_id: "acme",
        parameters: { temperature: "0.5", max_tokens: "20" },
      };
      const over = await providers.call("invoke", { ...request, body: Buffer.from('{"text":"hi"}') });
      expect(over).toMatchObject({ request_id: "m7", status: "success", cost: 0.00045, error_code: "" });
      expect(over.metadata).toMatchObject({
        provider: "openai",
        model: "gpt-4o-mini",
        input_tokens: "1000",
        output_tokens: "500",
        cost_micros: "450",
        price_version: "2026-11",
        finish_reason: "stop",
      });
      expect(parsed(over.body)).toEqual({
        text: "echo: hi",
        role: "assistant",
        model: "gpt-4o-mini",
        finish_reason: "stop",
        usage: { prompt_tokens: 1000, completion_tokens: 500 },
      });
      const bus = (await world.caller.request(
        "beamline.provider.v1.invoke",
        { ...request, body: '{"text":"hi"}' },
        { timeoutMs: 5_000 },
      )) as Record<string, unknown>;
      expect(bus).toMatchObject({
        request_id: "m7",
        status: "success",
        cost: 0.00045,
        body: over.body.toString("utf8"),
        metadata: over.metadata,
      });
      expect(vendors.seen.at(-1)).toMatchObject({
        path: "/v1/chat/completions",
        headers: { authorization: "Bearer sk-openai-test" },
        body: { model: "gpt-4o-mini", temperature: 0.5, messages: [{ role: "user", content: "hi" }] },
      });
    },
  );

  test("every form of body becomes the right question", async () => {
    await ask("openai", {
      messages: [
        { role: "system", content: "be brief" },
        { role: "user", content: "a" },
        { role: "assistant", content: "b" },
        { role: "user", content: "c" },
      ],
    });
    expect(vendors.seen.at(-1)?.body).toMatchObject({
      model: "gpt-4o",
      messages: [{ role: "system" }, { role: "user" }, { role: "assistant" }, { content: "c" }],
    });
    expect(parsed((await ask("openai", { prompt: "p", max_tokens: 3 })).body)).toMatchObject({ text: "echo: p" });
    expect(parsed((await ask("openai", "SGVsbG8gV29ybGQ=")).body)).toMatchObject({ text: "echo: SGVsbG8gV29ybGQ=" });
    const embedded = await ask("openai", { input: ["one", "three"] });
    expect(parsed(embedded.body)).toMatchObject({
      embeddings: [
        [3, 0.5],
        [5, 0.5],
      ],
      model: "text-embedding-3-small",
    });
    expect(embedded.cost).toBe(0);
    const claude = await ask(
      "anthropic",
      { text: "hi" },
      { parameters: { system_prompt: "be kind", temperature: "1.5" } },
    );
    expect(parsed(claude.body)).toMatchObject({ text: "claude: hi" });
    expect(claude.cost).toBe(0.018);
    expect(vendors.seen.at(-1)).toMatchObject({
      path: "/v1/messages",
      headers: { authorization: "Bearer sk-anthropic-test" },
      body: { system: "be kind", max_tokens: 4096, temperature: 1, messages: [{ role: "user", content: "hi" }] },
    });
  });

  test.each([
    [401, "PERMISSION_DENIED", "false"],
    [402, "QUOTA_EXCEEDED", "false"],
    [422, "INVALID_INPUT", "false"],
    [429, "QUOTA_EXCEEDED", "true"],
    [500, "RESOURCE_UNAVAILABLE", "true"],
    [503, "SYSTEM_OVERLOAD", "true"],
  ])("a provider's HTTP %i is a response with %s, and no secret in it", async (status, error_code, retryable) => {
    for (const id of ["openai", "claude"]) {
      const reply = await ask(id, `status ${status}`);
      expect(reply).toMatchObject({ status: "error", error_code, metadata: { retryable }, cost: 0 });
      expect(reply.error_message).not.toContain("sk-");
    }
  });

  test("a provider that hangs is a timeout before the caller's deadline; one that breaks off is a network error", async () => {
    const reply = await providers.call(
      "invoke",
      { provider_id: "claude", message_id: "m", tenant_id: "acme", body: Buffer.from("hang") },
      { timeoutMs: 700 },
    );
    expect(reply).toMatchObject({ status: "timeout", error_code: "CONNECTION_TIMEOUT" });
    expect(await ask("openai", "drop")).toMatchObject({ status: "error", error_code: "NETWORK_ERROR" });
  });

  verifies("clear-failure", "a wrong request is an RPC error that names the field", async () => {
    await expect(ask("", "x")).rejects.toMatchObject({
      code: 3,
      details: expect.stringContaining("provider_id") as string,
    });
    await expect(ask("openai", "x", { message_id: "" })).rejects.toMatchObject({
      code: 3,
      details: expect.stringContaining("message_id") as string,
    });
    await expect(ask("openai", "x", { tenant_id: "" })).rejects.toMatchObject({
      code: 3,
      details: expect.stringContaining("tenant_id") as string,
    });
    await expect(ask("openai", "")).rejects.toMatchObject({
      code: 3,
      details: expect.stringContaining("body") as string,
    });
    await expect(ask("openai", "x", { parameters: { temperature: "hot" } })).rejects.toMatchObject({
      code: 3,
      details: expect.stringContaining("parameters.temperature") as string,
    });
    await expect(ask("../x", "x")).rejects.toMatchObject({ code: 3 });
  });

  test("streams arrive piece by piece over both transports, whole characters only, and end with figures", async () => {
    const request = { provider_id: "openai", message_id: "s1", tenant_id: "acme" };
    const chunks = [];
    for await (const chunk of providers.stream("invokeStream", { ...request, body: Buffer.from("hi") }))
      chunks.push(chunk);
    expect(chunks.map(({ data }) => data.toString("utf8"))).toEqual(["echo: ", "hi", "\u{1F600}", ""]);
    expect(chunks.map(({ done }) => done)).toEqual([false, false, false, true]);
    expect(chunks.at(-1)?.metadata).toMatchObject({
      status: "success",
      cost: "0.0075",
      input_tokens: "1000",
      output_tokens: "500",
    });
    const texts: Record<string, unknown>[] = [];
    for await (const text of openStream(
      world.caller,
      "beamline.provider.v1.invoke.stream",
      JSON.stringify({ ...request, provider_id: "claude", body: "hi" }),
      { timeoutMs: 5_000 },
    ))
      texts.push(JSON.parse(text) as Record<string, unknown>);
    expect(texts.map(({ data }) => data)).toEqual(["claude: ", "hi", undefined]);
    expect(texts.at(-1)).toMatchObject({
      done: true,
      metadata: { status: "success", cost: "0.018", provider: "claude" },
    });
    const failed = [];
    for await (const chunk of providers.stream("invokeStream", { ...request, body: Buffer.from("status 500") }))
      failed.push(chunk);
    expect(failed).toMatchObject([{ done: true, metadata: { status: "error", error_code: "RESOURCE_UNAVAILABLE" } }]);
  });

  test("a caller that goes away ends the provider's stream", async () => {
    const before = vendors.cut;
    for await (const chunk of providers.stream("invokeStream", {
      provider_id: "openai",
      message_id: "s2",
      tenant_id: "acme",
      body: Buffer.from("endless"),
    })) {
      if (chunk.data.toString("utf8") === "\u{1F600}") break;
    }
    await until(() => vendors.cut > before, "the provider's stream to be cut");
  });

  test("programs on the bus are providers; one that nobody serves says so", async () => {
    const bus = await world.connect("publisher");
    const requests: Record<string, unknown>[] = [];
    bus.nc.subscribe("beamline.provider.house_llm.v1", {
      callback: (_error, message) => {
        requests.push(message.json());
        message.respond(
          JSON.stringify({
            provider_id: "house_llm",
            output: "from afar",
            usage: { prompt_tokens: 3, completion_tokens: 4 },
            metadata: { model: "m" },
          }),
        );
      },
    });
    await bus.flush();
    const reply = await ask("house_llm:big", { text: "hello" }, { trace_id: "tr", metadata: { a: "b" } });
    expect(reply).toMatchObject({
      status: "success",
      cost: 0,
      metadata: { model: "m", input_tokens: "3", output_tokens: "4", price_version: "none" },
    });
    expect(parsed(reply.body)).toMatchObject({ text: "from afar" });
    expect(requests).toMatchObject([
      {
        trace_id: "tr",
        tenant_id: "acme",
        provider_id: "house_llm",
        prompt: "hello",
        parameters: { model: "big" },
        context: { a: "b" },
      },
    ]);
    expect(await ask("nobody_here", "x")).toMatchObject({ status: "error", error_code: "RESOURCE_UNAVAILABLE" });
    expect(await ask("demo", "x")).toMatchObject({ status: "success", metadata: { demo: "true", model: "demo" } });
  });

  verifies("effect-once", "the same idempotency key asks the provider once; another body is refused", async () => {
    const request = { provider_id: "openai", message_id: "i1", tenant_id: "acme", body: "once" };
    const call = (body: string, tenant = "acme") =>
      world.caller.request(
        "beamline.provider.v1.invoke",
        { ...request, body },
        { timeoutMs: 5_000, headers: { idempotency_key: "key-1", tenant_id: tenant } },
      );
    const before = vendors.seen.length;
    const first = await call("once");
    expect(await call("once")).toMatchObject({ ...(first as object), metadata: { replayed: "true" } });
    expect(vendors.seen.length).toBe(before + 1);
    await expect(call("other")).rejects.toMatchObject({ field: "idempotency_key" });
    await call("once", "other-tenant");
    expect(vendors.seen.length).toBe(before + 2);
  });

  test("an assignment is done by its provider: cost and answer reach the result and the usage event", async () => {
    const given = assignment(
      { type: "chat", payload: { text: "hi" } },
      { executor: { provider_id: "claude", channel: "nats" } },
    );
    const id = await assign(world.bus, given);
    expect((await resultFor(world.bus, id)).body).toMatchObject({
      status: "success",
      provider_id: "claude",
      cost: 0.018,
      payload: { text: "claude: hi" },
      metadata: { output_tokens: "1000" },
    });
    expect((await usageFor(world.bus, id)).body).toMatchObject({
      provider_id: "claude",
      event_type: "chat",
      cost: 0.018,
      status: "success",
    });
    const bad = await assign(
      world.bus,
      assignment(
        { type: "chat", payload: { text: "status 401" } },
        { executor: { provider_id: "claude", channel: "nats" } },
      ),
    );
    expect((await resultFor(world.bus, bad)).body).toMatchObject({
      status: "error",
      error_code: "PERMISSION_DENIED",
      cost: 0,
    });
  });
});

describe("ApiGateway", () => {
  test("the first provider within budget answers; answers are remembered; calls and budget are kept in the log", async () => {
    const call = { prompt: "What is up?", requesting_agent: "agent-1", task_id: "task-1" };
    const first = await gateway.call("infer", call);
    expect(first).toMatchObject({
      text: "claude: What is up?",
      tokens_used: 2_000,
      model_used: "claude-sonnet-4-20250514",
      intelligence_level: "strategic",
    });
    const asked = vendors.seen.length;
    expect(await gateway.call("infer", call)).toMatchObject({ text: first.text });
    expect(vendors.seen.length).toBe(asked);
    expect(await gateway.call("getBudget", {})).toMatchObject({
      claude_monthly_budget_usd: 100,
      claude_used_usd: 0.018,
      openai_monthly_budget_usd: 50,
      openai_used_usd: 0,
      budget_exceeded: false,
    });
    await gateway.call("infer", { prompt: "again", preferred_provider: "openai" });
    await flushRedis(world.servers.redis.url);
    expect(await gateway.call("getBudget", {})).toMatchObject({ claude_used_usd: 0.018, openai_used_usd: 0.0075 });
    const usage = await gateway.call("getUsage", { provider: "claude", days: 0 });
    expect(usage).toMatchObject({
      total_cost_usd: 0.018,
      total_requests: 1,
      total_tokens: 2_000,
      records: [
        { provider: "claude", input_tokens: 1000, output_tokens: 1000, requesting_agent: "agent-1", task_id: "task-1" },
      ],
    });
    expect((await gateway.call("getUsage", { provider: "", days: 1 })).total_requests).toBe(2);
  });

  test("failures fall back only when that is allowed", async () => {
    await expect(gateway.call("infer", { prompt: "status 500 x", preferred_provider: "claude" })).rejects.toMatchObject(
      { code: 13, details: expect.stringContaining("API request failed: ") as string },
    );
    await expect(gateway.call("infer", { prompt: "x", preferred_provider: "qwen3" })).rejects.toMatchObject({
      code: 13,
      details: expect.stringContaining("Qwen3 API key not configured") as string,
    });
    await expect(gateway.call("infer", { prompt: "x", preferred_provider: "gpt9" })).rejects.toMatchObject({
      details: expect.stringContaining("Unknown provider: gpt9") as string,
    });
    expect(
      await gateway.call("infer", { prompt: "x", preferred_provider: "qwen3", allow_fallback: true }),
    ).toMatchObject({ text: "claude: x" });
  });

  test("streams come in pieces with the provider's name and one last chunk", async () => {
    const chunks = [];
    for await (const chunk of gateway.stream("streamInfer", { prompt: "stream", preferred_provider: "openai" }))
      chunks.push(chunk);
    expect(chunks.map(({ text }) => text).join("")).toBe("echo: stream\u{1F600}");
    expect(chunks.filter(({ done }) => done)).toHaveLength(1);
    expect(chunks.at(-1)).toMatchObject({ done: true, provider: "openai" });
    expect((await gateway.call("getUsage", { provider: "openai", days: 1 })).total_requests).toBe(2);
  });
});

describe("AIRuntime", () => {
  test("levels choose a model as the contract says", async () => {
    expect((await models.call("listModels", {})).models).toMatchObject([
      { model_name: "demo", status: "ready", request_count: 0n },
    ]);
    const answer = await models.call("infer", { prompt: "hi", intelligence_level: "operational" });
    expect(answer).toMatchObject({ model_used: "demo" });
    expect(JSON.parse(answer.text)).toMatchObject({ demo: true });
    await expect(models.call("infer", { prompt: "hi", intelligence_level: "reactive" })).rejects.toMatchObject({
      code: 3,
    });
    await expect(models.call("infer", { prompt: "hi", intelligence_level: "strategic" })).rejects.toMatchObject({
      code: 9,
    });
    const chunks = [];
    for await (const chunk of models.stream("streamInfer", { prompt: "hi", model: "demo" })) chunks.push(chunk);
    expect(chunks.filter(({ done }) => done)).toHaveLength(1);
    expect(await models.call("healthCheck", {})).toMatchObject({
      healthy: true,
      service: "aios-runtime",
      details: { loaded_models: "1", total_models: "1", "model:demo": "status=ready port=0" },
    });
  });

  test("what cannot be loaded or unloaded is INTERNAL with the reason", async () => {
    await expect(models.call("loadModel", { model_name: "nothing" })).rejects.toMatchObject({
      code: 13,
      details: expect.stringContaining("Failed to load model: ") as string,
    });
    await expect(models.call("unloadModel", { model_name: "nothing" })).rejects.toMatchObject({
      code: 13,
      details: expect.stringContaining("Model 'nothing' not found") as string,
    });
    await expect(models.call("loadModel", {})).rejects.toMatchObject({ code: 3 });
  });
});
