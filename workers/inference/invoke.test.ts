/** Calls of providers that are asked twice at a time, against a server that speaks OpenAI's language. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Caller } from "../../bus/call.ts";
import { ProviderRequest } from "../../contracts/gen/beamline/provider/v1/provider.ts";
import type { CallContext } from "../../contracts/handlers.ts";
import { executionMetrics } from "../../runtime/beamline.metrics.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { startVendors, type Vendors } from "../../test/inference/vendors.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { providerHandlers } from "./invoke.ts";
import { loadPrices } from "./prices.ts";
import { Providers } from "./providers.ts";

let vendors: Vendors;
beforeAll(async () => void (vendors = await startVendors()));
afterAll(() => vendors?.[Symbol.asyncDispose]());

/** A worker whose hot state is away: it keeps nothing. */
function worker(): (body: string, signal?: AbortSignal) => Promise<{ readonly metadata?: unknown }> {
  const model = { apiKey: undefined, baseUrl: undefined, model: "" };
  const { invoke } = providerHandlers({
    providers: new Providers({} as Caller, {
      openai: { apiKey: "sk-openai-test", baseUrl: `${vendors.url}/v1`, model: "gpt-4o" },
      claude: model,
      qwen3: model,
      local: model,
      demo: [],
    }),
    prices: loadPrices(),
    replies: { find: () => Promise.resolve(undefined), keep: () => Promise.resolve() },
    metrics: createRegistry().use(executionMetrics),
    clock: systemClock,
    log: silentLogger,
  });
  return async (body, signal = new AbortController().signal) => {
    const context: CallContext = {
      tenant: "acme",
      principal: "",
      scopes: [],
      traceparent: "",
      deadline: Date.now() + 60_000,
      signal,
      headers: { idempotency_key: "k" },
      subject: "",
    };
    const request = { provider_id: "openai", message_id: "m", tenant_id: "acme", body: Buffer.from(body) };
    return invoke(ProviderRequest.fromPartial(request), context);
  };
}

verifies("effect-once", "V3: what is asked again while its answer is waited for asks the provider once", async () => {
  const call = worker();
  const before = vendors.seen.length;
  const first = call("held one");
  await until(() => vendors.seen.length > before, "the question");
  const again = call("held one");
  const other = expect(call("held two")).rejects.toMatchObject({ field: "idempotency_key" });
  const left = new AbortController();
  const gone = expect(call("held one", left.signal)).rejects.toThrow("left");
  left.abort(new Error("left"));
  await gone;
  vendors.release();
  expect(await first).toMatchObject({ status: "success" });
  expect(await again).toMatchObject({ status: "success", metadata: { replayed: "true" } });
  await other;
  expect(vendors.seen).toHaveLength(before + 1);
});

verifies("effect-once", "V3: who waited for an answer that failed asks itself", async () => {
  const call = worker();
  const before = vendors.seen.length;
  const answers = await Promise.all([call("status 500"), call("status 500")]);
  expect(answers).toMatchObject([{ status: "error" }, { status: "error" }]);
  expect(vendors.seen).toHaveLength(before + 2);
});
