/** Providers that speak OpenAI's chat completions and embeddings: OpenAI itself, Qwen, llama-server and other local servers. */
import OpenAI, { APIConnectionError, APIConnectionTimeoutError, APIError, APIUserAbortError } from "openai";
import { redactErrorText } from "../../runtime/redact.ts";
import {
  failureOfStatus,
  ProviderFailure,
  tokenCount,
  type Answer,
  type Piece,
  type Provider,
  type Question,
  type Tokens,
} from "./provider.ts";

export interface OpenAiOptions {
  readonly family: string;
  /** For messages: `OpenAI`, `local`. */
  readonly name: string;
  /** Undefined for servers that ask for none. */
  readonly apiKey: string | undefined;
  /** Undefined for OpenAI's own. */
  readonly baseUrl: string | undefined;
  readonly model: string;
  readonly embeddingModel?: string;
}

export function openAiProvider(options: OpenAiOptions): Provider {
  const {
    family,
    name,
    apiKey = "none",
    baseUrl,
    model: ownModel,
    embeddingModel = "text-embedding-3-small",
  } = options;
  // Trying again is the caller's to decide: it knows the deadline.
  const client = new OpenAI({
    apiKey,
    baseURL: baseUrl ?? null,
    maxRetries: 0,
    timeout: 600_000,
    logLevel: "off",
    organization: null,
    project: null,
    adminAPIKey: null,
  });
  const official = baseUrl === undefined;

  const request = (question: Question) => ({
    model: question.model || ownModel,
    messages: question.turns.map(({ role, content }) => ({ role, content })),
    ...(question.maxTokens !== undefined &&
      (official ? { max_completion_tokens: question.maxTokens } : { max_tokens: question.maxTokens })),
    ...(question.temperature !== undefined && { temperature: question.temperature }),
    ...(question.topP !== undefined && { top_p: question.topP }),
    ...(question.stop.length > 0 && { stop: [...question.stop] }),
    ...(question.json && { response_format: { type: "json_object" as const } }),
  });

  return {
    family,

    async ask(question, signal) {
      try {
        if (question.kind === "embedding")
          return await embed(client, question, question.model || embeddingModel, signal);
        const reply = await client.chat.completions.create({ ...request(question), stream: false }, { signal });
        const [choice] = reply.choices;
        return {
          text: choice?.message.content ?? "",
          model: reply.model,
          finish: choice?.finish_reason ?? "",
          tokens: tokensOf(reply.usage),
        };
      } catch (thrown) {
        throw translated(thrown, name, signal);
      }
    },

    async *stream(question, signal): AsyncGenerator<Piece> {
      if (question.kind === "embedding") throw new ProviderFailure("INVALID_INPUT", "embeddings are not streamed");
      let end: Omit<Answer, "text"> = { model: question.model || ownModel, finish: "", tokens: tokensOf(undefined) };
      try {
        const chunks = await client.chat.completions.create(
          { ...request(question), stream: true, stream_options: { include_usage: true } },
          { signal },
        );
        for await (const chunk of chunks) {
          const [choice] = chunk.choices;
          end = {
            model: chunk.model || end.model,
            finish: choice?.finish_reason ?? end.finish,
            tokens: chunk.usage ? tokensOf(chunk.usage) : end.tokens,
          };
          const text = choice?.delta.content ?? "";
          if (text !== "") yield { text };
        }
        signal.throwIfAborted(); // The client ends an aborted stream as if it were over.
      } catch (thrown) {
        throw translated(thrown, name, signal);
      }
      yield { end };
    },
  };
}

async function embed(client: OpenAI, question: Question, model: string, signal: AbortSignal): Promise<Answer> {
  const reply = await client.embeddings.create(
    { model, input: [...question.inputs], encoding_format: "float" },
    { signal },
  );
  return {
    text: "",
    embeddings: reply.data.map(({ embedding }) => embedding),
    model: reply.model,
    finish: "stop",
    tokens: { input: tokenCount(reply.usage?.prompt_tokens), output: 0 },
  };
}

function tokensOf(
  usage: { prompt_tokens?: number; completion_tokens?: number; total_tokens?: number } | null | undefined,
): Tokens {
  const total = tokenCount(usage?.total_tokens);
  return {
    input: tokenCount(usage?.prompt_tokens),
    output: tokenCount(usage?.completion_tokens),
    ...(total !== undefined && { total }),
  };
}

function translated(thrown: unknown, name: string, signal: AbortSignal): unknown {
  if (signal.aborted || thrown instanceof APIUserAbortError) return signal.reason ?? thrown;
  if (thrown instanceof APIConnectionTimeoutError)
    return new ProviderFailure("CONNECTION_TIMEOUT", `${name} did not answer in time`, {
      timeout: true,
      cause: thrown,
    });
  if (thrown instanceof APIConnectionError)
    return new ProviderFailure("NETWORK_ERROR", `${name} cannot be reached`, { cause: thrown });
  if (thrown instanceof APIError) {
    const status = thrown.status as number | undefined;
    // A stream that reports an error of its own in the middle has no status.
    return failureOfStatus(
      status ?? 500,
      `${name} answered ${status ?? "with an error"}: ${redactErrorText(thrown.message)}`,
      thrown,
    );
  }
  return new ProviderFailure("NETWORK_ERROR", `the answer of ${name} broke off`, { cause: thrown });
}
