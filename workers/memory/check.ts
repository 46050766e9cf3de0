/** What a request must be before anything is touched. Everything here throws `invalid_argument` naming the field. */
import { isUtf8 } from "node:buffer";
import { invalidArgument } from "../../contracts/errors.ts";

/** Ids are taken as the caller gives them (aiOS, checklist), but there must be one: an empty one would name a thing nobody can tell apart. */
export function requireText(field: string, value: string): void {
  if (value === "") throw invalidArgument(field, "must not be empty");
}

/** Bytes that carry JSON. Empty ones are absent, and fine. */
export function requireJson(field: string, bytes: Uint8Array): void {
  if (bytes.length === 0) return;
  if (!isUtf8(bytes)) throw invalidArgument(field, "must be valid UTF-8");
  try {
    JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"));
  } catch {
    throw invalidArgument(field, "must be valid JSON");
  }
}

/** A number that is one: NaN and infinities have no JSON form and no order. */
export function requireFinite(field: string, value: number): void {
  if (!Number.isFinite(value)) throw invalidArgument(field, "must be a finite number");
}

export function requireRange(field: string, value: number, min: number, max: number): void {
  requireFinite(field, value);
  if (value < min || value > max) throw invalidArgument(field, `must be between ${min} and ${max}`);
}

/** A count of something that happened. */
export function requireCount(field: string, value: number | bigint): void {
  if (value < 0) throw invalidArgument(field, "must not be negative");
}
