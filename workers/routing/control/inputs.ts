/** Reading what the operations of the control surface are given. Each throws `invalid_request` naming the field. */
import type { JsonObject } from "../../../contracts/codec.ts";
import { isObject } from "../policies/fields.ts";
import { malformed, missing } from "../intake/refusal.ts";

/** Text that may be left out; then undefined. */
export function optionalText(body: Readonly<JsonObject>, name: string, path = name, max = 4_096): string | undefined {
  const value = body[name];
  if (value === undefined || value === null || value === "") return undefined;
  if (typeof value !== "string") throw malformed(path, "must be a string");
  if (value.length > max) throw malformed(path, `must have at most ${max} characters`);
  return value;
}

export function neededText(body: Readonly<JsonObject>, name: string, path = name, max = 4_096): string {
  const value = optionalText(body, name, path, max);
  if (value === undefined) throw missing(path);
  return value;
}

/** An object that may be left out; then it is empty. */
export function optionalObject(body: Readonly<JsonObject>, name: string, path = name): JsonObject {
  const value = body[name];
  if (value === undefined || value === null) return {};
  if (!isObject(value)) throw malformed(path, "must be an object");
  return value;
}

export function neededObject(body: Readonly<JsonObject>, name: string): JsonObject {
  if (body[name] === undefined || body[name] === null) throw missing(name);
  return optionalObject(body, name);
}

/** A list of at most `max`; empty when left out. */
export function optionalList(body: Readonly<JsonObject>, name: string, max: number): readonly unknown[] {
  const value = body[name];
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw malformed(name, "must be an array");
  if (value.length > max) throw malformed(name, `must have at most ${max} entries`);
  return value;
}
