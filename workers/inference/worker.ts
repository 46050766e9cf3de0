/**
 * The inference worker: asks models. It serves `beamline.provider.v1.Provider`, `aios.runtime.AIRuntime` and `aios.api_gateway.ApiGateway`.
 *
 * Local models started by `LoadModel` belong to the process that started them: run one inference worker per machine that hosts models.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { endpointsOf } from "../../bus/endpoint.ts";
import { ApiGatewayDefinition } from "../../contracts/gen/aios/api_gateway.ts";
import { AIRuntimeDefinition } from "../../contracts/gen/aios/runtime.ts";
import { ProviderDefinition } from "../../contracts/gen/beamline/provider/v1/provider.ts";
import { streams } from "../../contracts/streams.ts";
import { microsOf } from "../../contracts/execution/usage.ts";
import { executionMetrics } from "../../runtime/beamline.metrics.ts";
import { systemClock } from "../../runtime/clock.ts";
import { bool, file, float, list, optional, secret, text, url } from "../../runtime/setting.ts";
import { connectRedis } from "../connect.redis.ts";
import { defineWorker } from "../module.ts";
import { runtimeHandlers } from "./airuntime.ts";
import { gatewayHandlers } from "./gateway.ts";
import { providerHandlers } from "./invoke.ts";
import { ModelHost } from "./models.ts";
import { loadPrices } from "./prices.ts";
import { DEMO, demoProvider } from "./provider.demo.ts";
import { Providers } from "./providers.ts";
import { redisReplies } from "./replies.redis.ts";
import { Spending } from "./spending.ts";

const http = { schemes: ["http", "https"] };

export const inferenceSettings = {
  OPENAI_API_KEY: secret(optional, "Key of OpenAI, or of a server that speaks its language."),
  OPENAI_BASE_URL: url(optional, "Where that server is; OpenAI itself when not given.", http),
  OPENAI_MODEL: text("gpt-5", "Model asked at OpenAI when nobody names one."),
  ANTHROPIC_API_KEY: secret(optional, "Key of Anthropic."),
  CLAUDE_API_KEY: secret(optional, "The same under the name aiOS knows."),
  ANTHROPIC_BASE_URL: url(optional, "Where Claude is asked; Anthropic itself when not given.", http),
  CLAUDE_MODEL: text("claude-sonnet-4-20250514", "Model asked at Anthropic when nobody names one."),
  QWEN3_API_KEY: secret(optional, "Key of a Qwen server.", { needs: ["QWEN3_BASE_URL"] }),
  QWEN3_BASE_URL: url(optional, "Where that server is.", http),
  QWEN3_MODEL: text("qwen3:30b-128k", "Model asked there when nobody names one."),
  LOCAL_LLM_URL: url(optional, "An OpenAI-compatible model server on this machine or network.", http),
  LOCAL_LLM_MODEL: text("local", "Model asked there when nobody names one."),
  LLAMA_SERVER_PATH: text("llama-server", "The program that serves a GGUF model."),
  AIOS_MODEL_DIR: text(
    optional,
    "Directory whose GGUF models are loaded at start; `models` in the data directory when that exists.",
  ),
  BEAMLINE_DEMO: bool(
    true,
    "Whether a provider with deterministic, plainly labelled answers stands in where no model is configured at all.",
  ),
  BEAMLINE_DEMO_PROVIDERS: list(
    [],
    "Provider ids that one answers for besides demo, for trying things out, separated by commas.",
  ),
  BEAMLINE_PRICE_TABLE: file(optional, "Price table to use in place of the one that comes with the product."),
  BEAMLINE_BUDGET_CLAUDE_USD: float(100, "What a tenant may spend on Claude in a calendar month, in dollars.", {
    min: 0,
  }),
  BEAMLINE_BUDGET_OPENAI_USD: float(50, "What a tenant may spend on OpenAI in a calendar month, in dollars.", {
    min: 0,
  }),
} as const;

export const inferenceWorker = defineWorker({
  name: "inference",
  settings: inferenceSettings,
  streams: [streams.inference],

  async open(scope, { config, bus, caller, log, metrics }) {
    const clock = systemClock;
    const hot = await scope.open(
      "redis",
      () => connectRedis(config.REDIS_URL, "inference"),
      (one) => one.close(),
    );
    scope.health.add("redis", () => hot.ping());
    const replies = redisReplies(hot.redis, () => clock.now());
    const prices = loadPrices(config.BEAMLINE_PRICE_TABLE);
    const providers = new Providers(caller, {
      openai: { apiKey: config.OPENAI_API_KEY, baseUrl: config.OPENAI_BASE_URL, model: config.OPENAI_MODEL },
      claude: {
        apiKey: config.ANTHROPIC_API_KEY ?? config.CLAUDE_API_KEY,
        baseUrl: config.ANTHROPIC_BASE_URL,
        model: config.CLAUDE_MODEL,
      },
      qwen3: { apiKey: config.QWEN3_API_KEY, baseUrl: config.QWEN3_BASE_URL, model: config.QWEN3_MODEL },
      local: { baseUrl: config.LOCAL_LLM_URL, model: config.LOCAL_LLM_MODEL },
      demo: config.BEAMLINE_DEMO_PROVIDERS,
    });
    const spending = scope.use("spending", new Spending(bus), (one) => one.stop());
    await scope.open("spending log", () => spending.start(clock.now()));

    const found = join(config.BEAMLINE_DATA_DIR, "models");
    const directory = config.AIOS_MODEL_DIR ?? (existsSync(found) ? found : undefined);
    const models = scope.use(
      "models",
      new ModelHost({ binary: config.LLAMA_SERVER_PATH, directory, clock, log }),
      (host) => host.close(),
    );
    if (providers.has("local"))
      models.provide(
        config.LOCAL_LLM_MODEL,
        providers.own("local"),
        Number(URL.parse(config.LOCAL_LLM_URL ?? "")?.port ?? 0),
      );
    else if (config.BEAMLINE_DEMO) models.provide(DEMO, demoProvider);
    void models.loadDirectory(); // Large models take minutes; until then they are `loading`.

    return [
      ...endpointsOf(
        ProviderDefinition,
        providerHandlers({ providers, prices, replies, metrics: metrics.use(executionMetrics), clock, log }),
      ),
      ...endpointsOf(AIRuntimeDefinition, runtimeHandlers({ models, clock, log })),
      ...endpointsOf(
        ApiGatewayDefinition,
        gatewayHandlers({
          providers,
          spending,
          prices,
          replies,
          clock,
          log,
          budgets: {
            claude: microsOf(config.BEAMLINE_BUDGET_CLAUDE_USD),
            openai: microsOf(config.BEAMLINE_BUDGET_OPENAI_USD),
          },
          demo: config.BEAMLINE_DEMO,
        }),
      ),
    ];
  },
});
