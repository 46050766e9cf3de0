/**
 * The policy document, JSON-DSL v1.0 (BeamLine, policy document): its shape and how one is read. Unknown top-level keys are refused, as the
 * schema says; every mistake names its field. A document is kept as it was written, so that what is read back is what was put.
 *
 * Beyond the contract: a provider may say what it is expected to take and cost (`expected_latency_ms`, `expected_cost`, US dollars), and a
 * fallback may name providers to try before `to` (`prefer`, the admin form has it); `defaults` may choose the algorithm.
 */
import { BeamlineError, invalidArgument } from "../../../contracts/errors.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { compileWhen } from "./match.ts";
import { boolean, choice, integer, known, list, number, object, optional, text } from "./fields.ts";

/** How a provider is chosen among the candidates. `defaults.algorithm` of a policy; round robin when it says nothing. */
export const algorithms = ["weighted_round_robin", "best_score"] as const;
export type Algorithm = (typeof algorithms)[number];

export interface ProviderEntry {
  readonly name: string;
  /** 0 to 100, or a fraction 0 to 1 when some weight of the list is a fraction. */
  readonly weight: number;
  /** Breaks ties: of two candidates whose turn it is, the higher goes first. Default 0. */
  readonly priority?: number;
  readonly expected_latency_ms?: number;
  readonly expected_cost?: number;
}

export interface Backoff {
  /** Default `exponential`. */
  readonly strategy?: "exponential" | "linear" | "fixed";
  /** Default 100. */
  readonly base_ms?: number;
  /** Default 5000. */
  readonly max_ms?: number;
  /** Up to a tenth more. Default true. */
  readonly jitter?: boolean;
}

export interface FallbackEntry {
  readonly when?: Readonly<JsonObject>;
  readonly to?: string;
  readonly prefer?: readonly string[];
  /** Tries on the current provider before `to`. Default 1. */
  readonly retry?: number;
  readonly backoff?: Backoff;
}

export interface StickyEntry {
  readonly enabled?: boolean;
  /** Context key whose value is the session. Default `session_id`. */
  readonly session_key?: string;
  /** `30s`, `10m`, `1h`; text that is none of these means the default of an hour. */
  readonly ttl?: string;
  readonly ttl_seconds?: number;
}

export interface ExtensionEntry {
  readonly id: string;
  readonly mode?: "required" | "optional";
  readonly on_fail?: "block" | "warn" | "ignore";
  readonly config?: Readonly<JsonObject>;
  readonly timeout_ms?: number;
  readonly retry?: number;
  readonly when?: Readonly<JsonObject>;
}

export interface BreakerEntry {
  readonly enabled?: boolean;
  readonly failure_threshold?: number;
  readonly success_threshold?: number;
  readonly timeout_ms?: number;
  readonly half_open_max_calls?: number;
  readonly error_rate_threshold?: number;
  readonly error_rate_window_seconds?: number;
  readonly latency_threshold_ms?: number;
}

export interface PolicyDocument {
  readonly version: string;
  readonly providers?: readonly ProviderEntry[];
  readonly weights?: Readonly<Record<string, number>>;
  readonly fallbacks?: readonly FallbackEntry[];
  readonly fallback?: { readonly provider: string; readonly conditions?: readonly string[] };
  readonly sticky?: StickyEntry;
  readonly pre?: readonly ExtensionEntry[];
  readonly validators?: readonly ExtensionEntry[];
  readonly post?: readonly ExtensionEntry[];
  readonly circuit_breaker?: BreakerEntry;
  readonly rate_limit?: { readonly enabled?: boolean; readonly requests_per_second?: number; readonly burst?: number };
  readonly defaults?: Readonly<JsonObject>;
  readonly timeout_ms?: number;
  readonly health_check?: Readonly<JsonObject>;
  readonly escalate_on?: unknown;
  readonly metadata?: Readonly<JsonObject>;
}

/** Most of each thing a policy may have (BeamLine, limits; extensions pipeline). */
export const limits = { policies: 10, rules: 50, providers: 20, extensions: 10, extensionsPerList: 5 } as const;

const idPattern = /^[a-zA-Z0-9_.:-]{1,255}$/;
const providerPattern = /^[\w.:/@+-]{1,255}$/;

/** Checks the id of a policy; colons are taken although the published class leaves them out, since its samples have them. */
export function checkPolicyId(id: string, path: string): void {
  if (id === "") throw invalidArgument(path, "must not be empty");
  if (!idPattern.test(id))
    throw invalidArgument(path, "must be 1 to 255 letters, digits, dots, colons, dashes or underscores");
}

const topLevel =
  "version providers weights fallbacks fallback sticky pre validators post circuit_breaker rate_limit timeout_ms health_check defaults escalate_on metadata".split(
    " ",
  );

/**
 * A document as it may be stored. `path` is put before every field an error names, dot included (`policy.`).
 * Throws `invalid_argument`, and `quota_exceeded` for more providers or rules than a policy may have.
 */
export function readPolicy(json: unknown, path = ""): PolicyDocument {
  const policy = object(json, path === "" ? "policy" : path.slice(0, -1));
  known(policy, topLevel, path);
  const version = text(policy["version"], `${path}version`);
  if (!/^[0-9]+\.[0-9]+$/.test(version)) throw invalidArgument(`${path}version`, "must look like 1.0");
  if (policy["providers"] === undefined && policy["weights"] === undefined) {
    throw invalidArgument(`${path}providers`, "is missing: a policy needs providers or weights");
  }
  optional(policy["providers"], (value) => readProviders(value, `${path}providers`));
  optional(policy["weights"], (value) => readWeights(value, `${path}weights`));
  optional(policy["fallbacks"], (value) => readFallbacks(value, `${path}fallbacks`));
  optional(policy["fallback"], (value) => {
    const fallback = object(value, `${path}fallback`);
    providerName(fallback["provider"], `${path}fallback.provider`);
    optional(fallback["conditions"], (conditions) =>
      list(conditions, `${path}fallback.conditions`).forEach((one, i) => text(one, `${path}fallback.conditions[${i}]`)),
    );
  });
  optional(policy["sticky"], (value) => readSticky(value, `${path}sticky`));
  readPipeline(policy, path);
  optional(policy["circuit_breaker"], (value) => readBreaker(value, `${path}circuit_breaker`));
  optional(policy["rate_limit"], (value) => {
    const limit = object(value, `${path}rate_limit`);
    optional(limit["enabled"], (one) => boolean(one, `${path}rate_limit.enabled`));
    for (const key of ["requests_per_second", "burst"])
      optional(limit[key], (one) => integer(one, `${path}rate_limit.${key}`, 1, 1_000_000));
  });
  optional(policy["defaults"], (value) => {
    const algorithm = object(value, `${path}defaults`)["algorithm"];
    optional(algorithm, (one) => choice(one, algorithms, `${path}defaults.algorithm`));
  });
  for (const key of ["health_check", "metadata"]) optional(policy[key], (value) => object(value, path + key));
  optional(policy["timeout_ms"], (value) => integer(value, `${path}timeout_ms`, 1, Number.MAX_SAFE_INTEGER));
  return policy as unknown as PolicyDocument;
}

function readProviders(json: unknown, path: string): void {
  const providers = list(json, path);
  if (providers.length === 0) throw invalidArgument(path, "must name at least one provider");
  quota(providers.length, limits.providers, "providers", path);
  const seen = new Set<string>();
  for (const [i, one] of providers.entries()) {
    const at = `${path}[${i}]`;
    const provider = object(one, at);
    const name = providerName(provider["name"], `${at}.name`);
    if (seen.has(name)) throw invalidArgument(`${at}.name`, `names ${name} a second time`);
    seen.add(name);
    const weight = number(provider["weight"], `${at}.weight`, 0, 100);
    if (weight > 1 && !Number.isInteger(weight))
      throw invalidArgument(`${at}.weight`, "must be a whole number from 0 to 100 or a fraction from 0 to 1");
    optional(provider["priority"], (value) => number(value, `${at}.priority`, -1_000_000, 1_000_000));
    for (const key of ["expected_latency_ms", "expected_cost"])
      optional(provider[key], (value) => number(value, `${at}.${key}`, 0, 1e12));
  }
}

function readWeights(json: unknown, path: string): void {
  const weights = object(json, path);
  const names = Object.keys(weights);
  if (names.length === 0) throw invalidArgument(path, "must name at least one provider");
  quota(names.length, limits.providers, "providers", path);
  for (const name of names) {
    providerName(name, path);
    number(weights[name], `${path}.${name}`, 0, 100);
  }
}

function readFallbacks(json: unknown, path: string): void {
  const fallbacks = list(json, path);
  quota(fallbacks.length, limits.rules, "rules", path);
  for (const [i, one] of fallbacks.entries()) {
    const at = `${path}[${i}]`;
    const rule = object(one, at);
    compileWhen(rule["when"], `${at}.when`);
    const prefer = rule["prefer"] === undefined ? [] : list(rule["prefer"], `${at}.prefer`);
    prefer.forEach((name, n) => providerName(name, `${at}.prefer[${n}]`));
    if (prefer.length === 0 || rule["to"] !== undefined) providerName(rule["to"], `${at}.to`);
    optional(rule["retry"], (value) => integer(value, `${at}.retry`, 0, 10));
    optional(rule["backoff"], (value) => readBackoff(object(value, `${at}.backoff`), `${at}.backoff`));
  }
}

function readBackoff(backoff: JsonObject, path: string): void {
  optional(backoff["strategy"], (value) => choice(value, ["exponential", "linear", "fixed"], `${path}.strategy`));
  optional(backoff["base_ms"], (value) => number(value, `${path}.base_ms`, 0, 10_000));
  optional(backoff["max_ms"], (value) => number(value, `${path}.max_ms`, 0, 60_000));
  optional(backoff["jitter"], (value) => boolean(value, `${path}.jitter`));
}

function readSticky(json: unknown, path: string): void {
  const sticky = object(json, path);
  optional(sticky["enabled"], (value) => boolean(value, `${path}.enabled`));
  optional(sticky["session_key"], (value) => text(value, `${path}.session_key`, 255));
  optional(sticky["ttl"], (value) => text(value, `${path}.ttl`));
  optional(sticky["ttl_seconds"], (value) => integer(value, `${path}.ttl_seconds`, 1, 86_400));
}

function readPipeline(policy: JsonObject, path: string): void {
  let total = 0;
  for (const key of ["pre", "validators", "post"]) {
    if (policy[key] === undefined) continue;
    const items = list(policy[key], path + key);
    total += items.length;
    if (items.length > limits.extensionsPerList)
      throw invalidArgument(path + key, `must have at most ${limits.extensionsPerList} extensions`);
    for (const [i, one] of items.entries())
      readExtension(object(one, `${path}${key}[${i}]`), `${path}${key}[${i}]`, key);
  }
  if (total > limits.extensions)
    throw invalidArgument(
      `${path}pre`,
      `, validators and post must have at most ${limits.extensions} extensions together`,
    );
}

function readExtension(item: JsonObject, path: string, listName: string): void {
  text(item["id"], `${path}.id`, 255);
  if (listName === "validators")
    optional(item["on_fail"], (value) => choice(value, ["block", "warn", "ignore"], `${path}.on_fail`));
  else optional(item["mode"], (value) => choice(value, ["required", "optional"], `${path}.mode`));
  optional(item["config"], (value) => object(value, `${path}.config`));
  optional(item["timeout_ms"], (value) => integer(value, `${path}.timeout_ms`, 10, 5_000));
  optional(item["retry"], (value) => integer(value, `${path}.retry`, 0, 3));
  compileWhen(item["when"], `${path}.when`);
}

const breakerRanges = {
  failure_threshold: [1, 100],
  success_threshold: [1, 10],
  timeout_ms: [1_000, 300_000],
  half_open_max_calls: [1, 100],
  error_rate_window_seconds: [1, 3_600],
  latency_threshold_ms: [1, 3_600_000],
} as const;

function readBreaker(json: unknown, path: string): void {
  const breaker = object(json, path);
  optional(breaker["enabled"], (value) => boolean(value, `${path}.enabled`));
  for (const [key, [min, max]] of Object.entries(breakerRanges))
    optional(breaker[key], (value) => integer(value, `${path}.${key}`, min, max));
  optional(breaker["error_rate_threshold"], (value) => number(value, `${path}.error_rate_threshold`, 0, 1));
}

function providerName(value: unknown, path: string): string {
  const name = text(value, path, 255);
  if (!providerPattern.test(name))
    throw invalidArgument(
      path,
      `${JSON.stringify(name)} is not a provider name: letters, digits and _ . : / @ + - only`,
    );
  return name;
}

function quota(count: number, max: number, what: string, path: string): void {
  if (count > max)
    throw new BeamlineError("quota_exceeded", `Policy quota exceeded. Maximum ${what}: ${max}`, {
      field: path,
      details: { limit: max },
    });
}
