/**
 * `npm run bench [-- names...] [--rounds N] [--json] [--list]`: measures, prints a table, and keeps table and raw rows under `bench/results/`.
 * A name is that of a case (`decide-edge`) or the beginning of several (`decide`). Only loopback is used, and everything started is ended.
 */
import { readdirSync } from "node:fs";
import { parseArgs } from "node:util";
import type { BenchCase } from "./case.ts";
import { runCase } from "./kit/context.ts";
import { machine } from "./kit/proc.ts";
import { MIN_PAIRS } from "./kit/rounds.ts";
import { resultOf, save, tableOf, type Result } from "./kit/report.ts";

const folder = new URL("./", import.meta.url);
const notCases = new Set(["run.ts", "case.ts"]);

/** The cases of every `bench/*.ts`. Throws when there is none, or two of one name: a search that found nothing is no success. */
async function findCases(): Promise<BenchCase[]> {
  const files = readdirSync(folder).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"));
  const found: BenchCase[] = [];
  for (const file of files.filter((name) => !notCases.has(name)).sort()) {
    const module = (await import(new URL(file, folder).href)) as { cases?: readonly BenchCase[] };
    found.push(...(module.cases ?? []));
  }
  if (found.length === 0) throw new Error("no benchmark was found");
  const names = found.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two benchmarks are named ${twice}`);
  return found;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: String(MIN_PAIRS) },
    json: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) throw new Error("--rounds wants a number from 1 to 100");
const all = await findCases();
const chosen = all.filter(
  ({ name }) => positionals.length === 0 || positionals.some((wanted) => name.startsWith(wanted)),
);
const unknown = positionals.filter((wanted) => !all.some(({ name }) => name.startsWith(wanted)));
if (unknown.length > 0)
  throw new Error(`no benchmark is named ${unknown.join(", ")}; there are: ${all.map((c) => c.name).join(", ")}`);

const say = (line: string): void => void process.stderr.write(`${line}\n`);
/** A case that takes longer hangs. */
const CASE_WITHIN_MS = 20 * 60_000;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    say(`${signal}: ending what was started`);
    stop.abort();
  });
}

if (values.list) {
  for (const { name, title } of chosen) process.stdout.write(`${name.padEnd(20)} ${title}\n`);
} else {
  const results: Result[] = [];
  for (const one of chosen) {
    if (stop.signal.aborted) break;
    say(`${one.name}: ${one.title}`);
    const started = performance.now();
    try {
      const rows = await runCase(one, {
        rounds,
        say,
        signal: AbortSignal.any([stop.signal, AbortSignal.timeout(CASE_WITHIN_MS)]),
      });
      const result = resultOf(one, rows, {
        ...machine(),
        rounds,
        seconds: Math.round((performance.now() - started) / 1000),
      });
      results.push(result);
      say(`kept in ${save(result)}`);
    } catch (thrown) {
      process.exitCode = 1;
      say(`${one.name} failed: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}`);
    }
  }
  process.stdout.write(
    values.json ? `${JSON.stringify(results, undefined, 2)}\n` : `\n${results.map(tableOf).join("\n")}`,
  );
  process.exit();
}
