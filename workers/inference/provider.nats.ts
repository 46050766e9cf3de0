/** Providers that outside programs serve on `beamline.provider.<id>.<version>` (BeamLine, custom NATS providers). */
import type { Caller } from "../../bus/call.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { header } from "../../contracts/headers.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { ProviderFailure, tokenCount, type Answer, type Provider, type Question } from "./provider.ts";

const LONGEST_MS = 600_000;

/** `id` is one token of a subject. The version is `v1` unless the caller names another one in the parameter `provider_version`. */
export function natsProvider(caller: Caller, id: string, version: string): Provider {
  const subject = `beamline.provider.${id}.${version}`;
  const ask = async (question: Question, signal: AbortSignal): Promise<Answer> => {
    const { tenant, traceId } = question;
    const headers = {
      [header.tenantId]: tenant,
      [header.version]: "1",
      ...(traceId !== "" && { [header.traceId]: traceId }),
    };
    try {
      return answerOf(
        (await caller.request(subject, requestOf(id, question), {
          headers,
          timeoutMs: LONGEST_MS,
          signal,
        })) as JsonObject,
        id,
      );
    } catch (thrown) {
      throw translated(thrown, id, subject, signal);
    }
  };
  return {
    family: id,
    ask,
    async *stream(question, signal) {
      const { text, ...end } = await ask(question, signal);
      if (text !== "") yield { text };
      yield { end };
    },
  };
}

function requestOf(id: string, question: Question): JsonObject {
  const { model, maxTokens, temperature, topP, stop, inputs, turns, tenant, traceId, labels } = question;
  const [only] = turns;
  const prompt =
    turns.length === 1 && only !== undefined
      ? only.content
      : (turns.findLast(({ role }) => role === "user")?.content ?? inputs.join("\n"));
  const parameters = {
    model: model || undefined,
    max_tokens: maxTokens,
    temperature,
    top_p: topP,
    stop: stop.length > 0 ? stop : undefined,
  };
  return {
    trace_id: traceId,
    tenant_id: tenant,
    provider_id: id,
    prompt,
    parameters,
    context: { ...labels, ...(turns.length > 1 && { messages: turns }), ...(inputs.length > 0 && { input: inputs }) },
  };
}

function answerOf(reply: JsonObject, id: string): Answer {
  const { output, usage, metadata } = reply;
  if (output === undefined) throw new ProviderFailure("EXECUTION_FAILED", `provider ${id} answered without an output`);
  const labels = typeof metadata === "object" && metadata !== null ? (metadata as JsonObject) : {};
  const tokens = (typeof usage === "object" && usage !== null ? usage : {}) as JsonObject;
  const vectors =
    Array.isArray(output) && output.every((one) => Array.isArray(one)) ? (output as number[][]) : undefined;
  return {
    text: vectors !== undefined ? "" : typeof output === "string" ? output : JSON.stringify(output),
    ...(vectors !== undefined && { embeddings: vectors }),
    model: typeof labels["model"] === "string" ? labels["model"] : id,
    finish: typeof labels["finish_reason"] === "string" ? labels["finish_reason"] : "stop",
    tokens: { input: tokenCount(tokens["prompt_tokens"]), output: tokenCount(tokens["completion_tokens"]) },
    labels: Object.fromEntries(
      Object.entries(labels).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
    ),
  };
}

function translated(thrown: unknown, id: string, subject: string, signal: AbortSignal): unknown {
  if (thrown instanceof ProviderFailure) return thrown;
  if (signal.aborted) return signal.reason;
  const error = BeamlineError.from(thrown);
  if (error.code === "unavailable")
    return new ProviderFailure("RESOURCE_UNAVAILABLE", `nobody serves provider ${id} on ${subject}`, { cause: error });
  if (error.code === "deadline_exceeded")
    return new ProviderFailure("CONNECTION_TIMEOUT", `provider ${id} did not answer in time`, {
      timeout: true,
      cause: error,
    });
  return new ProviderFailure("EXECUTION_FAILED", `provider ${id} answered ${error.code}: ${error.message}`, {
    cause: error,
  });
}
