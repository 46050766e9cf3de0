/**
 * Conditions, expressions and templates. Expressions are CEL (Common Expression Language): no assignment and no access to the process.
 * What could take long is stopped (bounded.ts), and what comes out has a largest size. Nothing a workflow says is ever run as code.
 */
import { Environment, type ParseResult } from "@marcbachmann/cel-js";
import { BeamlineError } from "../../../contracts/errors.ts";
import { at, isObject, sameJson, type Json } from "../../../contracts/openwop/json.ts";
import type { EdgeCondition } from "../../../contracts/openwop/workflow.ts";
import { bounded } from "./bounded.ts";

const MAX_EXPRESSION = 4_096;
const MAX_REGEX = 256;
const MAX_SUBJECT = 10_000;
const MAX_COMPILED = 5_000;
/** Largest value that is computed or filled in: characters of its texts and one for every other part. */
const MAX_VALUE = 4 * 1024 * 1024;

const environment = new Environment({ unlistedVariablesAreDyn: true, homogeneousAggregateLiterals: false });
// JSON has one kind of number: what is whole today may have a fraction tomorrow.
for (const [left, right] of [
  ["int", "double"],
  ["double", "int"],
]) {
  environment.registerOperator(`${left} + ${right}`, (a: unknown, b: unknown) => Number(a) + Number(b));
  environment.registerOperator(`${left} - ${right}`, (a: unknown, b: unknown) => Number(a) - Number(b));
  environment.registerOperator(`${left} * ${right}`, (a: unknown, b: unknown) => Number(a) * Number(b));
  environment.registerOperator(`${left} / ${right}`, (a: unknown, b: unknown) => Number(a) / Number(b));
}
const compiled = new Map<string, ParseResult>();

/** Patterns may go back for ever, and lists inside lists multiply: only such expressions can take long. */
function mayTakeLong(text: string): boolean {
  return (
    /\bmatches\s*\(/.test(text) || (text.match(/\.\s*(?:all|exists|exists_one|map|filter)\s*\(/g)?.length ?? 0) > 1
  );
}

/** Checks that an expression can be read. Throws `validation_error` with what is wrong. */
export function checkExpression(text: string, field: string): void {
  compile(text, field);
}

/** Checks what a condition is made of. Throws `validation_error` naming its member. */
export function checkCondition({ type, expression, right }: EdgeCondition, field: string): void {
  if (expression !== undefined) checkExpression(expression, `${field}.expression`);
  if (type === "regex") regexOf(String(right), `${field}.right`);
}

function compile(text: string, field: string): ParseResult {
  let program = compiled.get(text);
  if (program !== undefined) return program;
  if (text.length > MAX_EXPRESSION) throw invalid(field, `is longer than ${MAX_EXPRESSION} characters`);
  try {
    program = environment.parse(text);
  } catch (cause) {
    throw invalid(field, `is not an expression: ${firstLine(cause)}`);
  }
  if (compiled.size >= MAX_COMPILED) compiled.clear();
  compiled.set(text, program);
  return program;
}

/** The value of an expression over `scope`. Throws `validation_error` when it cannot be computed. */
export function evaluate(text: string, scope: Json, field = "expression"): unknown {
  const program = compile(text, field);
  const run = (): unknown => toJson(program(toCel(scope) as Record<string, unknown>), new Room(field));
  try {
    return mayTakeLong(text) ? bounded(field, run) : run();
  } catch (cause) {
    if (cause instanceof BeamlineError) throw cause;
    throw invalid(field, `${JSON.stringify(text)} cannot be computed: ${firstLine(cause)}`);
  }
}

/** Whether an edge is taken. `scope` has the source's `output`, `outputs` and `status` beside `variables` and `inputs`. */
export function holds(condition: EdgeCondition, scope: Json): boolean {
  const kind = condition.type ?? (condition.expression === undefined ? "equals" : "expression");
  if (kind === "expression") return evaluate(condition.expression ?? "false", scope, "condition.expression") === true;
  const left = lookUp(condition.left ?? "", scope);
  switch (kind) {
    case "equals":
      return sameJson(left, condition.right);
    case "notEquals":
      return !sameJson(left, condition.right);
    case "contains":
      if (Array.isArray(left)) return left.some((item) => sameJson(item, condition.right));
      return typeof left === "string" && left.includes(String(condition.right));
    case "regex":
      if (typeof left !== "string") return false;
      return matches(regexOf(String(condition.right), "condition.right"), left.slice(0, MAX_SUBJECT));
  }
}

/** A path in the scope; a bare name is also looked for in the output and in the variables. */
export function lookUp(path: string, scope: Json): unknown {
  return at(scope, path) ?? at(scope["output"], path) ?? at(scope["variables"], path);
}

function matches(pattern: RegExp, subject: string): boolean {
  return bounded("condition.right", () => pattern.test(subject));
}

/** A regular expression. The plainest of those that can take for ever are refused at once. Throws `validation_error`. */
export function regexOf(text: string, field: string): RegExp {
  if (text.length > MAX_REGEX) throw invalid(field, `is longer than ${MAX_REGEX} characters`);
  // A repeated group that repeats inside is what makes matching exponential; back references are no better.
  if (/\([^)]*[*+}][^)]*\)\s*[*+{]/.test(text) || /\\[1-9]/.test(text))
    throw invalid(field, "repeats a repetition, which could take for ever");
  try {
    return new RegExp(text, "u");
  } catch (cause) {
    throw invalid(field, `is not a regular expression: ${firstLine(cause)}`);
  }
}

const hole = /\{\{\s*([\w.$-]+)\s*\}\}/g;
const onlyHole = /^\{\{\s*([\w.$-]+)\s*\}\}$/;

/**
 * Fills `{{path}}` in every text of a value. A text that is nothing but one hole becomes the value itself, whatever its type. Throws
 * `validation_error` when all of it together is too large.
 */
export function fill(value: unknown, scope: Json, room = new Room("config")): unknown {
  if (typeof value === "string") {
    if (!value.includes("{{")) return value;
    const whole = onlyHole.exec(value);
    if (whole !== null) return room.weighed(lookUp(whole[1] ?? "", scope));
    return value.replaceAll(hole, (_hole, path: string) => room.weighed(shown(lookUp(path, scope))));
  }
  if (Array.isArray(value)) return value.map((item) => fill(item, scope, room));
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, fill(member, scope, room)]));
}

/** What is left of `MAX_VALUE`. */
class Room {
  readonly #field: string;
  #left = MAX_VALUE;

  /** `field` is named when there is none left. */
  constructor(field: string) {
    this.#field = field;
  }

  take(size: number): void {
    this.#left -= size;
    if (this.#left < 0) throw invalid(this.#field, `comes to more than ${MAX_VALUE} characters`);
  }

  /** The value, when there is room for it. */
  weighed<T>(value: T): T {
    this.#weigh(value);
    return value;
  }

  #weigh(value: unknown): void {
    this.take(typeof value === "string" ? value.length : 1);
    if (typeof value === "object" && value !== null) for (const member of Object.values(value)) this.#weigh(member);
  }
}

function shown(value: unknown): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Whole numbers are CEL's int, so that `variables.count + 1` means what it says. */
function toCel(value: unknown): unknown {
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map(toCel);
  if (!isObject(value)) return value ?? null;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, toCel(member)]));
}

function toJson(value: unknown, room: Room): unknown {
  room.take(typeof value === "string" ? value.length : 1);
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map((item) => toJson(item, room));
  if (value instanceof Map)
    return Object.fromEntries([...value].map(([key, member]) => [String(key), toJson(member, room)]));
  if (!isObject(value)) return value ?? null;
  // Moments as ISO 8601, bytes in base64, lengths of time in milliseconds.
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (Object.getPrototypeOf(value) !== Object.prototype) return Number(value);
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, toJson(member, room)]));
}

function invalid(field: string, what: string): BeamlineError {
  return new BeamlineError("validation_error", `${field} ${what}`, { field });
}

function firstLine(thrown: unknown): string {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return text.split("\n")[0] ?? text;
}
