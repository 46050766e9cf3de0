/** Rows as a table for people and as a file for later. */
import { mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { BenchCase, Row, SideSummary } from "../case.ts";
import { MIN_PAIRS } from "./rounds.ts";

export interface Result {
  readonly name: string;
  readonly title: string;
  /** ISO 8601, UTC. */
  readonly at: string;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly rows: readonly Row[];
}

/** The rows with their case's target and aim filled in. Throws for a row whose value is not a number: that is a failed measurement. */
export function resultOf(one: BenchCase, rows: readonly Row[], machine: Result["machine"]): Result {
  const broken = rows.find(({ value }) => !Number.isFinite(value));
  if (broken !== undefined) throw new Error(`${broken.measure}: nothing was measured`);
  const filled = rows.map((row) => ({
    ...row,
    // A row with a target of its own has an aim of its own, or none.
    target: row.target === undefined ? (one.target ?? null) : row.target,
    aim: row.aim === undefined ? (row.target === undefined ? (one.aim ?? null) : null) : row.aim,
    better: row.better ?? one.better ?? ("higher" as const),
  }));
  return { name: one.name, title: one.title, at: new Date().toISOString(), machine, rows: filled };
}

/** Writes `<date>-<name>.md` and `.json`; returns the path of the first. */
export function save(result: Result): string {
  const folder = new URL("../results/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  const base = `${result.at.slice(0, 16).replace(/[:]/g, "")}-${result.name}`;
  writeFileSync(new URL(`${base}.json`, folder), `${JSON.stringify(result, undefined, 1)}\n`);
  const page = new URL(`${base}.md`, folder);
  writeFileSync(page, tableOf(result));
  return fileURLToPath(page);
}

/** Share of the CPU that other programs may take before it is worth a word. */
const QUIET = 0.1;

/** A Markdown section: one line per row, then what each side did. */
export function tableOf({ name, title, at, machine, rows }: Result): string {
  const few = rows.some(({ pairs }) => pairs !== undefined && pairs < MIN_PAIRS);
  const facts = Object.entries(machine).map(([key, value]) => `${key} ${value}`);
  const lines = [
    `## ${name}: ${title}`,
    "",
    `${at}; ${facts.join(", ")}${few ? `. Fewer than ${MIN_PAIRS} pairs: for trying things out, not a result` : ""}`,
    "",
    ...markdown([
      ["measure", "median", "quartiles", "by CPU time", "others' CPU", "target", "aim", "reached"],
      ...rows.map((row) => [
        row.measure,
        `**${figure(row.value)}**${row.unit === undefined ? "" : ` ${row.unit}`}`,
        row.spread === undefined ? "" : `${figure(row.spread[0])} – ${figure(row.spread[1])}`,
        row.byCpu === undefined ? "" : figure(row.byCpu),
        row.others === undefined ? "" : `${Math.round(row.others * 100)} %`,
        limit(row.target, row.better),
        limit(row.aim, row.better),
        verdict(row),
      ]),
    ]),
    "",
  ];
  const sides = rows.flatMap(({ measure, sides = [] }) => sides.map((side) => sideLine(measure, side)));
  if (sides.length > 0) {
    lines.push(...markdown([["measure", "side", "calls/s", "p50 ms", "p99 ms", "CPU µs per call"], ...sides]), "");
  }
  const busiest = Math.max(0, ...rows.map(({ others = 0 }) => others));
  if (busiest > QUIET) {
    lines.push(
      `- Other programs took up to ${Math.round(busiest * 100)} % of the CPU: trust the column by CPU time, or run it again on a quiet machine.`,
    );
  }
  if (rows.some(({ byCpu }) => byCpu !== undefined)) {
    lines.push(
      "- By CPU time: the ratio if nothing ever waited; a call takes what its busiest process spends on it, or what all spend over the cores, whichever is more.",
    );
  }
  for (const { measure, note } of rows) if (note !== undefined) lines.push(`- ${measure}: ${note}`);
  return `${lines.join("\n").trimEnd()}\n`;
}

function sideLine(measure: string, { label, perSecond, p50Ms, p99Ms, cpuUs }: SideSummary): string[] {
  const cpu = Object.entries(cpuUs).map(([process, us]) => `${process} ${us.toFixed(us < 10 ? 1 : 0)}`);
  const ms = (value: number | undefined): string => (value === undefined ? "" : value.toFixed(3));
  return [measure, label, String(Math.round(perSecond)), ms(p50Ms), ms(p99Ms), cpu.join(", ")];
}

function limit(value: number | null | undefined, better: Row["better"]): string {
  return value === undefined || value === null ? "" : `${better === "lower" ? "≤" : "≥"} ${value}`;
}

function verdict({ value, target, aim, better }: Row): string {
  const reaches = (limit: number): boolean => (better === "lower" ? value <= limit : value >= limit);
  if (typeof aim === "number" && reaches(aim)) return "aim";
  if (typeof target === "number") return reaches(target) ? "target" : "no";
  return "";
}

/** Three significant digits. */
function figure(value: number): string {
  return Math.abs(value) >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function markdown(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = rows;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)];
}
