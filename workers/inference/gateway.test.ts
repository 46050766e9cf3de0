/** What the API gateway keeps of calls that were answered, and paid for. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import type { Caller } from "../../bus/call.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { ApiInferRequest, type ApiGatewayDefinition } from "../../contracts/gen/aios/api_gateway.ts";
import type { CallContext, Handlers } from "../../contracts/handlers.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import { startVendors, type Vendors } from "../../test/inference/vendors.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { gatewayHandlers } from "./gateway.ts";
import { loadPrices } from "./prices.ts";
import { Providers } from "./providers.ts";
import { Spending, type Call } from "./spending.ts";

/** A log that keeps, or one that is away for longer than anybody waits. */
class Log extends Spending {
  readonly kept: Call[] = [];
  away = false;

  constructor() {
    super({} as Bus);
  }

  override async record(_tenant: string, call: Call): Promise<void> {
    if (this.away) throw new BeamlineError("unavailable", "the bus is away");
    this.kept.push(call);
  }
}

let vendors: Vendors;
beforeAll(async () => void (vendors = await startVendors()));
afterAll(() => vendors?.[Symbol.asyncDispose]());

const context: CallContext = {
  tenant: "acme",
  principal: "",
  scopes: [],
  traceparent: "",
  deadline: Date.now() + 60_000,
  signal: new AbortController().signal,
  headers: {},
  subject: "",
};

function gateway(spending: Spending): Handlers<typeof ApiGatewayDefinition> {
  const { url } = vendors;
  return gatewayHandlers({
    providers: new Providers({} as Caller, {
      openai: { apiKey: "sk-openai-test", baseUrl: `${url}/v1`, model: "gpt-4o" },
      claude: { apiKey: "sk-anthropic-test", baseUrl: url, model: "claude-sonnet-4-20250514" },
      qwen3: { apiKey: undefined, baseUrl: undefined, model: "" },
      local: { baseUrl: undefined, model: "" },
      demo: [],
    }),
    spending,
    prices: loadPrices(),
    replies: { find: () => Promise.resolve(undefined), keep: () => Promise.resolve() },
    clock: systemClock,
    log: silentLogger,
    budgets: { claude: 1, openai: 1 },
    demo: false,
  });
}

verifies(
  "effect-once",
  "G4: an answer whose call cannot be kept is not asked of, and paid to, the next provider",
  async () => {
    const log = new Log();
    log.away = true;
    const handlers = gateway(log);
    const before = vendors.seen.length;
    const request = ApiInferRequest.fromPartial({ prompt: "hi", preferred_provider: "claude", allow_fallback: true });
    await expect(handlers.infer(request, context)).rejects.toMatchObject({ code: "unavailable" });
    expect(vendors.seen).toHaveLength(before + 1);
    const streamed = async (): Promise<void> => {
      for await (const _ of handlers.streamInfer(request, context));
    };
    await expect(streamed()).rejects.toMatchObject({ code: "unavailable" });
    expect(vendors.seen).toHaveLength(before + 2);
  },
);

test("tokens that a server counts in odd ways count as whole numbers, or not at all", async () => {
  const log = new Log();
  const request = ApiInferRequest.fromPartial({ prompt: "odd", preferred_provider: "openai" });
  expect(await gateway(log).infer(request, context)).toMatchObject({ text: "echo: odd", tokens_used: 2 });
  expect(log.kept).toMatchObject([{ input_tokens: 0, output_tokens: 2 }]);
  const claude = ApiInferRequest.fromPartial({ prompt: "odd", preferred_provider: "claude" });
  expect(await gateway(log).infer(claude, context)).toMatchObject({ text: "claude: odd", tokens_used: 0 });
  expect(log.kept.at(-1)).toMatchObject({ input_tokens: 0, output_tokens: 0, cost_micros: 0 });
});
