/** What model calls cost (OpenWOP, metrics; attributes: cost): from the provider port's price table to metric, event, snapshot and bundle. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Caller } from "../../bus/call.ts";
import { Server } from "../../bus/serve.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { loadConfig } from "../../runtime/config.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { inferenceWorker } from "../../workers/inference/worker.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { startHost, type Host } from "./host.ts";
import { node, workflow } from "./workflow.kit.ts";

let host: Host;
let scope: Scope;
let dir: string;
beforeAll(async () => {
  host = await startHost();
  dir = await mkdtemp(join(tmpdir(), "beamline-cost-"));
  scope = await startInference(host, dir);
}, 60_000);
afterAll(async () => {
  await scope.close();
  await host[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

/** The real worker; its deterministic provider, which says so in every answer, has a price here: 1 dollar a token asked, 2 a token answered. */
async function startInference({ bed }: Host, data: string): Promise<Scope> {
  const prices = join(data, "prices.json");
  const models = [{ model: "demo", input: 1_000_000_000_000, output: 2_000_000_000_000 }];
  await writeFile(prices, JSON.stringify({ version: "test", unit: "micro-dollars", models, families: [] }));
  const own = new Scope({ log: silentLogger });
  const bus = own.use("bus", await bed.nats.connect("worker-inference"), (b) => b.drain());
  await ensureStreams(bus, inferenceWorker.streams ?? []);
  const caller = own.use("caller", new Caller(bus), (c) => c.stop());
  const config = loadConfig(
    { ...workerSettings, ...inferenceWorker.settings },
    {
      REDIS_URL: bed.redisUrl,
      BEAMLINE_DATA_DIR: data,
      BEAMLINE_PRICE_TABLE: prices,
    },
  );
  const endpoints = await inferenceWorker.open(own, {
    config,
    bus,
    caller,
    log: silentLogger,
    metrics: createRegistry(),
    calls: () => ({ active: 0, waiting: 0 }),
    env: {},
  });
  const server = new Server(bus, endpoints, { name: "inference", version: "0.0.0" });
  own.use("intake", server, (s, deadline) => s.stop(Date.now() + deadline.remainingMs()));
  await server.ready();
  own.ready();
  return own;
}

/** Sum of a counter's series with these labels. */
function counted(name: string, labels: Readonly<Record<string, string>>): number {
  const family = host.bed.registry.collect().find((one) => one.name === name);
  return (family?.series ?? [])
    .filter((series) => Object.entries(labels).every(([label, value]) => series.labels[label] === value))
    .reduce((sum, { recorded }) => sum + ("value" in recorded ? recorded.value : 0), 0);
}

const spent = (): number => counted("openwop_cost_usd", { provider: "demo", cost_estimated: "true" });
const tokens = (direction: string): number => counted("openwop_activity_tokens", { provider: "demo", direction });

async function apply(id: string, config: object): Promise<void> {
  const definition = workflow(id, [node("ask", "core.ai.callPrompt", { prompt: "two words", ...config })]);
  const { status, body } = await host.rest("PUT", `/v1/workflows/${id}`, definition);
  expect(status, JSON.stringify(body)).toBe(201);
}

describe.each([
  ["whole", {}],
  ["streamed", { expectsStreaming: true }],
])("an answer that comes %s", (how, more) => {
  test("is in metric, event, snapshot and bundle with what it cost; a replay says the same and costs nothing", async () => {
    await apply(`priced-${how}`, { provider: "demo", ...more });
    const before = { usd: spent(), input: tokens("input"), output: tokens("output") };
    const runId = await host.start(`priced-${how}`);
    const run = await host.reaches(runId, "completed");
    const usage = (await host.events(runId)).find(({ type }) => type === "provider.usage")?.payload as {
      outputTokens: number;
    };
    const { outputTokens } = usage;
    expect(outputTokens).toBeGreaterThan(2);
    const usd = 2 + 2 * outputTokens;
    expect(usage).toEqual({
      provider: "demo",
      model: "demo",
      inputTokens: 2,
      outputTokens,
      totalTokens: 2 + outputTokens,
      costEstimateUsd: usd,
      currency: "USD",
      nodeId: "ask",
    });
    const openwopCost = {
      usd,
      tokens: { input: 2, output: outputTokens },
      model: "demo",
      provider: "demo",
      duration_ms: expect.any(Number),
    };
    expect(run.metrics).toEqual({ openwopCost });
    expect((await host.rest("GET", `/v1/runs/${runId}/debug-bundle`)).body.metrics).toMatchObject({ openwopCost });
    const after = { usd: before.usd + usd, input: before.input + 2, output: before.output + outputTokens };
    expect({ usd: spent(), input: tokens("input"), output: tokens("output") }).toEqual(after);
    const replay = await host.rest("POST", `/v1/runs/${runId}:fork`, { mode: "replay" });
    expect((await host.reaches(replay.body.runId, "completed")).metrics.openwopCost.usd).toBe(usd);
    expect({ usd: spent(), input: tokens("input"), output: tokens("output") }).toEqual(after);
  });
});

test("what nobody knows the price of has tokens and no cost", async () => {
  await apply("unpriced", {});
  const before = spent();
  const runId = await host.start("unpriced");
  await host.reaches(runId, "completed");
  const usage = (await host.events(runId)).find(({ type }) => type === "provider.usage")?.payload;
  expect(usage).toMatchObject({ provider: "aios", outputTokens: expect.any(Number) });
  expect(usage).not.toHaveProperty("costEstimateUsd");
  expect(spent()).toBe(before);
});

test("a provider that cannot be asked fails the node, says which, and costs nothing", async () => {
  await apply("nobody", { provider: "no_such_provider" });
  const before = spent();
  const run = await host.reaches(await host.start("nobody"), "failed");
  expect(run.error).toMatchObject({ message: expect.stringContaining("provider no_such_provider: ") });
  expect([run.metrics, spent()]).toEqual([undefined, before]);
  const refused = await host.rest(
    "PUT",
    "/v1/workflows/wrong",
    workflow("wrong", [node("ask", "core.ai.callPrompt", { provider: 7 })]),
  );
  expect([refused.status, refused.body.error]).toEqual([400, "validation_error"]);
  expect(JSON.stringify(refused.body)).toContain("config.provider");
});
