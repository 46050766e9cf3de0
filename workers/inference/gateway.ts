/**
 * `aios.api_gateway.ApiGateway`: hosted models behind monthly budgets (aiOS, API gateway).
 *
 * G1 The budget is looked at first: when the budgets of Claude and OpenAI are both spent, everything is refused, also what was answered before.
 * G2 An answer is remembered for an hour by everything that shaped it; what is remembered costs nothing and is not a call.
 * G3 With `allow_fallback` the other providers are asked in the contract's order; without it the first failure is final.
 * G4 A call is kept in the log once it was answered, when the bus is away as soon as it is back; that it cannot be kept is no reason to ask, and pay,
 *    another provider.
 */
import { hash } from "node:crypto";
import { BeamlineError } from "../../contracts/errors.ts";
import { dollarsOf } from "../../contracts/execution/usage.ts";
import type { ApiGatewayDefinition, ApiInferRequest } from "../../contracts/gen/aios/api_gateway.ts";
import type { CallContext, Handlers } from "../../contracts/handlers.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import { inWholeCharacters } from "./pieces.ts";
import { costOf, familyPrice, splitTokens, type PriceTable } from "./prices.ts";
import { DEMO } from "./provider.demo.ts";
import { ProviderFailure, type Answer, type Question } from "./provider.ts";
import type { Providers } from "./providers.ts";
import type { Replies } from "./replies.redis.ts";
import type { Spending } from "./spending.ts";

export interface GatewayPorts {
  readonly providers: Providers;
  readonly spending: Spending;
  readonly prices: PriceTable;
  readonly replies: Replies;
  readonly clock: Clock;
  readonly log: Logger;
  /** Monthly budgets, integer micro-dollars per tenant. */
  readonly budgets: { readonly claude: number; readonly openai: number };
  /** Whether the deterministic provider answers when nothing else is configured. */
  readonly demo: boolean;
}

const MAX_TOKENS = 4_096;
const TEMPERATURE = 0.3;
const DAY_MS = 24 * 60 * 60 * 1000;

/** Who is asked after whom; an unknown name falls back to the local server alone. */
const fallbacks: Readonly<Record<string, readonly string[]>> = {
  claude: ["openai", "qwen3", "local"],
  openai: ["claude", "qwen3", "local"],
  qwen3: ["claude", "openai", "local"],
  local: ["qwen3", "claude", "openai"],
};

export function gatewayHandlers(ports: GatewayPorts): Handlers<typeof ApiGatewayDefinition> {
  const { spending, budgets, clock } = ports;
  return {
    async infer(request, context) {
      const started = clock.monotonic();
      refuseWithoutBudget(ports, context.tenant);
      const key = cacheKey(request);
      const kept = await ports.replies.find(context.tenant, key);
      const { text, model, tokens } =
        kept === undefined ? await askAny(ports, request, context, key) : (JSON.parse(kept) as Answer);
      const { input, output } = splitTokens(tokens);
      return {
        text,
        tokens_used: tokens.total ?? input + output,
        latency_ms: BigInt(Math.round(clock.monotonic() - started)),
        model_used: model,
        intelligence_level: "strategic",
      };
    },

    async *streamInfer(request, context) {
      refuseWithoutBudget(ports, context.tenant);
      const key = cacheKey(request);
      const kept = await ports.replies.find(context.tenant, key);
      if (kept !== undefined) {
        const { text, provider } = JSON.parse(kept) as Answer & { provider: string };
        yield { text, done: true, provider };
        return;
      }
      let failure: unknown = new ProviderFailure("RESOURCE_UNAVAILABLE", "no provider");
      for (const name of candidates(ports, request, context.tenant)) {
        let text = "";
        let end: Omit<Answer, "text"> | undefined;
        try {
          for await (const piece of inWholeCharacters(
            ports.providers.own(name).stream(questionOf(request, context, name), context.signal),
          )) {
            if ("text" in piece) {
              text += piece.text;
              yield { text: piece.text, done: false, provider: name };
            } else end = piece.end;
          }
        } catch (thrown) {
          if (context.signal.aborted) throw thrown;
          failure = thrown;
          // What was said cannot be taken back.
          if (text !== "") break;
          continue;
        }
        if (end !== undefined) await settle(ports, request, context, name, { ...end, text }, key);
        yield { text: "", done: true, provider: name };
        return;
      }
      throw failed(failure, ports.log);
    },

    getBudget(_request, context) {
      const now = clock.now();
      const day = new Date(now).getUTCDate();
      const claude = spending.spent(context.tenant, "claude", now);
      const openai = spending.spent(context.tenant, "openai", now);
      return Promise.resolve({
        claude_monthly_budget_usd: dollarsOf(budgets.claude),
        claude_used_usd: dollarsOf(claude),
        openai_monthly_budget_usd: dollarsOf(budgets.openai),
        openai_used_usd: dollarsOf(openai),
        days_remaining: Math.max(0, 30 - day),
        daily_rate_usd: dollarsOf(claude + openai) / day,
        budget_exceeded: exhausted(ports, context.tenant),
      });
    },

    async getUsage({ provider, days }, context) {
      const since = clock.now() - (days > 0 ? days : 30) * DAY_MS;
      const calls = (await spending.calls(context.tenant, since, context.signal)).filter(
        (call) => provider === "" || call.provider === provider,
      );
      let micros = 0;
      let tokens = 0;
      const records = calls.map(({ cost_micros, at_ms, ...call }) => {
        micros += cost_micros;
        tokens += call.input_tokens + call.output_tokens;
        return { ...call, cost_usd: dollarsOf(cost_micros), timestamp: BigInt(Math.floor(at_ms / 1000)) };
      });
      return { records, total_cost_usd: dollarsOf(micros), total_requests: records.length, total_tokens: tokens };
    },
  };
}

function exhausted({ spending, budgets, clock }: GatewayPorts, tenant: string): boolean {
  const now = clock.now();
  return (
    spending.spent(tenant, "claude", now) >= budgets.claude && spending.spent(tenant, "openai", now) >= budgets.openai
  );
}

/** G1. */
function refuseWithoutBudget(ports: GatewayPorts, tenant: string): void {
  if (exhausted(ports, tenant)) throw new BeamlineError("resource_exhausted", "API budget exceeded");
}

/** The provider asked first, and with `allow_fallback` those after it. */
function candidates(ports: GatewayPorts, request: ApiInferRequest, tenant: string): readonly string[] {
  const first = request.preferred_provider || chosen(ports, tenant);
  return request.allow_fallback ? [first, ...(fallbacks[first] ?? ["local"])] : [first];
}

function chosen({ providers, spending, budgets, clock, demo }: GatewayPorts, tenant: string): string {
  const now = clock.now();
  for (const name of ["claude", "openai"] as const) {
    if (providers.has(name) && spending.spent(tenant, name, now) < budgets[name]) return name;
  }
  return demo && !providers.has("local") ? DEMO : "local";
}

/** G3. */
async function askAny(
  ports: GatewayPorts,
  request: ApiInferRequest,
  context: CallContext,
  key: string,
): Promise<Answer> {
  let failure: unknown;
  for (const name of candidates(ports, request, context.tenant)) {
    let answer: Answer;
    try {
      answer = await ports.providers.own(name).ask(questionOf(request, context, name), context.signal);
    } catch (thrown) {
      if (context.signal.aborted) throw thrown;
      failure = thrown;
      continue;
    }
    await settle(ports, request, context, name, answer, key);
    return answer;
  }
  throw failed(failure, ports.log);
}

/** G4: the call is kept, then the answer. Throws `unavailable`. */
async function settle(
  ports: GatewayPorts,
  request: ApiInferRequest,
  { tenant }: CallContext,
  provider: string,
  answer: Answer,
  key: string,
): Promise<void> {
  const { spending, prices, clock, replies } = ports;
  const { input, output } = splitTokens(answer.tokens);
  await spending.record(tenant, {
    provider,
    model: answer.model,
    input_tokens: input,
    output_tokens: output,
    cost_micros: costOf(familyPrice(prices, provider), answer.tokens),
    at_ms: clock.now(),
    requesting_agent: request.requesting_agent,
    task_id: request.task_id,
  });
  await replies.keep(tenant, key, JSON.stringify({ ...answer, provider })); // G2
}

function questionOf(request: ApiInferRequest, { tenant, traceparent }: CallContext, provider: string): Question {
  const { prompt, system_prompt, max_tokens, temperature } = request;
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
    json: provider !== "claude" && /valid JSON|JSON object/.test(prompt),
    tenant,
    traceId: traceparent.split("-")[1] ?? "",
    labels: {},
  };
}

function cacheKey({ prompt, system_prompt, preferred_provider, max_tokens, temperature }: ApiInferRequest): string {
  return `gateway-${hash("sha256", JSON.stringify([prompt, system_prompt, preferred_provider, max_tokens, temperature]), "hex")}`;
}

function failed(thrown: unknown, log: Logger): BeamlineError {
  if (thrown instanceof ProviderFailure) return new BeamlineError("internal", `API request failed: ${thrown.message}`);
  log.error("a provider adapter failed", { error: thrown });
  return new BeamlineError("internal", "API request failed: internal error");
}
