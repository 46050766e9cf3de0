/** What the tools worker counts. */
import { counter, histogram, type Registry } from "../../runtime/metrics.ts";

const table = {
  beamline_tools_calls_total: counter("Tool calls, refused ones too.", "tool", "outcome"),
  beamline_tools_seconds: histogram(
    "Time a tool call took, checks included.",
    [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60],
    "tool",
  ),
  beamline_tools_rollbacks_total: counter("Rollbacks asked for.", "outcome"),
};

/** Other names than built-in ones are counted together: callers choose them. */
const OTHER = "other";

export class Measures {
  readonly #metrics;
  readonly #known: ReadonlySet<string>;

  constructor(registry: Registry, known: Iterable<string>) {
    this.#metrics = registry.use(table);
    this.#known = new Set(known);
  }

  called(tool: string, success: boolean, ms: number): void {
    const name = this.#known.has(tool) ? tool : OTHER;
    this.#metrics.beamline_tools_calls_total.with({ tool: name, outcome: success ? "ok" : "failed" }).add();
    this.#metrics.beamline_tools_seconds.with({ tool: name }).record(ms / 1000);
  }

  rolledBack(success: boolean): void {
    this.#metrics.beamline_tools_rollbacks_total.with({ outcome: success ? "ok" : "failed" }).add();
  }
}
