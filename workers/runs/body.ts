/** Reading request bodies, which are closed: what is not known is refused (OpenWOP, errors: `validation_error` naming the field). */
import { BeamlineError } from "../../contracts/errors.ts";
import { isDeeper, isObject, MAX_NESTING, type Json } from "../../contracts/openwop/json.ts";
import { MAX_BODY_BYTES } from "../../contracts/openwop/rest.ts";

type Check = (value: unknown, field: string) => void;

/** The body as an object with no other members than these. Absent members are fine unless `required`. Throws `message_too_large` as well. */
export function bodyOf(
  body: unknown,
  members: Readonly<Record<string, Check>>,
  required: readonly string[] = [],
): Json {
  const given = body ?? {};
  if (!isObject(given)) throw invalid("body", "must be a JSON object");
  checkNesting(given);
  if (Buffer.byteLength(JSON.stringify(given)) > MAX_BODY_BYTES)
    throw new BeamlineError("message_too_large", `the request body is larger than ${MAX_BODY_BYTES} bytes`);
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(members, name)) throw invalid(name, "is not a member of this request");
  }
  for (const name of required) if (given[name] === undefined) throw invalid(name, "is required");
  for (const [name, check] of Object.entries(members)) if (given[name] !== undefined) check(given[name], name);
  return given;
}

/** Throws `validation_error` for a body that nests too deep to be looked through. */
export function checkNesting(given: unknown): void {
  if (isDeeper(given)) throw invalid("body", `is nested deeper than ${MAX_NESTING} levels`);
}

export function text(max = 1_024, min = 0): Check {
  return (value, field) => {
    if (typeof value !== "string" || value.length < min || value.length > max)
      throw invalid(field, `must be a text of ${min} to ${max} characters`);
  };
}

export function oneOf(...choices: readonly string[]): Check {
  return (value, field) => {
    if (typeof value !== "string" || !choices.includes(value))
      throw invalid(field, `must be one of ${choices.join(", ")}`);
  };
}

export const anything: Check = () => undefined;

export const object: Check = (value, field) => {
  if (!isObject(value)) throw invalid(field, "must be an object");
};

export const wholeNumber: Check = (value, field) => {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    throw invalid(field, "must be a whole number of at least 0");
};

export function texts(max: number, each: Check): Check {
  return (value, field) => {
    if (!Array.isArray(value) || value.length > max) throw invalid(field, `must be a list of at most ${max}`);
    value.forEach((item, at) => each(item, `${field}[${at}]`));
  };
}

/** Depth and size of free data. */
export function bounded(maxBytes: number, maxDepth: number): Check {
  return (value, field) => {
    object(value, field);
    if (Buffer.byteLength(JSON.stringify(value)) > maxBytes) throw invalid(field, `is larger than ${maxBytes} bytes`);
    if (depthOf(value) > maxDepth) throw invalid(field, `is nested deeper than ${maxDepth} levels`);
  };
}

function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let deepest = 0;
  for (const member of Object.values(value)) deepest = Math.max(deepest, depthOf(member));
  return deepest + 1;
}

export function invalid(field: string, what: string, details: Json = {}): BeamlineError {
  return new BeamlineError("validation_error", `${field} ${what}`, { field, details });
}
