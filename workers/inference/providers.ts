/**
 * Which adapter answers for a provider id: `openai`, `openai:gpt-4o`, `claude`, `local`, `demo`, or any id an outside program serves. What stands
 * behind the colon is the model. A known name that is not configured here is looked for on the bus as well.
 */
import type { Caller } from "../../bus/call.ts";
import { invalidArgument } from "../../contracts/errors.ts";
import { anthropicProvider } from "./provider.anthropic.ts";
import { DEMO, demoProvider } from "./provider.demo.ts";
import { natsProvider } from "./provider.nats.ts";
import { openAiProvider } from "./provider.openai.ts";
import { ProviderFailure, type Provider } from "./provider.ts";

export interface ProviderConfig {
  readonly openai: {
    readonly apiKey: string | undefined;
    readonly baseUrl: string | undefined;
    readonly model: string;
  };
  readonly claude: {
    readonly apiKey: string | undefined;
    readonly baseUrl: string | undefined;
    readonly model: string;
  };
  readonly qwen3: { readonly apiKey: string | undefined; readonly baseUrl: string | undefined; readonly model: string };
  readonly local: { readonly baseUrl: string | undefined; readonly model: string };
  /** Ids the deterministic provider answers for besides its own. */
  readonly demo: readonly string[];
}

export interface Resolved {
  readonly provider: Provider;
  /** Empty for the adapter's own default. */
  readonly model: string;
}

const aliases: Readonly<Record<string, string>> = { anthropic: "claude", qwen: "qwen3" };
const names: Readonly<Record<string, string>> = { openai: "OpenAI", claude: "Claude", qwen3: "Qwen3", local: "Local" };

export class Providers {
  readonly #caller: Caller;
  readonly #own = new Map<string, Provider>();

  constructor(caller: Caller, { openai, claude, qwen3, local, demo }: ProviderConfig) {
    this.#caller = caller;
    this.#own.set(DEMO, demoProvider);
    if (openai.apiKey !== undefined)
      this.#own.set("openai", openAiProvider({ family: "openai", name: "OpenAI", ...openai }));
    if (claude.apiKey !== undefined) this.#own.set("claude", anthropicProvider({ ...claude, apiKey: claude.apiKey }));
    if (qwen3.apiKey !== undefined && qwen3.baseUrl !== undefined)
      this.#own.set(
        "qwen3",
        openAiProvider({ family: "qwen3", name: "Qwen3", ...qwen3, baseUrl: withV1(qwen3.baseUrl) }),
      );
    if (local.baseUrl !== undefined)
      this.#own.set(
        "local",
        openAiProvider({
          family: "local",
          name: "the local model server",
          apiKey: undefined,
          baseUrl: withV1(local.baseUrl),
          model: local.model,
        }),
      );
    for (const id of demo) this.#own.set(id, demoProvider);
  }

  /** Whether the name is configured here. */
  has(name: string): boolean {
    return this.#own.has(aliases[name] ?? name);
  }

  /** The adapter configured here. Throws `ProviderFailure` for one that is not. */
  own(name: string): Provider {
    const id = aliases[name] ?? name;
    const found = this.#own.get(id);
    if (found !== undefined) return found;
    const known = names[id];
    throw new ProviderFailure(
      "RESOURCE_UNAVAILABLE",
      known === undefined ? `Unknown provider: ${name}` : `${known} API key not configured`,
      { retryable: false },
    );
  }

  /** Throws `invalid_argument` for an id that can be none. */
  resolve(providerId: string, version = "v1"): Resolved {
    const at = providerId.indexOf(":");
    const name = at < 0 ? providerId : providerId.slice(0, at);
    const model = at < 0 ? "" : providerId.slice(at + 1);
    const own = this.#own.get(aliases[name] ?? name);
    if (own !== undefined) return { provider: own, model };
    if (!/^[A-Za-z0-9_-]{1,255}$/.test(name))
      throw invalidArgument("provider_id", "must begin with letters, digits, dashes or underscores");
    if (!/^v\d{1,3}$/.test(version)) throw invalidArgument("parameters.provider_version", "must be v1, v2, ...");
    return { provider: natsProvider(this.#caller, name, version), model };
  }
}

/** OpenAI-compatible servers answer below `/v1`; their addresses are often given without it. */
export function withV1(url: string): string {
  const bare = url.replace(/\/+$/, "");
  return /\/v\d+$/.test(bare) ? bare : `${bare}/v1`;
}
