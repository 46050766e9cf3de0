/** The alerting rules and the dashboard under deploy/: every query is one Prometheus can read, of metrics that exist. */
import { globSync, readFileSync } from "node:fs";
import { parser } from "@prometheus-io/lezer-promql";
import { expect, test } from "vitest";
import { parse } from "yaml";

interface Rules {
  readonly groups: readonly { readonly rules: readonly { readonly alert: string; readonly expr: string }[] }[];
}
interface Dashboard {
  readonly panels: readonly { readonly title: string; readonly targets?: readonly { readonly expr: string }[] }[];
}

const METRIC = /^\s+([a-z][a-z0-9_]*): (counter|gauge|histogram)\(/gm;
/** What Grafana puts in before Prometheus sees the query. */
const INTERVAL = "$__rate_interval";

const rules = parse(readFileSync("deploy/observability/alerts.yaml", "utf8")) as Rules;
const dashboard = JSON.parse(readFileSync("deploy/observability/dashboard.json", "utf8")) as Dashboard;
const queries = [
  ...rules.groups.flatMap((group) => group.rules.map(({ alert, expr }) => [`alert ${alert}`, expr] as const)),
  ...dashboard.panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }) => [`panel ${title}`, expr] as const),
  ),
];
const exported = exportedNames();

/** Names as `/metrics` shows them: counters end in `_total`, a histogram has three. `up` is the scraper's own. */
function exportedNames(): ReadonlySet<string> {
  const names = new Set(["up"]);
  for (const file of globSync("{bus,edge,runtime,workers}/**/*.ts", { exclude: ["**/*.test.ts"] })) {
    for (const [, name = "", kind] of readFileSync(file, "utf8").matchAll(METRIC)) {
      if (kind === "gauge") names.add(name);
      else if (kind === "counter") names.add(name.endsWith("_total") ? name : `${name}_total`);
      else for (const part of ["bucket", "sum", "count"]) names.add(`${name}_${part}`);
    }
  }
  return names;
}

/** The metrics a query reads. @throws {Error} when it is not PromQL */
function metricsOf(query: string): string[] {
  const text = query.replaceAll(INTERVAL, "5m");
  const found: string[] = [];
  parser.parse(text).iterate({
    enter(node) {
      if (node.type.isError) throw new Error(`not PromQL at ${node.from}: ${text.slice(node.from)}`);
      if (node.name === "VectorSelector") {
        const [name] = /^[\w:]+/.exec(text.slice(node.from, node.to)) ?? [];
        if (name !== undefined) found.push(name);
      }
    },
  });
  return found;
}

test.each(queries)("%s reads metrics that exist", (_, query) => {
  const names = metricsOf(query);
  expect(names).not.toEqual([]);
  expect(names.filter((name) => !exported.has(name))).toEqual([]);
});

test("a query with a mistake is found", () => {
  expect(() => metricsOf("sum by (le (rate(up[5m])))")).toThrow("not PromQL");
  expect(metricsOf("rate(no_such_total[5m]) / up")).toEqual(["no_such_total", "up"]);
  expect(exported.has("no_such_total")).toBe(false);
});
