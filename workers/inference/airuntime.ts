/** `aios.runtime.AIRuntime`: models on this machine, chosen by name or by level (aiOS, runtime). */
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";
import type { AIRuntimeDefinition, InferRequest } from "../../contracts/gen/aios/runtime.ts";
import type { CallContext, Handlers } from "../../contracts/handlers.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Model, ModelHost } from "./models.ts";
import { inWholeCharacters } from "./pieces.ts";
import { splitTokens } from "./prices.ts";
import { ProviderFailure, type Question } from "./provider.ts";

export interface RuntimePorts {
  readonly models: ModelHost;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Parts of names, first ready wins; case does not matter. */
const levels: Readonly<Record<string, readonly string[]>> = {
  operational: ["tinyllama-1.1b", "DeepSeek-R1-Distill-Qwen-8B", "mistral-7b"],
  tactical: ["DeepSeek-R1-Distill-Qwen-8B", "Qwen3-14B", "mistral-7b", "tinyllama-1.1b"],
  strategic: ["Qwen3-14B", "DeepSeek-R1-Distill-Qwen-8B", "mistral-7b"],
};

const CONTEXT_LENGTH = 2_048;
const THREADS = 4;
const MAX_TOKENS = 512;
const TEMPERATURE = 0.7;
const LONGEST_MS = 120_000;

export function runtimeHandlers(ports: RuntimePorts): Handlers<typeof AIRuntimeDefinition> {
  const { models, clock } = ports;
  const startedMs = clock.monotonic();
  return {
    async loadModel(request) {
      if (request.model_name === "") throw invalidArgument("model_name", "is required");
      if (request.port < 0 || request.port > 65_535) throw invalidArgument("port", "must be from 0 to 65535");
      const model = await models.load({
        name: request.model_name,
        path: request.model_path,
        contextLength: request.context_length > 0 ? request.context_length : CONTEXT_LENGTH,
        gpuLayers: request.gpu_layers,
        threads: request.threads > 0 ? request.threads : THREADS,
        port: request.port,
      });
      return statusOf(model);
    },

    async unloadModel({ model_name }) {
      await models.unload(model_name);
      return { success: true, message: `Model '${model_name}' unloaded` };
    },

    listModels: () => Promise.resolve({ models: models.all.map(statusOf) }),

    async infer(request, context) {
      const model = take(ports, request);
      const started = clock.monotonic();
      try {
        const { text, tokens } = await model.provider.ask(questionOf(request, context, true), within(context));
        const { input, output } = splitTokens(tokens);
        return {
          text,
          tokens_used: tokens.total ?? input + output,
          latency_ms: BigInt(Math.round(clock.monotonic() - started)),
          model_used: model.name,
        };
      } catch (thrown) {
        throw failed(thrown, ports);
      }
    },

    async *streamInfer(request, context) {
      const model = take(ports, request);
      try {
        for await (const piece of inWholeCharacters(
          model.provider.stream(questionOf(request, context, false), within(context)),
        )) {
          yield "text" in piece ? { text: piece.text, done: false } : { text: "", done: true };
        }
      } catch (thrown) {
        throw failed(thrown, ports);
      }
    },

    healthCheck() {
      const { all, ready } = models;
      const uptime = Math.floor((clock.monotonic() - startedMs) / 1000);
      const details: Record<string, string> = { loaded_models: String(ready.length), total_models: String(all.length) };
      for (const { name, status, port } of all) details[`model:${name}`] = `status=${status} port=${port}`;
      return Promise.resolve({
        healthy: true,
        service: "aios-runtime",
        message: `${ready.length}/${all.length} models loaded, uptime ${uptime}s`,
        uptime_seconds: BigInt(uptime),
        details,
      });
    },
  };
}

/** The model that answers: the named one when it is ready, else by level. Throws as the contract says. */
function take({ models, clock, log }: RuntimePorts, { model: named, intelligence_level: level }: InferRequest): Model {
  const { ready } = models;
  let found = named === "" ? undefined : ready.find(({ name }) => name === named);
  if (found === undefined && named !== "")
    log.warn("the model asked for is not ready; the level chooses", { model: named, level });
  found ??= byLevel(ready, level);
  found.requests++;
  found.lastUsedMs = clock.now();
  return found;
}

function byLevel(ready: readonly Model[], level: string): Model {
  if (level === "reactive")
    throw new BeamlineError("invalid_argument", "intelligence_level reactive uses no model", {
      field: "intelligence_level",
    });
  for (const part of levels[level] ?? []) {
    const found = ready.find(({ name }) => name.toLowerCase().includes(part.toLowerCase()));
    if (found !== undefined) return found;
  }
  if (level === "strategic")
    throw new BeamlineError("failed_precondition", "no local model is suited for level strategic");
  const [first] = ready;
  if (first === undefined) throw new BeamlineError("unavailable", "no model is ready");
  return first;
}

function within({ signal }: CallContext): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(LONGEST_MS)]);
}

/** Unary answers are JSON objects, streamed ones are not. */
function questionOf(
  { prompt, system_prompt, max_tokens, temperature }: InferRequest,
  { tenant, traceparent }: CallContext,
  json: boolean,
): Question {
  return {
    kind: "chat",
    turns: [
      ...(system_prompt === "" ? [] : [{ role: "system" as const, content: system_prompt }]),
      { role: "user", content: prompt },
    ],
    inputs: [],
    model: "",
    maxTokens: max_tokens > 0 ? max_tokens : MAX_TOKENS,
    temperature: temperature > 0 ? temperature : TEMPERATURE,
    topP: undefined,
    stop: [],
    json,
    tenant,
    traceId: traceparent.split("-")[1] ?? "",
    labels: {},
  };
}

function failed(thrown: unknown, { log }: RuntimePorts): BeamlineError {
  if (thrown instanceof ProviderFailure) return new BeamlineError("internal", `Inference failed: ${thrown.message}`);
  const error = BeamlineError.from(thrown);
  if (error.code === "internal") log.error("inference failed", { error: thrown });
  return error;
}

function statusOf({ name, status, port, loadedAtMs, lastUsedMs, requests }: Model) {
  return {
    model_name: name,
    status,
    port,
    loaded_at: BigInt(loadedAtMs),
    last_used: BigInt(lastUsedMs),
    request_count: BigInt(requests),
  };
}
