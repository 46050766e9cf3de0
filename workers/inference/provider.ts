/** What a provider of answers is: one port, several adapters, and the words a question and an answer are made of. */
import type { StepErrorCode } from "../../contracts/execution/catalogue.ts";
import { stepErrors } from "../../contracts/execution/catalogue.ts";

export type Role = "system" | "user" | "assistant";

export interface Turn {
  readonly role: Role;
  readonly content: string;
}

/** A question, whatever form it came in. */
export interface Question {
  readonly kind: "chat" | "embedding";
  readonly turns: readonly Turn[];
  /** Texts to embed. */
  readonly inputs: readonly string[];
  /** Empty for the adapter's own default. */
  readonly model: string;
  /** Longest answer, tokens; undefined for the provider's own limit. */
  readonly maxTokens: number | undefined;
  readonly temperature: number | undefined;
  readonly topP: number | undefined;
  readonly stop: readonly string[];
  /** Whether the answer must be a JSON object. */
  readonly json: boolean;
  /** Where it comes from, for providers that are told. */
  readonly tenant: string;
  readonly traceId: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** Tokens a call used; undefined where the provider does not say. */
export interface Tokens {
  readonly input: number | undefined;
  readonly output: number | undefined;
  /** Only the sum is known. */
  readonly total?: number;
}

/** A count as a server gives it; undefined for what is none: servers of many hands speak the same language. */
export function tokenCount(given: unknown): number | undefined {
  return typeof given === "number" && given >= 0 && given <= MOST_TOKENS ? Math.round(given) : undefined;
}

const MOST_TOKENS = 2 ** 31 - 1;

export interface Answer {
  readonly text: string;
  readonly embeddings?: readonly (readonly number[])[];
  /** The model that answered, as it calls itself. */
  readonly model: string;
  /** `stop`, `length`, ... as the provider says. */
  readonly finish: string;
  readonly tokens: Tokens;
  /** Free labels for the caller. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** A piece of an answer; the last one carries what the answer as a whole was. */
export type Piece = { readonly text: string } | { readonly end: Omit<Answer, "text"> };

/** An adapter. Both methods throw `ProviderFailure`, and stop when the signal aborts. */
export interface Provider {
  /** Family the prices and budgets are looked up by: `openai`, `claude`, ... */
  readonly family: string;
  ask(question: Question, signal: AbortSignal): Promise<Answer>;
  /** Pieces as they come; ends with exactly one `end`. */
  stream(question: Question, signal: AbortSignal): AsyncIterable<Piece>;
}

/** A provider that failed, in the words of the error catalogue. The message holds no secrets. */
export class ProviderFailure extends Error {
  override readonly name = "ProviderFailure";
  readonly code: StepErrorCode;
  readonly retryable: boolean;
  readonly timeout: boolean;

  constructor(
    code: StepErrorCode,
    message: string,
    options: { retryable?: boolean; timeout?: boolean; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.code = code;
    this.timeout = options.timeout ?? false;
    this.retryable = options.retryable ?? stepErrors[code].retryable;
  }
}

/** What an HTTP status of a provider means. */
export function failureOfStatus(status: number, message: string, cause?: unknown): ProviderFailure {
  const make = (code: StepErrorCode, retryable?: boolean): ProviderFailure =>
    new ProviderFailure(code, message, { cause, ...(retryable !== undefined && { retryable }) });
  if (status === 401 || status === 403) return make("PERMISSION_DENIED");
  if (status === 402) return make("QUOTA_EXCEEDED", false);
  if (status === 408) return make("CONNECTION_TIMEOUT");
  if (status === 429) return make("QUOTA_EXCEEDED");
  if (status === 503 || status === 529) return make("SYSTEM_OVERLOAD");
  if (status >= 500) return make("RESOURCE_UNAVAILABLE");
  return make("INVALID_INPUT");
}
