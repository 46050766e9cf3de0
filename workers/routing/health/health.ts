/**
 * What the results of calls tell about providers, per tenant: how long calls take, what they cost, how often they fail, and the circuit that
 * follows (BeamLine, circuit breaker). Every worker keeps its own book from the same results; nothing here is asked of the network.
 *
 * H1 Averages are exponential: each result moves the estimate a fifth of the way, so twenty results forget what was before.
 * H2 `revision` changes only when a decision could: a circuit changed, or a published estimate moved by more than a twentieth. Between two
 *    results that agree, decisions reuse their words.
 * H3 A failure counts against the circuit only when it is the provider's: a timeout, or an error of the infrastructure kind. What a
 *    caller did wrong, and what was cancelled, says nothing.
 */
import type { ProviderHealth as Record } from "../../../contracts/execution/health.ts";
import type { Breaker } from "../policies/compile.ts";
import { Circuit } from "./circuit.ts";
import type { CircuitState, Estimate, ProviderHealth } from "../ports.ts";
import { Recent } from "../shared/recent.ts";

/** The outcome of one call to a provider, as a result reports it. */
export interface Outcome {
  readonly tenant: string;
  readonly provider: string;
  readonly status: "success" | "error" | "timeout" | "cancelled";
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly latencyMs: number;
  /** US dollars. */
  readonly cost: number;
}

export interface HealthOptions {
  /** Epoch milliseconds. */
  readonly now: () => number;
  /** Told of every change of a circuit. */
  readonly onCircuit?: (tenant: string, provider: string, from: CircuitState, to: CircuitState) => void;
  /** Told the share of failures after every result of a provider with a circuit. */
  readonly onErrorRate?: (tenant: string, provider: string, rate: number) => void;
  /** Pairs of tenant and provider kept at least. Default 20 000. */
  readonly limit?: number;
}

const STEP = 0.2;
const NOTEWORTHY = 0.05;
/** Results told to a circuit at a time; more of the same change nothing. */
const MOST_AT_ONCE = 1_000;

interface Page {
  latencyMs: number | undefined;
  cost: number | undefined;
  /** Share of failures, averaged like the rest. */
  errors: number;
  /** What decisions see. */
  published: Estimate;
  circuit: Circuit | undefined;
  /** What the usage workers said last. */
  record: Record | undefined;
  /** The state it was last seen in. */
  seen: CircuitState;
}

export class HealthBook implements ProviderHealth {
  revision = 1;
  readonly #options: HealthOptions;
  readonly #pages: Recent<Page>;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#pages = new Recent(options.limit ?? 20_000);
  }

  /** Takes a result in. */
  observe(outcome: Outcome): void {
    if (outcome.status === "cancelled") return;
    const page = this.#page(outcome.tenant, outcome.provider);
    const now = this.#options.now();
    const succeeded = outcome.status === "success";
    const failed = outcome.status === "timeout" || (outcome.status === "error" && isInfrastructure(outcome));
    if (!succeeded && !failed) return; // H3
    page.errors += STEP * ((failed ? 1 : 0) - page.errors);
    if (succeeded) {
      page.latencyMs = moved(page.latencyMs, outcome.latencyMs);
      page.cost = moved(page.cost, outcome.cost);
      this.#publish(page);
    }
    if (page.circuit === undefined) return;
    if (succeeded) page.circuit.succeeded(now, outcome.latencyMs);
    else page.circuit.failed(now, outcome.latencyMs);
    this.#notice(outcome.tenant, outcome.provider, page);
    this.#options.onErrorRate?.(outcome.tenant, outcome.provider, page.circuit.errorRate(now));
  }

  /**
   * Takes in the record that usage workers keep of a provider (contracts/execution/health): its averages are the estimate, and what it counted
   * since the last one is told to the circuit.
   */
  take(record: Record): void {
    const page = this.#page(record.tenant_id, record.provider_id);
    const before = page.record;
    page.record = record;
    page.errors = record.error_rate;
    if (record.successes > 0) {
      page.latencyMs = record.latency_ms;
      page.cost = record.cost;
      this.#publish(page);
    }
    if (page.circuit === undefined) return;
    const now = this.#options.now();
    for (const failed of outcomesBetween(before, record)) {
      if (failed) page.circuit.failed(now, record.latency_ms);
      else page.circuit.succeeded(now, record.latency_ms);
      this.#notice(record.tenant_id, record.provider_id, page);
    }
    this.#options.onErrorRate?.(record.tenant_id, record.provider_id, page.circuit.errorRate(now));
  }

  estimate(tenant: string, provider: string): Estimate | undefined {
    return this.#pages.get(keyOf(tenant, provider))?.published;
  }

  /** Recent share of failures, 0 to 1. */
  errorShare(tenant: string, provider: string): number {
    return this.#pages.get(keyOf(tenant, provider))?.errors ?? 0;
  }

  circuit(tenant: string, provider: string, breaker: Breaker): CircuitState {
    const page = this.#page(tenant, provider);
    this.#circuit(page, breaker);
    return this.#notice(tenant, provider, page);
  }

  admit(tenant: string, provider: string, breaker: Breaker, dry: boolean): boolean {
    const page = this.#page(tenant, provider);
    const admitted = this.#circuit(page, breaker).admit(this.#options.now(), dry);
    this.#notice(tenant, provider, page);
    return admitted;
  }

  #circuit(page: Page, breaker: Breaker): Circuit {
    if (page.circuit === undefined) {
      page.circuit = new Circuit(breaker);
      this.#catchUp(page.circuit, page.record, breaker);
    } else page.circuit.configure(breaker);
    return page.circuit;
  }

  /** A circuit that begins while its provider is failing, as after a restart of this worker, begins with those failures. */
  #catchUp(circuit: Circuit, record: Record | undefined, breaker: Breaker): void {
    const now = this.#options.now();
    if (record === undefined || now - record.last_failure_ms >= breaker.timeout_ms) return;
    for (let n = 0; n < Math.min(record.consecutive_failures, MOST_AT_ONCE); n++)
      circuit.failed(now, record.latency_ms);
  }

  #notice(tenant: string, provider: string, page: Page): CircuitState {
    const state = page.circuit?.state(this.#options.now()) ?? "closed";
    if (state !== page.seen) {
      this.#options.onCircuit?.(tenant, provider, page.seen, state);
      page.seen = state;
      this.revision++;
    }
    return state;
  }

  /** H2. */
  #publish(page: Page): void {
    const { published, latencyMs, cost } = page;
    if (near(published.latencyMs, latencyMs) && near(published.cost, cost)) return;
    page.published = { latencyMs, cost };
    this.revision++;
  }

  #page(tenant: string, provider: string): Page {
    const key = keyOf(tenant, provider);
    let page = this.#pages.get(key);
    if (page === undefined) {
      page = {
        latencyMs: undefined,
        cost: undefined,
        errors: 0,
        published: { latencyMs: undefined, cost: undefined },
        circuit: undefined,
        record: undefined,
        seen: "closed",
      };
      this.#pages.set(key, page);
    }
    return page;
  }
}

/**
 * Whether each result between two records failed, as nearly in order as the counts tell: the run the later one ends with comes last, what was
 * before it is mixed evenly.
 */
export function outcomesBetween(before: Record | undefined, now: Record): boolean[] {
  const anew = before === undefined || now.successes < before.successes || now.failures < before.failures;
  let failures = Math.min(MOST_AT_ONCE, now.failures - (anew ? 0 : before.failures));
  let successes = Math.min(MOST_AT_ONCE, now.successes - (anew ? 0 : before.successes));
  const lastFailures = Math.min(failures, now.consecutive_failures);
  const lastSuccesses = Math.min(successes, now.consecutive_successes);
  failures -= lastFailures;
  successes -= lastSuccesses;
  const outcomes: boolean[] = [];
  const share = failures / (failures + successes);
  for (let at = 1, failed = 0; at <= failures + successes; at++) {
    const fails = Math.round(at * share) > failed;
    if (fails) failed++;
    outcomes.push(fails);
  }
  for (let n = 0; n < lastFailures; n++) outcomes.push(true);
  for (let n = 0; n < lastSuccesses; n++) outcomes.push(false);
  return outcomes;
}

function moved(average: number | undefined, value: number): number {
  return average === undefined ? value : average + STEP * (value - average);
}

function near(one: number | undefined, other: number | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return Math.abs(one - other) <= NOTEWORTHY * Math.abs(one);
}

function keyOf(tenant: string, provider: string): string {
  return `${tenant}\u0000${provider}`;
}

const infrastructureCode =
  /TIMEOUT|CONNECTION|NETWORK|UNAVAILABLE|OVERLOAD|SERVER_ERROR|5XX|(^|[^0-9])5\d\d([^0-9]|$)|HTTP_REQUEST_FAILED/i;
const infrastructureMessage =
  /timed? ?out|connection (refused|reset|closed)|unavailable|\b5\d\d\b|\b5xx\b|bad gateway|server error/i;

/** Whether an error is the provider's or the network's, by its code, or by its text when the code says nothing of the kind. */
function isInfrastructure({ errorCode, errorMessage }: Outcome): boolean {
  if (infrastructureCode.test(errorCode)) return true;
  return (
    (errorCode === "" || errorCode === "HTTP_ERROR" || errorCode === "UNKNOWN_ERROR") &&
    infrastructureMessage.test(errorMessage)
  );
}
