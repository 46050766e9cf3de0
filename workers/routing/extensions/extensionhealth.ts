/** How extensions behaved in the calls of this worker: figures, and a circuit each (BeamLine, extensions pipeline; admin subjects). */
import type { CircuitBreakerState, ExtensionHealth } from "../../../contracts/gen/beamline/flow/v1/flow.ts";
import { Circuit } from "../health/circuit.ts";
import type { Breaker } from "../policies/compile.ts";
import type { ExtensionStates } from "../admin/handlers.ts";
import type { CircuitState, OwnedExtension } from "../ports.ts";

/** Five failures in a row open it for a minute; then one call tries. Neither shares nor latency count. */
const breaker: Breaker = {
  failure_threshold: 5,
  success_threshold: 1,
  timeout_ms: 60_000,
  half_open_max_calls: 1,
  error_rate_threshold: 2,
  error_rate_window_seconds: 60,
  latency_threshold_ms: Number.POSITIVE_INFINITY,
};

/** Latest calls the percentiles are about. */
const SAMPLES = 256;

interface Page {
  readonly id: string;
  readonly circuit: Circuit;
  readonly latencies: number[];
  successes: number;
  failures: number;
  totalMs: number;
  lastMs: number;
  lastSuccessMs: number;
  lastFailureMs: number;
  updatedMs: number;
  seen: CircuitState;
}

export interface ExtensionBookOptions {
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly onCircuit?: (id: string, from: CircuitState, to: CircuitState) => void;
}

export class ExtensionBook implements ExtensionStates {
  readonly #options: ExtensionBookOptions;
  readonly #pages = new Map<string, Page>();

  constructor(options: ExtensionBookOptions) {
    this.#options = options;
  }

  /** Whether a call may be made; a trial call of a half-open circuit is taken. */
  admit(owned: OwnedExtension): boolean {
    const page = this.#page(owned);
    const admitted = page.circuit.admit(this.#options.now(), false);
    this.#notice(page);
    return admitted;
  }

  /** Makes room for one that was not called yet, so that it is listed. */
  know(owned: OwnedExtension): void {
    this.#page(owned);
  }

  /** Takes the outcome of a call in. */
  observe(owned: OwnedExtension, succeeded: boolean, ms: number): void {
    const page = this.#page(owned);
    const now = this.#options.now();
    if (succeeded) {
      page.successes++;
      page.lastSuccessMs = now;
      page.circuit.succeeded(now, ms);
    } else {
      page.failures++;
      page.lastFailureMs = now;
      page.circuit.failed(now, ms);
    }
    page.totalMs += ms;
    page.lastMs = ms;
    page.updatedMs = now;
    page.latencies.push(ms);
    if (page.latencies.length > SAMPLES) page.latencies.shift();
    this.#notice(page);
  }

  health(): Record<string, ExtensionHealth> {
    return this.#named((page) => {
      const calls = page.successes + page.failures;
      const rate = calls === 0 ? 1 : page.successes / calls;
      const sorted = [...page.latencies].sort((a, b) => a - b);
      const percentile = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
      return {
        extension_id: page.id,
        status: rate >= 0.95 ? "healthy" : rate >= 0.8 ? "degraded" : "unhealthy",
        success_rate: rate,
        success_count: BigInt(page.successes),
        failure_count: BigInt(page.failures),
        avg_latency_ms: calls === 0 ? 0 : page.totalMs / calls,
        p50_latency_ms: percentile(0.5),
        p95_latency_ms: percentile(0.95),
        p99_latency_ms: percentile(0.99),
        last_latency_ms: page.lastMs,
        last_success_ms: BigInt(page.lastSuccessMs),
        last_failure_ms: BigInt(page.lastFailureMs),
        circuit_breaker_state: this.#notice(page),
        circuit_breaker_opened_at_ms: BigInt(page.circuit.openedAt),
        updated_at_ms: BigInt(page.updatedMs),
      };
    });
  }

  circuits(): Record<string, CircuitBreakerState> {
    return this.#named((page) => ({
      extension_id: page.id,
      state: this.#notice(page),
      opened_at_ms: BigInt(page.circuit.openedAt),
    }));
  }

  /** By id; the second of the same id, another tenant's, by tenant and id. */
  #named<T>(view: (page: Page) => T): Record<string, T> {
    const named: Record<string, T> = {};
    for (const [name, page] of this.#pages) named[page.id in named ? name : page.id] = view(page);
    return named;
  }

  #notice(page: Page): CircuitState {
    const state = page.circuit.state(this.#options.now());
    if (state !== page.seen) {
      this.#options.onCircuit?.(page.id, page.seen, state);
      page.seen = state;
    }
    return state;
  }

  #page({ tenant, extension: { id } }: OwnedExtension): Page {
    const name = `${tenant}/${id}`;
    let page = this.#pages.get(name);
    if (page === undefined) {
      page = {
        id,
        circuit: new Circuit(breaker),
        latencies: [],
        successes: 0,
        failures: 0,
        totalMs: 0,
        lastMs: 0,
        lastSuccessMs: 0,
        lastFailureMs: 0,
        updatedMs: 0,
        seen: "closed",
      };
      this.#pages.set(name, page);
    }
    return page;
  }
}
