/**
 * The `when` of a rule (BeamLine, router decision semantics, fallback): does the context of a request match?
 *
 * M1 `{}` or nothing matches always; otherwise every key must match (AND).
 * M2 `key: [v1, v2]` matches when the context's value is one of the values (OR); a single value is a list of one.
 * M3 Values are compared as text: the context is a map of strings on gRPC and a free object on NATS, and both must decide alike.
 * M4 A key the context does not have never matches, whatever is asked of it.
 * M5 The operators form is `{"==": [{"var": "context.x"}, 1]}` with `== != > < >= <= in`; numbers are compared as numbers.
 */
import { invalidArgument } from "../../../contracts/errors.ts";
import type { JsonObject } from "../../../contracts/codec.ts";

/** What rules and sessions may look at: the context of the request and its tenant. */
export interface Facts {
  readonly tenant: string;
  readonly context: Readonly<JsonObject>;
}

export type Condition = (facts: Facts) => boolean;

/** The value of one fact; undefined when there is none. `tenant_id` is always the tenant of the call, never what a context says. */
export function fact(facts: Facts, key: string): unknown {
  if (key === "tenant_id") return facts.tenant;
  const value = Object.hasOwn(facts.context, key) ? facts.context[key] : undefined;
  return value === null ? undefined : value;
}

/** A value as the text it is compared by: strings as they are, everything else as JSON. */
export function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A fact as text; undefined when there is none or it is empty. */
export function textFact(facts: Facts, key: string): string | undefined {
  const value = fact(facts, key);
  return value === undefined || value === "" ? undefined : textOf(value);
}

/** A fact as a finite number; undefined when there is none or it is something else. */
export function numberFact(facts: Facts, key: string): number | undefined {
  const value = fact(facts, key);
  return value === undefined ? undefined : numberOf(value);
}

const always: Condition = () => true;

/** A `when` as a function. Throws `invalid_argument` naming the path below `path`. */
export function compileWhen(when: unknown, path: string): Condition {
  if (when === undefined || when === null) return always;
  if (typeof when !== "object" || Array.isArray(when)) throw invalidArgument(path, "must be an object");
  const parts = Object.entries(when as JsonObject).map(([key, value]) =>
    Object.hasOwn(operators, key) ? operation(key, value, `${path}.${key}`) : oneOf(key, value, `${path}.${key}`),
  );
  if (parts.length === 0) return always;
  return (facts) => parts.every((part) => part(facts));
}

function oneOf(key: string, value: unknown, path: string): Condition {
  const list = Array.isArray(value) ? value : [value];
  if (list.length === 0) throw invalidArgument(path, "must name at least one value");
  const texts = new Set(
    list.map((item: unknown, at) => textOf(scalar(item, Array.isArray(value) ? `${path}[${at}]` : path))),
  );
  return (facts) => {
    const found = fact(facts, key);
    return found !== undefined && texts.has(textOf(found));
  };
}

function scalar(value: unknown, path: string): string | number | boolean {
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  throw invalidArgument(path, "must be text, a number, true or false");
}

type Operator = (left: unknown, right: unknown) => boolean;

const operators: Readonly<Record<string, Operator>> = {
  "==": same,
  "!=": (left, right) => !same(left, right),
  ">": numeric((left, right) => left > right),
  "<": numeric((left, right) => left < right),
  ">=": numeric((left, right) => left >= right),
  "<=": numeric((left, right) => left <= right),
  in: (left, right) =>
    Array.isArray(right) ? right.some((item) => same(left, item)) : textOf(right).includes(textOf(left)),
};

type Operand = (facts: Facts) => unknown;

function operation(name: string, value: unknown, path: string): Condition {
  const operator = operators[name];
  if (operator === undefined || !Array.isArray(value) || value.length !== 2) {
    throw invalidArgument(path, "must be an array of two operands");
  }
  const left = operand(value[0], `${path}[0]`);
  const right = operand(value[1], `${path}[1]`);
  return (facts) => {
    const a = left(facts);
    const b = right(facts);
    return a !== undefined && b !== undefined && operator(a, b);
  };
}

function operand(value: unknown, path: string): Operand {
  if (Array.isArray(value)) {
    const list = value.map((item, at) => scalar(item, `${path}[${at}]`));
    return () => list;
  }
  if (typeof value === "object" && value !== null) {
    const name: unknown = (value as JsonObject)["var"];
    if (typeof name !== "string" || name === "") throw invalidArgument(`${path}.var`, "must name a context key");
    return variable(name.replace(/^context\./, ""));
  }
  const literal = scalar(value, path);
  return () => literal;
}

/** `a.b` is the key of that name, else `b` inside the object `a`. */
function variable(name: string): Operand {
  const [head = name, ...rest] = name.split(".");
  return (facts) => {
    const whole = fact(facts, name);
    if (whole !== undefined || rest.length === 0) return whole;
    let value = fact(facts, head);
    for (const key of rest) {
      if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
      value = (value as JsonObject)[key];
    }
    return value ?? undefined;
  };
}

function same(left: unknown, right: unknown): boolean {
  if (textOf(left) === textOf(right)) return true;
  const a = numberOf(left);
  return a !== undefined && a === numberOf(right);
}

function numeric(compare: (left: number, right: number) => boolean): Operator {
  return (left, right) => {
    const a = numberOf(left);
    const b = numberOf(right);
    return a !== undefined && b !== undefined && compare(a, b);
  };
}

/** A number or a text that reads as one. */
export function numberOf(value: unknown): number | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  if (typeof value !== "string" || value.trim() === "") return undefined;
  const number = Number(value);
  return Number.isFinite(number) ? number : undefined;
}
