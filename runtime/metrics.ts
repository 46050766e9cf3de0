/**
 * Counters, gauges and histograms that cost a few nanoseconds: a series is looked up once, kept, and from then on only
 * adds to a number. Collected when someone asks (`telemetry.ts` turns the families into OpenTelemetry's data).
 *
 * The OpenTelemetry SDK's own instruments cost about half a microsecond per call, since they take labels apart each
 * time; a routed call records about eight values, and the whole call costs less than a hundred microseconds.
 *
 *     const metrics = registry.use(routerMetrics);
 *     const hits = metrics.router_sticky_hits_total.with({ tenant_id }); // once
 *     hits.add();                                                       // per call
 */

/** A metric as a table declares it. `labels` are the only labels its series may carry, and they must carry all. */
export interface MetricSpec<K extends MetricKind = MetricKind, L extends string = string> {
  readonly kind: K;
  /** What is counted, one sentence; shown as HELP. */
  readonly sentence: string;
  readonly labels: readonly L[];
  /** Upper bounds of a histogram's buckets, ascending and inclusive, in the unit of the name. */
  readonly buckets: readonly number[];
}

export type MetricKind = "counter" | "gauge" | "histogram";

/** Counts events; only grows. */
export function counter(sentence: string): MetricSpec<"counter", never>;
export function counter<const L extends string>(sentence: string, ...labels: [L, ...L[]]): MetricSpec<"counter", L>;
export function counter(sentence: string, ...labels: string[]): MetricSpec<"counter"> {
  return { kind: "counter", sentence, labels, buckets: [] };
}

/** A value that goes up and down. */
export function gauge(sentence: string): MetricSpec<"gauge", never>;
export function gauge<const L extends string>(sentence: string, ...labels: [L, ...L[]]): MetricSpec<"gauge", L>;
export function gauge(sentence: string, ...labels: string[]): MetricSpec<"gauge"> {
  return { kind: "gauge", sentence, labels, buckets: [] };
}

/** A distribution over the given upper bounds. */
export function histogram(sentence: string, buckets: readonly number[]): MetricSpec<"histogram", never>;
export function histogram<const L extends string>(
  sentence: string,
  buckets: readonly number[],
  ...labels: [L, ...L[]]
): MetricSpec<"histogram", L>;
export function histogram(sentence: string, buckets: readonly number[], ...labels: string[]): MetricSpec<"histogram"> {
  return { kind: "histogram", sentence, labels, buckets };
}

/** Metric names and what each means. */
export type MetricTable = Readonly<Record<string, MetricSpec>>;

/** The series of one metric with one set of label values. */
export interface Counter {
  /** @param by at least 0; 1 when left out */
  add(by?: number): void;
}
export interface Gauge {
  set(value: number): void;
  add(by: number): void;
}
export interface Histogram {
  /** @param value in the unit of the metric's name */
  record(value: number): void;
}

interface SeriesOf {
  counter: Counter;
  gauge: Gauge;
  histogram: Histogram;
}

/** One metric. `with` finds the series of the label values; keep it where the values stay the same. */
export interface Metric<K extends MetricKind, L extends string> {
  with(...labels: [L] extends [never] ? [] : [values: Readonly<Record<L, string>>]): SeriesOf[K];
}

/** The metrics of a table, ready for use. */
export type Metrics<T extends MetricTable> = {
  readonly [N in keyof T]: T[N] extends MetricSpec<infer K, infer L> ? Metric<K, L> : never;
};

/** What has been recorded under one name. */
export interface Family {
  readonly name: string;
  readonly spec: MetricSpec;
  readonly series: readonly { readonly labels: Readonly<Record<string, string>>; readonly recorded: Recorded }[];
}

/** A number, or for a histogram the count per bucket (one more than there are bounds) and the sum of all values. */
export type Recorded = { readonly value: number } | { readonly counts: readonly number[]; readonly sum: number };

/** Series beyond this many per metric are added up in one with the label `otel.metric.overflow`. */
export const MAX_SERIES = 2_000;

/** All metrics of a process. */
export interface Registry {
  /**
   * Declares the metrics of a table. Tables may overlap, also between the workers of one process: same name, same series.
   * @throws {Error} when a name is declared again with another kind, labels or buckets
   */
  use<const T extends MetricTable>(table: T): Metrics<T>;
  /** Calls `fn` before each collection: for gauges that are read rather than kept. Gives back how to stop that. */
  beforeCollect(fn: () => void): () => void;
  /** Everything recorded so far. Values only grow from one call to the next, gauges apart. */
  collect(): Family[];
}

class Series implements Counter, Gauge {
  readonly labels: Readonly<Record<string, string>>;
  value = 0;

  constructor(labels: Readonly<Record<string, string>>) {
    this.labels = labels;
  }

  add(by = 1): void {
    this.value += by;
  }

  set(value: number): void {
    this.value = value;
  }

  get recorded(): Recorded {
    return { value: this.value };
  }
}

class Distribution implements Histogram {
  readonly labels: Readonly<Record<string, string>>;
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;

  constructor(labels: Readonly<Record<string, string>>, bounds: readonly number[]) {
    this.labels = labels;
    this.#bounds = bounds;
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  record(value: number): void {
    const bounds = this.#bounds;
    let at = 0;
    // Not found by halving: most values are small, and there are a dozen bounds at most.
    while (at < bounds.length && value > (bounds[at] ?? Infinity)) at++;
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#sum += value;
  }

  get recorded(): Recorded {
    return { counts: [...this.#counts], sum: this.#sum };
  }
}

class LabelledMetric<S extends Series | Distribution> {
  readonly name: string;
  readonly spec: MetricSpec;
  readonly #make: (labels: Readonly<Record<string, string>>) => S;
  readonly #series = new Map<string, S>();

  constructor(name: string, spec: MetricSpec, make: (labels: Readonly<Record<string, string>>) => S) {
    this.name = name;
    this.spec = spec;
    this.#make = make;
    if (spec.labels.length === 0 && spec.kind !== "gauge") this.with({}); // shows 0 before the first event
  }

  with(values: Readonly<Record<string, string>> = {}): S {
    let key = "";
    for (const label of this.spec.labels) key += `${values[label]}\u0000`;
    return this.#series.get(key) ?? this.#add(key, values);
  }

  #add(key: string, values: Readonly<Record<string, string>>): S {
    if (this.#series.size >= MAX_SERIES) return this.#overflow();
    const labels = Object.fromEntries(this.spec.labels.map((label) => [label, values[label] ?? ""]));
    const made = this.#make(labels);
    this.#series.set(key, made);
    return made;
  }

  #overflow(): S {
    const rest = this.#series.get("overflow") ?? this.#make({ "otel.metric.overflow": "true" });
    this.#series.set("overflow", rest);
    return rest;
  }

  family(): Family {
    const series = [...this.#series.values()].map(({ labels, recorded }) => ({ labels, recorded }));
    return { name: this.name, spec: this.spec, series };
  }
}

/** An empty registry. A process has one; tests make their own. */
export function createRegistry(): Registry {
  const metrics = new Map<string, LabelledMetric<Series> | LabelledMetric<Distribution>>();
  const hooks = new Set<() => void>();

  const declare = (name: string, spec: MetricSpec) => {
    const found = metrics.get(name);
    if (found && !same(found.spec, spec)) throw new Error(`The metric ${name} is declared twice, and differently.`);
    const metric =
      found ??
      (spec.kind === "histogram"
        ? new LabelledMetric(name, spec, (labels) => new Distribution(labels, spec.buckets))
        : new LabelledMetric(name, spec, (labels) => new Series(labels)));
    metrics.set(name, metric);
    return metric;
  };

  function use<const T extends MetricTable>(table: T): Metrics<T>;
  function use(table: MetricTable): Record<string, unknown> {
    return Object.fromEntries(Object.entries(table).map(([name, spec]) => [name, declare(name, spec)]));
  }

  return {
    use,
    beforeCollect(fn) {
      hooks.add(fn);
      return () => hooks.delete(fn);
    },
    collect() {
      for (const hook of hooks) hook();
      return [...metrics.values()].map((metric) => metric.family());
    },
  };
}

function same(one: MetricSpec, other: MetricSpec): boolean {
  const shape = ({ kind, labels, buckets }: MetricSpec) => JSON.stringify([kind, labels, buckets]);
  return shape(one) === shape(other);
}
