/**
 * Configuration: a table of settings (`setting.ts`) and the environment become one typed, frozen object, or one error
 * that lists every mistake, before anything is opened. Only the entry file of a process hands over `process.env`.
 *
 * An empty variable counts as not given, as in the OpenTelemetry and compose conventions.
 */
import { readFileSync } from "node:fs";
import { HIDDEN, maskUrl, required } from "./setting.ts";
import type { Kind, ReadFile, Setting } from "./setting.ts";

/** Names of environment variables and what each means. */
export type Table = Readonly<Record<string, Setting<unknown>>>;

/** The values of a table: one property per setting, of the type its kind declares. */
export type Config<T extends Table> = {
  readonly [K in keyof T]: T[K] extends Setting<infer V> ? V : never;
};

/** Environment variables; `process.env` has this shape. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** One thing that is wrong with the configuration. */
export interface Mistake {
  readonly name: string;
  /** What was given; absent when nothing was, hidden when the setting is secret. */
  readonly given?: string;
  /** What would be right. */
  readonly expected: string;
  /** What the setting is for. */
  readonly sentence: string;
}

/** Every mistake of a configuration at once. Safe to print: it never holds a secret. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly mistakes: readonly Mistake[];

  constructor(mistakes: readonly Mistake[]) {
    const lines = mistakes.map(({ name, given, expected, sentence }) => {
      const found = given === undefined ? "is not set" : `is ${JSON.stringify(given)}`;
      return `  ${name} ${found}: expected ${expected}. ${sentence}`;
    });
    super(
      `The configuration has ${mistakes.length === 1 ? "a mistake" : `${mistakes.length} mistakes`}:\n${lines.join("\n")}`,
    );
    this.mistakes = mistakes;
  }
}

/**
 * Reads every setting of the table.
 * @throws {ConfigError} with all mistakes: wrong values, missing ones, unreadable files, one of two that belong together.
 */
export function loadConfig<const T extends Table>(table: T, env: Environment, readFile?: ReadFile): Config<T>;
export function loadConfig(table: Table, env: Environment, readFile: ReadFile = readText): Config<Table> {
  const values: Record<string, unknown> = {};
  const mistakes: Mistake[] = [];
  for (const [name, setting] of Object.entries(table)) {
    const read = readSetting(name, setting, env, readFile);
    if (read.mistake) mistakes.push(read.mistake);
    values[name] = read.value;
    if (read.source !== "default") mistakes.push(...missingPartners(name, setting, table, env));
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return Object.freeze(values);
}

/** One row of `beamline config`. */
export interface ConfigRow {
  readonly name: string;
  readonly type: Kind;
  /** The default as text; `null` when the setting is required. */
  readonly default: string | null;
  /** The value in force as text, secrets hidden; empty when there is none. */
  readonly value: string;
  readonly source: Source;
  readonly sentence: string;
  /** What a right value looks like; only on a wrong one. */
  readonly expected?: string;
}

/** Where a value came from; `file` is the `_FILE` variant of a secret. */
export type Source = "default" | "env" | "file";

/** Every setting with the value in force. Never throws: a wrong value is shown as given, beside what was expected. */
export function describeConfig(table: Table, env: Environment, readFile: ReadFile = readText): ConfigRow[] {
  return Object.entries(table).map(([name, setting]) => describe(name, setting, env, readFile));
}

function describe(name: string, setting: Setting<unknown>, env: Environment, readFile: ReadFile): ConfigRow {
  const { kind: type, fallback, sentence } = setting;
  const { value, source, mistake } = readSetting(name, setting, env, readFile);
  const byDefault = fallback === required ? null : setting.show(fallback.value);
  const row = { name, type, default: byDefault, source, sentence };
  if (mistake) return { ...row, value: mistake.given ?? "", expected: mistake.expected };
  return { ...row, value: setting.show(value) };
}

/** The rows as text in columns, for a terminal. */
export function formatConfig(rows: readonly ConfigRow[]): string {
  const cells = rows.map((row) => [
    row.name,
    row.type,
    row.expected ? `${row.value} (wrong)` : row.value || "-",
    row.source,
    row.sentence,
  ]);
  const widths = [0, 1, 2, 3].map((column) => Math.max(0, ...cells.map((row) => row[column]?.length ?? 0)));
  return cells.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")).join("\n");
}

/** A variable with our prefix that no setting has. */
export interface UnknownSetting {
  readonly name: string;
  /** The setting that was probably meant. */
  readonly nearest?: string;
}

/**
 * Variables named `BEAMLINE_*` that no setting of the table reads: usually a slip of the finger. Give it every table
 * of the product, since a process reads only its part of them. To be warned about, not refused.
 */
export function unknownSettings(table: Table, env: Environment): UnknownSetting[] {
  const known = Object.entries(table).flatMap(([name, { kind }]) =>
    kind === "secret" ? [name, `${name}_FILE`] : [name],
  );
  return Object.keys(env)
    .filter((name) => name.startsWith("BEAMLINE_") && !known.includes(name))
    .map((name) => {
      const [best] = known
        .map((other) => ({ other, distance: editDistance(name, other) }))
        .sort((a, b) => a.distance - b.distance);
      return best && best.distance <= Math.max(2, name.length / 5) ? { name, nearest: best.other } : { name };
    });
}

interface Reading {
  readonly value: unknown;
  readonly source: Source;
  readonly mistake?: Mistake;
}

function readSetting(name: string, setting: Setting<unknown>, env: Environment, readFile: ReadFile): Reading {
  const { sentence, expected } = setting;
  const path = setting.kind === "secret" ? env[`${name}_FILE`] : undefined;
  if (path) return readSecretFile(name, path, setting, env, readFile);
  const given = env[name];
  if (!given) {
    if (setting.fallback !== required) return { value: setting.fallback.value, source: "default" };
    return { value: undefined, source: "default", mistake: { name, expected, sentence } };
  }
  const value = setting.parse(given, readFile);
  if (value !== undefined) return { value, source: "env" };
  const shown = setting.kind === "secret" ? HIDDEN : maskUrl(given);
  return { value, source: "env", mistake: { name, given: shown, expected, sentence } };
}

function readSecretFile(
  name: string,
  path: string,
  setting: Setting<unknown>,
  env: Environment,
  readFile: ReadFile,
): Reading {
  const { sentence, expected } = setting;
  const wrong = (given: string, what: string): Reading => {
    const mistake = { name: `${name}_FILE`, given, expected: what, sentence };
    return { value: undefined, source: "file", mistake };
  };
  if (env[name]) return wrong(path, `only one of ${name} and ${name}_FILE`);
  const content = readFile(path)?.replace(/\r?\n$/, "");
  if (!content) return wrong(path, "the path of a readable file with the secret in it");
  const value = setting.parse(content, readFile);
  return value === undefined ? wrong(path, `a file holding ${expected}`) : { value, source: "file" };
}

function missingPartners(name: string, setting: Setting<unknown>, table: Table, env: Environment): Mistake[] {
  return setting.needs
    .filter((other) => !env[other] && !env[`${other}_FILE`])
    .map((other) => ({
      name: other,
      expected: `a value, since ${name} is set`,
      sentence: table[other]?.sentence ?? "",
    }));
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Levenshtein: how many letters must be added, dropped or changed to turn one word into the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 0; i < from.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < to.length; j++) {
      const changed = (row[j] ?? 0) + (from[i] === to[j] ? 0 : 1);
      next.push(Math.min(changed, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
