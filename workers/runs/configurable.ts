/** Run options (OpenWOP, run options): the reserved keys of `configurable`, and what a workflow says about it. */
import { BeamlineError } from "../../contracts/errors.ts";
import { isObject, textOr, type Json } from "../../contracts/openwop/json.ts";
import type { WorkflowDefinition } from "../../contracts/openwop/workflow.ts";
import { invalid } from "./body.ts";
import { isTest, type Asker } from "./caller.ts";
import { MOCK_PROVIDERS } from "./nodes/mock.ts";
import { conform } from "./engine/schemas.ts";

type Rule = (value: unknown) => boolean;

const whole =
  (min: number): Rule =>
  (value) =>
    typeof value === "number" && Number.isSafeInteger(value) && value >= min;
const between =
  (min: number, max: number): Rule =>
  (value) =>
    typeof value === "number" && value >= min && value <= max;
const someText: Rule = (value) => typeof value === "string" && value !== "";

const reserved: Readonly<Record<string, readonly [Rule, string]>> = {
  recursionLimit: [whole(1), "a whole number of at least 1"],
  runTimeoutMs: [whole(1), "a whole number of at least 1"],
  maxLoopIterations: [whole(1), "a whole number of at least 1"],
  model: [someText, "a text"],
  temperature: [between(0, 2), "a number from 0 to 2"],
  maxTokens: [whole(1), "a whole number of at least 1"],
  promptOverrides: [
    (value) => isObject(value) && Object.values(value).every((one) => typeof one === "string"),
    "an object of texts",
  ],
  escalationThreshold: [between(0, 1), "a number from 0 to 1"],
  reasoningVerbosity: [
    (value) => value === "summary" || value === "full" || value === "off",
    "one of summary, full, off",
  ],
  "ai.model": [someText, "a text"],
};

/** Throws `validation_error`, `credential_forbidden`, `mock_provider_forbidden`, `unsupported_mock_provider`. */
export function checkConfigurable(
  _ports: unknown,
  asker: Asker,
  definition: WorkflowDefinition,
  configurable: Json,
): void {
  for (const [key, [rule, what]] of Object.entries(reserved)) {
    if (configurable[key] !== undefined && !rule(configurable[key]))
      throw invalid(`configurable.${key}`, `must be ${what}`);
  }
  // No provider takes credentials of the caller; one that was ignored would have somebody else pay.
  if (configurable["ai.credentialRef"] !== undefined) {
    throw new BeamlineError("credential_forbidden", "providers here take no credential of the caller", {
      field: "configurable.ai.credentialRef",
      details: { provider: textOr(configurable["ai.provider"], "") },
    });
  }
  if (configurable["ai.provider"] !== undefined)
    throw invalid("configurable.ai.provider", "names no provider of discovery: none is advertised");
  const strange = Object.keys(configurable).find((key) => key.startsWith("ai.") && key !== "ai.model");
  if (strange !== undefined)
    throw invalid(`configurable.${strange}`, "is not known: names that begin with ai. are reserved");
  const mock = configurable["mockProvider"];
  if (mock !== undefined) {
    if (!isObject(mock) || typeof mock["id"] !== "string")
      throw invalid("configurable.mockProvider", "must be {id, config?}");
    if (!isTest(asker)) {
      throw new BeamlineError("mock_provider_forbidden", "mock providers are for test keys", {
        details: { requestedProvider: mock["id"], supportedProviders: MOCK_PROVIDERS },
      });
    }
    if (!MOCK_PROVIDERS.includes(mock["id"])) {
      throw new BeamlineError("unsupported_mock_provider", `there is no mock provider ${mock["id"]}`, {
        details: { requestedProvider: mock["id"], supportedProviders: MOCK_PROVIDERS },
      });
    }
  }
  if (definition.configurableSchema !== undefined) conform(definition.configurableSchema, configurable, "configurable");
}
