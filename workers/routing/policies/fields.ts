/** Reading one field of a JSON document. Each throws `invalid_argument` naming the field's path. */
import type { JsonObject } from "../../../contracts/codec.ts";
import { invalidArgument } from "../../../contracts/errors.ts";

/** Reads a field that may be left out. */
export function optional(value: unknown, read: (value: unknown) => unknown): void {
  if (value !== undefined) read(value);
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function object(value: unknown, path: string): JsonObject {
  if (!isObject(value)) throw invalidArgument(path, "must be an object");
  return value;
}

export function list(value: unknown, path: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalidArgument(path, "must be an array");
  return value;
}

/** Non-empty text of at most `max` characters. */
export function text(value: unknown, path: string, max = 4096): string {
  if (value === undefined) throw invalidArgument(path, "is missing");
  if (typeof value !== "string" || value === "") throw invalidArgument(path, "must be non-empty text");
  if (value.length > max) throw invalidArgument(path, `must have at most ${max} characters`);
  return value;
}

/** Text that may be left out; then it is empty. */
export function optionalText(value: unknown, path: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw invalidArgument(path, "must be a string");
  return value;
}

export function boolean(value: unknown, path: string): boolean {
  if (typeof value !== "boolean") throw invalidArgument(path, "must be true or false");
  return value;
}

/** A number from `min` to `max`, both included. */
export function number(value: unknown, path: string, min: number, max: number): number {
  if (value === undefined) throw invalidArgument(path, "is missing");
  if (typeof value !== "number" || !Number.isFinite(value)) throw invalidArgument(path, "must be a number");
  if (value < min || value > max) throw invalidArgument(path, `must be between ${min} and ${max}`);
  return value;
}

export function integer(value: unknown, path: string, min: number, max: number): number {
  const found = number(value, path, min, max);
  if (!Number.isInteger(found)) throw invalidArgument(path, "must be a whole number");
  return found;
}

export function choice<const W extends string>(value: unknown, words: readonly W[], path: string): W {
  const found = words.find((word) => word === value);
  if (found === undefined) throw invalidArgument(path, `must be one of ${words.join(", ")}`);
  return found;
}

/** Refuses keys that are not in the list. */
export function known(value: JsonObject, keys: readonly string[], path: string): void {
  for (const key of Object.keys(value))
    if (!keys.includes(key)) throw invalidArgument(path + key, "is not part of a policy document");
}
