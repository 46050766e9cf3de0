/** Mock providers for test keys (OpenWOP, mock providers): deterministic stand-ins for model calls. */
import { isObject, numberOr, objectOr, textOr, type Json } from "../../../contracts/openwop/json.ts";
import { failed, type NodeCall, type NodeResult } from "../engine/nodetype.ts";
import type { Clock } from "../../../runtime/clock.ts";

export const MOCK_PROVIDERS: readonly string[] = ["stream-text", "tool-calls", "error", "usage-only"];

const MAX_DELAY_MS = 5_000;

/** Runs the mock the run was started with; undefined when it was started without one. */
export function mockOf(call: NodeCall, clock: Clock): Promise<NodeResult> | undefined {
  const mock = call.state.record.configurable["mockProvider"];
  if (!isObject(mock) || call.state.record.test !== true) return undefined;
  const config = objectOr(mock["config"]);
  switch (mock["id"]) {
    case "stream-text":
      return streamText(call, config, clock);
    case "tool-calls":
      return toolCalls(call, config, clock);
    case "error":
      return error(call, config, clock);
    case "usage-only":
      return Promise.resolve(usageOnly(call, config));
    default:
      return undefined;
  }
}

async function streamText(call: NodeCall, config: Json, clock: Clock): Promise<NodeResult> {
  const tokens =
    Array.isArray(config["tokens"]) && config["tokens"].length > 0
      ? config["tokens"].map(String)
      : ["mock", " response"];
  const delayMs = Math.min(MAX_DELAY_MS, Math.max(0, numberOr(config["delayMsPerToken"], 0)));
  const model = textOr(config["model"], "mock-stream-text-v1");
  const finishReason = textOr(config["finishReason"], "stop");
  const usage = isObject(config["usage"])
    ? config["usage"]
    : { promptTokens: 1, completionTokens: tokens.length, totalTokens: tokens.length + 1 };
  for (const [at, chunk] of tokens.entries()) {
    if (delayMs > 0) await clock.sleep(delayMs, call.signal);
    const isLast = at === tokens.length - 1;
    tellChunk(call, chunk, isLast, isLast ? { finishReason, usage, model } : { model });
  }
  return { kind: "completed", outputs: { text: tokens.join(""), output: tokens.join(""), finishReason, usage, model } };
}

async function toolCalls(call: NodeCall, config: Json, clock: Clock): Promise<NodeResult> {
  const calls = Array.isArray(config["toolCalls"]) ? config["toolCalls"] : [];
  const delayMs = Math.min(MAX_DELAY_MS, Math.max(0, numberOr(config["delayMsPerToken"], 0)));
  if (delayMs > 0) await clock.sleep(delayMs, call.signal);
  tellChunk(call, "", true, { finishReason: "tool_calls", toolCalls: calls });
  return { kind: "completed", outputs: { toolCalls: calls, finishReason: "tool_calls" } };
}

async function error(call: NodeCall, config: Json, clock: Clock): Promise<NodeResult> {
  const failAfterMs = Math.min(MAX_DELAY_MS, Math.max(0, numberOr(config["failAfterMs"], 0)));
  if (failAfterMs > 0) await clock.sleep(failAfterMs, call.signal);
  return failed(textOr(config["code"], "mock_error"), textOr(config["message"], "the mock provider fails by design"), {
    retryable: config["retryable"] === true,
  });
}

function usageOnly(call: NodeCall, config: Json): NodeResult {
  const usage = objectOr(config["usage"]);
  tellChunk(call, "", true, { finishReason: "stop", usage });
  return { kind: "completed", outputs: { text: "", usage } };
}

/** One piece of output, as it comes (`output.chunk`). */
export function tellChunk(call: NodeCall, chunk: string, isLast: boolean, meta: Json): void {
  const { runId } = call.state.record;
  call.tell({
    type: "output.chunk",
    nodeId: call.node.id,
    payload: { nodeId: call.node.id, runId, chunk, isLast, meta },
  });
}
