/** Claude, through Anthropic's Messages API. */
import Anthropic, {
  APIConnectionError,
  APIConnectionTimeoutError,
  APIError,
  APIUserAbortError,
} from "@anthropic-ai/sdk";
import { redactErrorText } from "../../runtime/redact.ts";
import {
  failureOfStatus,
  ProviderFailure,
  tokenCount,
  type Piece,
  type Provider,
  type Question,
  type Tokens,
} from "./provider.ts";

export interface AnthropicOptions {
  readonly apiKey: string;
  /** Undefined for Anthropic's own. */
  readonly baseUrl: string | undefined;
  readonly model: string;
}

/** The API wants a limit; what the aiOS gateway asks for when nobody says (aiOS, API gateway). */
const DEFAULT_MAX_TOKENS = 4_096;

export function anthropicProvider({ apiKey, baseUrl, model: ownModel }: AnthropicOptions): Provider {
  const client = new Anthropic({
    apiKey,
    authToken: null,
    baseURL: baseUrl ?? null,
    maxRetries: 0,
    timeout: 600_000,
    logLevel: "off",
  });

  const request = (question: Question) => {
    if (question.kind === "embedding") throw new ProviderFailure("INVALID_INPUT", "Claude has no embeddings");
    const system = question.turns.filter(({ role }) => role === "system").map(({ content }) => content);
    if (question.json) system.push("Answer with one JSON object and nothing else.");
    const messages = question.turns.flatMap(({ role, content }) => (role === "system" ? [] : [{ role, content }]));
    return {
      model: question.model || ownModel,
      max_tokens: question.maxTokens ?? DEFAULT_MAX_TOKENS,
      messages,
      ...(system.length > 0 && { system: system.join("\n\n") }),
      // Its scale ends at 1.
      ...(question.temperature !== undefined && { temperature: Math.min(1, question.temperature) }),
      ...(question.topP !== undefined && { top_p: question.topP }),
      ...(question.stop.length > 0 && { stop_sequences: [...question.stop] }),
    };
  };

  return {
    family: "claude",

    async ask(question, signal) {
      try {
        const reply = await client.messages.create({ ...request(question), stream: false }, { signal });
        const text = reply.content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("");
        return { text, model: reply.model, finish: reply.stop_reason ?? "", tokens: tokensOf(reply.usage) };
      } catch (thrown) {
        throw translated(thrown, signal);
      }
    },

    async *stream(question, signal): AsyncGenerator<Piece> {
      let model = question.model || ownModel;
      let finish = "";
      let tokens: Tokens = { input: undefined, output: undefined };
      try {
        const events = await client.messages.create({ ...request(question), stream: true }, { signal });
        for await (const event of events) {
          if (event.type === "message_start") {
            model = event.message.model;
            tokens = tokensOf(event.message.usage);
          } else if (event.type === "message_delta") {
            finish = event.delta.stop_reason ?? finish;
            tokens = { input: tokens.input, output: tokenCount(event.usage.output_tokens) };
          } else if (
            event.type === "content_block_delta" &&
            event.delta.type === "text_delta" &&
            event.delta.text !== ""
          ) {
            yield { text: event.delta.text };
          }
        }
        signal.throwIfAborted();
      } catch (thrown) {
        throw translated(thrown, signal);
      }
      yield { end: { model, finish, tokens } };
    },
  };
}

/** Tokens read from or written to the prompt cache are part of the question. */
function tokensOf(usage: {
  input_tokens: number;
  output_tokens: number;
  cache_creation_input_tokens?: number | null;
  cache_read_input_tokens?: number | null;
}): Tokens {
  const { input_tokens, cache_creation_input_tokens, cache_read_input_tokens, output_tokens } = usage;
  const parts = [input_tokens, cache_creation_input_tokens, cache_read_input_tokens];
  return {
    input: parts.reduce<number>((sum, part) => sum + (tokenCount(part) ?? 0), 0),
    output: tokenCount(output_tokens),
  };
}

function translated(thrown: unknown, signal: AbortSignal): unknown {
  if (thrown instanceof ProviderFailure) return thrown;
  if (signal.aborted || thrown instanceof APIUserAbortError) return signal.reason ?? thrown;
  if (thrown instanceof APIConnectionTimeoutError)
    return new ProviderFailure("CONNECTION_TIMEOUT", "Claude did not answer in time", { timeout: true, cause: thrown });
  if (thrown instanceof APIConnectionError)
    return new ProviderFailure("NETWORK_ERROR", "Claude cannot be reached", { cause: thrown });
  if (thrown instanceof APIError) {
    const status = thrown.status as number | undefined;
    return failureOfStatus(
      status ?? 500,
      `Claude answered ${status ?? "with an error"}: ${redactErrorText(thrown.message)}`,
      thrown,
    );
  }
  return new ProviderFailure("NETWORK_ERROR", "the answer of Claude broke off", { cause: thrown });
}
