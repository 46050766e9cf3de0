/**
 * `core.ai.callPrompt`: `config {prompt, systemPrompt?, provider?, model?, maxTokens?, temperature?, expectsStreaming?}`, overridden by the run's
 * options. With a `provider` (`openai`, `claude:claude-sonnet-4`, `demo`, ...) the provider port is asked, which knows what a call used and what it
 * costs; without one the models of this machine, which cost nothing.
 *
 * What a call used is counted when it is made: an answer taken from the invocation log, by a replay or after a crash, costs nothing again. The
 * event `provider.usage` is part of the run's history and says it each time.
 */
import { BeamlineError } from "../../../contracts/errors.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import { numberOr, objectOr, textOr, type Json } from "../../../contracts/openwop/json.ts";
import { traceIdOf } from "../../../runtime/trace.ts";
import { invalid } from "../body.ts";
import type { NodeCall, NodeResult, NodeType } from "../engine/nodetype.ts";
import { headersOf } from "./headers.ts";
import { mockOf, tellChunk } from "./mock.ts";
import type { Ask, Outside } from "./outside.ts";

const DEFAULT_STREAM_MS = 120_000;

/** What the node needs of an answer; kept in the invocation log. */
interface Answer {
  readonly text: string;
  readonly provider: string;
  readonly model: string;
  readonly input: number;
  readonly output: number;
  /** Estimated cost, US dollars; absent when nobody knows the price. */
  readonly usd?: number;
}

/** What earlier versions kept of one. */
interface EarlierAnswer {
  readonly text?: string;
  readonly model_used?: string;
  readonly tokens_used?: number;
}

interface Prompt {
  readonly provider: string;
  readonly model: string;
  readonly prompt: string;
  readonly system: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly streamed: boolean;
}

export function callPrompt(outside: Outside, ask: Ask): NodeType {
  return {
    typeId: "core.ai.callPrompt",
    mode: "task",
    run(call) {
      return mockOf(call, outside.clock) ?? infer(call, outside, ask);
    },
    check({ config: { provider } }, field) {
      if (provider !== undefined && (typeof provider !== "string" || provider === ""))
        throw invalid(`${field}.config.provider`, "must be a provider's id");
    },
  };
}

async function infer(call: NodeCall, outside: Outside, ask: Ask): Promise<NodeResult> {
  const { node } = call;
  const prompt = promptOf(call);
  const ported = prompt.provider !== "";
  const effect = { provider: ported ? `ai:${prompt.provider}` : "ai", idempotent: false };
  const recorded = await call.effect(effect, async (id): Promise<Answer | EarlierAnswer> => {
    const answer = ported
      ? await portAnswer(call, outside, ask, prompt, id)
      : await localAnswer(call, outside, ask, prompt, id);
    if (answer.input + answer.output > 0)
      outside.tokens(ported ? answer.provider : "ai", answer.input, answer.output, answer.usd ?? 0);
    return answer;
  });
  const { text, provider, model, input, output, usd } = inTheseWords(recorded);
  const tokensUsed = input + output;
  const usage: NewEvent = {
    type: "provider.usage",
    nodeId: node.id,
    payload: {
      provider,
      model: model === "" ? "default" : model,
      inputTokens: input,
      outputTokens: output,
      totalTokens: tokensUsed,
      ...(usd !== undefined && { costEstimateUsd: usd, currency: "USD" }),
      nodeId: node.id,
    },
  };
  return {
    kind: "completed",
    outputs: { text, output: text, model, tokensUsed },
    ...(tokensUsed > 0 && { events: [usage] }),
  };
}

function inTheseWords(kept: Answer | EarlierAnswer): Answer {
  if ("provider" in kept) return kept;
  const { text = "", model_used = "", tokens_used = 0 } = kept;
  return { text, provider: "aios", model: model_used, input: 0, output: tokens_used };
}

function promptOf({ config, inputs, state, node }: NodeCall): Prompt {
  const options = state.record.configurable;
  const overrides = objectOr(options["promptOverrides"]);
  return {
    provider: textOr(config["provider"], ""),
    model: textOr(options["ai.model"] ?? options["model"] ?? config["model"], ""),
    prompt: textOr(
      overrides[node.id] ?? inputs["prompt"] ?? inputs["input"] ?? config["prompt"] ?? config["userPrompt"],
      "",
    ),
    system: textOr(config["systemPrompt"], ""),
    maxTokens: numberOr(options["maxTokens"], numberOr(config["maxTokens"], 512)),
    temperature: numberOr(options["temperature"], numberOr(config["temperature"], 0.7)),
    streamed: config["expectsStreaming"] === true,
  };
}

/** From a model of this machine (aiOS, runtime). */
async function localAnswer(
  call: NodeCall,
  outside: Outside,
  ask: Ask,
  { model, prompt, system, maxTokens, temperature, streamed }: Prompt,
  id: string,
): Promise<Answer> {
  const { config, state, node } = call;
  const body = {
    model,
    prompt,
    system_prompt: system,
    max_tokens: maxTokens,
    temperature,
    intelligence_level: textOr(config["intelligenceLevel"], ""),
    requesting_agent: textOr(node.agent?.agentId, `run:${state.record.workflowId}`),
    task_id: state.record.runId,
  };
  let text = "";
  if (!streamed) {
    const answer = await ask(call, "aios.runtime.v1.infer", body, id);
    return {
      text: textOr(answer["text"], ""),
      provider: "aios",
      model: textOr(answer["model_used"], model),
      input: 0,
      output: numberOr(answer["tokens_used"], 0),
    };
  }
  for await (const piece of streamOf(call, outside, "aios.runtime.v1.stream_infer", body, id)) {
    const chunk = textOr(piece["text"], "");
    text += chunk;
    const isLast = piece["done"] === true;
    tellChunk(call, chunk, isLast, isLast ? { finishReason: "stop" } : {});
    if (isLast) break;
  }
  return { text, provider: "aios", model, input: 0, output: 0 };
}

/** From a provider (BeamLine, provider). What goes wrong there is an answer of its own; it fails the node here. */
async function portAnswer(
  call: NodeCall,
  outside: Outside,
  ask: Ask,
  { provider, model, prompt, system, maxTokens, temperature, streamed }: Prompt,
  id: string,
): Promise<Answer> {
  const request = {
    provider_id: provider,
    message_id: id,
    tenant_id: call.state.record.owner.tenant,
    trace_id: traceIdOf(call.traceparent),
    body: JSON.stringify({ prompt }),
    parameters: {
      ...(model !== "" && { model }),
      ...(system !== "" && { system_prompt: system }),
      max_tokens: String(maxTokens),
      temperature: String(temperature),
    },
  };
  if (!streamed) {
    const { status, body, error_code, error_message, metadata } = await ask(
      call,
      "beamline.provider.v1.invoke",
      request,
      id,
    );
    const labels = objectOr(metadata);
    if (status !== "success") throw refused(provider, error_code, error_message, labels["retryable"] === "true");
    return answerOf(textOr(objectOr(JSON.parse(textOr(body, "{}")))["text"], ""), provider, labels);
  }
  let text = "";
  for await (const piece of streamOf(call, outside, "beamline.provider.v1.invoke.stream", request, id)) {
    const chunk = textOr(piece["data"], "");
    text += chunk;
    const isLast = piece["done"] === true;
    const labels = objectOr(piece["metadata"]);
    if (isLast && labels["status"] !== "success")
      throw refused(provider, labels["error_code"], labels["error_message"], false);
    tellChunk(call, chunk, isLast, isLast ? { finishReason: textOr(labels["finish_reason"], "stop") } : {});
    if (isLast) return answerOf(text, provider, labels);
  }
  throw new BeamlineError("unavailable", `the answer of provider ${provider} broke off`);
}

/** A call whose answer comes in pieces. */
function streamOf(
  call: NodeCall,
  outside: Outside,
  subject: string,
  body: Json,
  id: string,
): ReturnType<Outside["stream"]> {
  const timeoutMs = numberOr(call.config["timeoutMs"], DEFAULT_STREAM_MS);
  return outside.stream(subject, body, headersOf(call, id), timeoutMs, call.signal);
}

function answerOf(text: string, asked: string, labels: Json): Answer {
  const priced = textOr(labels["price_version"], "none") !== "none";
  return {
    text,
    provider: textOr(labels["provider"], asked),
    model: textOr(labels["model"], ""),
    input: countOf(labels["input_tokens"]),
    output: countOf(labels["output_tokens"]),
    ...(priced && { usd: countOf(labels["cost_micros"]) / 1_000_000 }),
  };
}

/** Labels are texts. */
function countOf(label: unknown): number {
  const count = Number(textOr(label, "0"));
  return Number.isFinite(count) ? count : 0;
}

function refused(provider: string, code: unknown, message: unknown, retryable: boolean): BeamlineError {
  return new BeamlineError(
    retryable ? "unavailable" : "failed_precondition",
    `provider ${provider}: ${textOr(message, "it gave no answer")}`,
    { details: { provider, providerCode: textOr(code, "") } },
  );
}
