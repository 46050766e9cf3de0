/** JSON Schemas of tools: how they are written here, and how values are held against them (2020-12, by ajv). */
import { createContext, Script } from "node:vm";
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import { BeamlineError } from "../../contracts/errors.ts";
import { canonical } from "./canonical.ts";
import type { Json, Schema } from "./tool.ts";

// -- writing ------------------------------------------------------------------------------------------------------------------------

/** A text. */
export const str = (description = "", more: Json = {}): Schema => described({ type: "string", ...more }, description);
/** A path: no NUL byte, at most 4096 characters. */
export const path = (description: string): Schema => str(description, { minLength: 1, maxLength: 4096 });
export const int = (description = "", more: Json = {}): Schema => described({ type: "integer", ...more }, description);
export const num = (description = "", more: Json = {}): Schema => described({ type: "number", ...more }, description);
export const bool = (description = "", more: Json = {}): Schema => described({ type: "boolean", ...more }, description);
export const list = (items: Schema, description = "", more: Json = {}): Schema =>
  described({ type: "array", items, ...more }, description);
/** Text values under any name. */
export const texts = (description = ""): Schema =>
  described({ type: "object", additionalProperties: { type: "string" } }, description);
/** Any JSON. */
export const any = (description = ""): Schema => described({}, description);
/** The value or null. */
export const nullable = (schema: Schema): Schema => ({ ...schema, type: [schema["type"], "null"] });

/** An object. Fields whose name ends in `?` may be absent; unknown fields are ignored (aiOS tools, input and output JSON per tool). */
export function object(fields: Readonly<Record<string, Schema>> = {}, description = ""): Schema {
  const required = Object.keys(fields).filter((name) => !name.endsWith("?"));
  const properties = Object.fromEntries(
    Object.entries(fields).map(([name, schema]) => [name.replace(/\?$/, ""), schema]),
  );
  return described({ type: "object", properties, ...(required.length > 0 && { required }) }, description);
}

function described(schema: Json, description: string): Schema {
  return description === "" ? schema : { ...schema, description };
}

// -- checking -----------------------------------------------------------------------------------------------------------------------

/** One violation: where, and what is wrong there. */
export interface Violation {
  /** JSON pointer into the value, empty for the whole. */
  readonly at: string;
  readonly what: string;
  /** The field, when it is missing. */
  readonly missing?: string;
}

export type Check = (value: unknown) => readonly Violation[];

/** Largest schema taken from outside, bytes. */
const MAX_SCHEMA_BYTES = 256 * 1024;
/** Violations listed. */
const MAX_LISTED = 20;

const own = new Ajv2020({ allErrors: true, useDefaults: true, strict: false, validateFormats: false });

/** A check for a schema of ours. Defaults named in the schema are filled in. */
export function compile(schema: Schema): Check {
  let validate: ValidateFunction | undefined;
  return (value) => {
    validate ??= own.compile(schema);
    return validate(value) ? [] : (validate.errors ?? []).slice(0, MAX_LISTED).map(violation);
  };
}

/**
 * A check for a schema from outside. Throws `invalid_argument` naming the field when it is no JSON, no schema, too large, or holds a
 * pattern that could run for ever. A value that takes too long to hold against it is a violation: everyone else would wait.
 */
export function compileForeign(text: string, field: string): Check {
  if (text === "") return () => [];
  if (Buffer.byteLength(text) > MAX_SCHEMA_BYTES) throw refused(field, `is larger than ${MAX_SCHEMA_BYTES} bytes`);
  let schema: unknown;
  try {
    schema = JSON.parse(text);
  } catch {
    throw refused(field, "is not JSON");
  }
  if (typeof schema !== "boolean" && (typeof schema !== "object" || schema === null || Array.isArray(schema))) {
    throw refused(field, "is not a JSON Schema");
  }
  refusePatterns(schema, field);
  try {
    // One compiler each: two foreign schemas may share an $id.
    const ajv = new Ajv2020({
      allErrors: false,
      strict: false,
      validateFormats: false,
      loadSchema: undefined as never,
    });
    ajv.removeKeyword("uniqueItems"); // its own takes time in proportion to the square of the items
    ajv.addKeyword({
      keyword: "uniqueItems",
      type: "array",
      schemaType: "boolean",
      validate: (wanted: boolean, items: readonly unknown[]) =>
        !wanted || new Set(items.map(canonical)).size === items.length,
      error: { message: "must NOT have duplicate items" },
    });
    const validate = inTime(() => ajv.compile(schema), COMPILE_MS);
    return (value) => {
      try {
        return inTime(() => validate(value), CHECK_MS)
          ? []
          : (validate.errors ?? []).slice(0, MAX_LISTED).map(violation);
      } catch (thrown) {
        if (thrown instanceof RangeError)
          return [{ at: "", what: "cannot be checked: the schema refers to itself without end" }];
        if (isTimeout(thrown)) return [{ at: "", what: `takes more than ${CHECK_MS} ms to check` }];
        throw thrown;
      }
    };
  } catch (thrown) {
    throw refused(field, `is not a usable JSON Schema: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

/** A quantified group that holds a quantifier or an alternative is how a short pattern takes for ever. */
const EXPLOSIVE = /\((?:[^()\\]|\\.)*(?:[+*]|\{\d|\|)(?:[^()\\]|\\.)*\)(?:[+*]|\{\d+,)/;
const MAX_PATTERN = 256;

function refusePatterns(schema: unknown, field: string): void {
  if (typeof schema !== "object" || schema === null) return;
  for (const [key, value] of Object.entries(schema)) {
    const patterns =
      key === "pattern"
        ? [value]
        : key === "patternProperties" && typeof value === "object" && value !== null
          ? Object.keys(value)
          : [];
    for (const pattern of patterns) {
      if (typeof pattern !== "string") continue;
      if (pattern.length > MAX_PATTERN || EXPLOSIVE.test(pattern))
        throw refused(field, `holds a pattern that could take too long: ${pattern.slice(0, 80)}`);
    }
    refusePatterns(value, field);
  }
}

/** Longest a schema from outside may keep everyone waiting, milliseconds. */
const CHECK_MS = 500;
/** The same for making a check of it, which is done once. */
const COMPILE_MS = 3_000;
const sandbox: { task: () => unknown } = { task: () => undefined };
const within = createContext(sandbox);
const perform = new Script("task()");

/** Does it, and gives up after so many milliseconds. */
function inTime<T>(task: () => T, timeout: number): T {
  sandbox.task = task;
  return perform.runInContext(within, { timeout }) as T;
}

/** By its code: an error of another context is no `Error` of ours. */
function isTimeout(thrown: unknown): boolean {
  return (
    typeof thrown === "object" && thrown !== null && "code" in thrown && thrown.code === "ERR_SCRIPT_EXECUTION_TIMEOUT"
  );
}

function refused(field: string, what: string): BeamlineError {
  return new BeamlineError("invalid_argument", `${field} ${what}`, { field });
}

function violation(error: ErrorObject): Violation {
  const at = error.instancePath;
  if (error.keyword === "required") {
    const { missingProperty } = error.params as { missingProperty: string };
    return { at, what: `lacks ${missingProperty}`, missing: missingProperty };
  }
  return { at, what: error.message ?? error.keyword };
}

/**
 * The violations of an input as aiOS words them: `fs.read: missing required field 'path'` for file tools, `Invalid JSON input: …` for the
 * others; each path is listed.
 */
export function wordInput(tool: string, violations: readonly Violation[]): string {
  const each = violations.map(({ at, what, missing }) =>
    missing === undefined
      ? `${at === "" ? "input" : at} ${what}`
      : `missing required field '${at === "" ? missing : `${at.slice(1)}/${missing}`}'`,
  );
  return `${tool.startsWith("fs.") ? tool : "Invalid JSON input"}: ${each.join("; ")}`;
}

/** The violations of an output, in one line. */
export function wordOutput(tool: string, violations: readonly Violation[]): string {
  return `${tool}: the output does not match its schema: ${violations.map(({ at, what }) => `${at === "" ? "output" : at} ${what}`).join("; ")}`;
}
