/** Models served by child processes, and budgets that are spent. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ApiGatewayDefinition } from "../../contracts/gen/aios/api_gateway.ts";
import { AIRuntimeDefinition } from "../../contracts/gen/aios/runtime.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { startWorld, type World } from "../kit/world.ts";
import { until } from "../kit/until.ts";

let world: World;
let folder: string;
let path: string | undefined;
let models: GrpcClient<typeof AIRuntimeDefinition>;
let gateway: GrpcClient<typeof ApiGatewayDefinition>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "beamline-models-"));
  for (const name of ["TinyLlama-1.1B.gguf", "other.gguf"]) await writeFile(join(folder, name), "gguf");
  path = process.env["PATH"];
  process.env["PATH"] = `${dirname(process.execPath)}:${path ?? ""}`;
  world = await startWorld({
    workers: ["inference"],
    syncInterval: "10s",
    env: {
      LLAMA_SERVER_PATH: fileURLToPath(new URL("./llamaserver.mjs", import.meta.url)),
      AIOS_MODEL_DIR: folder,
      BEAMLINE_DEMO: "false",
      BEAMLINE_BUDGET_CLAUDE_USD: "0",
      BEAMLINE_BUDGET_OPENAI_USD: "0",
    },
  });
  models = grpcClient(AIRuntimeDefinition, world.grpc);
  gateway = grpcClient(ApiGatewayDefinition, world.grpc);
});
afterAll(async () => {
  process.env["PATH"] = path;
  for (const client of [models, gateway]) client[Symbol.dispose]();
  await world[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const listed = async () => (await models.call("listModels", {})).models;

test("models of the directory are loaded at start, asked by name and by level, and unloaded", async () => {
  await until(async () => (await listed()).filter(({ status }) => status === "ready").length === 2, "both models");
  expect((await listed()).map(({ model_name }) => model_name)).toEqual(["TinyLlama-1.1B", "other"]);
  const answer = await models.call("infer", { prompt: "hi", intelligence_level: "operational" });
  expect(answer).toMatchObject({ model_used: "TinyLlama-1.1B", tokens_used: 3 });
  expect(JSON.parse(answer.text)).toEqual({ from: join(folder, "TinyLlama-1.1B.gguf") });
  expect(await models.call("infer", { prompt: "hi", model: "other" })).toMatchObject({ model_used: "other" });
  const [tiny] = await listed();
  expect(tiny).toMatchObject({ request_count: 1n });
  expect(tiny?.last_used).toBeGreaterThan(1_700_000_000_000n);
  expect(await models.call("loadModel", { model_name: "other" })).toMatchObject({ status: "ready" });
  expect(await models.call("unloadModel", { model_name: "other" })).toMatchObject({
    success: true,
    message: "Model 'other' unloaded",
  });
  expect((await listed()).length).toBe(1);
});

test("a model server that ends at once is INTERNAL, and leaves nothing behind", async () => {
  await expect(
    models.call("loadModel", { model_name: "other", model_path: join(folder, "other.gguf"), context_length: 2 }),
  ).rejects.toMatchObject({
    code: 13,
    details: expect.stringContaining("Failed to load model: ") as string,
  });
  expect((await listed()).map(({ model_name }) => model_name)).toEqual(["TinyLlama-1.1B"]);
  expect(
    await models.call("loadModel", {
      model_name: "again",
      model_path: join(folder, "other.gguf"),
      context_length: 512,
    }),
  ).toMatchObject({ status: "ready", model_name: "again" });
});

test("when both budgets are spent everything is refused", async () => {
  await expect(gateway.call("infer", { prompt: "hi", preferred_provider: "local" })).rejects.toMatchObject({
    code: 8,
    details: expect.stringContaining("API budget exceeded") as string,
  });
  expect(await gateway.call("getBudget", {})).toMatchObject({ budget_exceeded: true, claude_used_usd: 0 });
});
