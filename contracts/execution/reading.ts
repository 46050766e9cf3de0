/**
 * Reading what programs of many hands put on the execution subjects: protobuf or JSON, flat or in an envelope, numbers as numbers or as text.
 * Every refusal is `invalid_argument` and names the field.
 */
import { invalidArgument } from "../errors.ts";
import type { JsonObject } from "../codec.ts";
import { header, type Headers } from "../headers.ts";

/** How a message was written. */
export type Shape = "flat" | "enveloped" | "stringly" | "protobuf";

const BRACE = 0x7b;

/** Whether a body is JSON: no message of ours starts with this byte in protobuf, where it would open a group. */
export function isJson(payload: Uint8Array): boolean {
  for (const byte of payload) {
    if (byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d) continue;
    return byte === BRACE;
  }
  return false;
}

/** A JSON body as an object, out of its `{version, kind, data}` envelope when it has one. Throws `invalid_argument`. */
export function openJson(
  payload: Uint8Array,
  kind: string,
): { readonly body: JsonObject; readonly enveloped: boolean } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    throw invalidArgument("body", "is neither protobuf nor valid JSON");
  }
  if (!isObject(parsed)) throw invalidArgument("body", "must be a JSON object");
  if (isObject(parsed["data"]) && typeof parsed["kind"] === "string") {
    if (parsed["kind"] !== kind) throw invalidArgument("kind", `must be ${kind}`);
    return { body: parsed["data"], enveloped: true };
  }
  return { body: parsed, enveloped: false };
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Text of at most `max` characters, 4096 by default; absent is empty. */
export function text(body: JsonObject, name: string, path = name, max = 4096): string {
  const value = body[name];
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw invalidArgument(path, "must be a string");
  if (value.length > max) throw invalidArgument(path, `must have at most ${max} characters`);
  if (!value.isWellFormed()) throw invalidArgument(path, "must be well-formed Unicode");
  return value;
}

/** Longest id, characters: ids become message ids, subjects and keys. */
export const MAX_ID = 256;

/** An id on the top level; absent is empty. */
export function idIn(body: JsonObject, name: string): string {
  return text(body, name, name, MAX_ID);
}

export function requiredText(body: JsonObject, name: string, path = name): string {
  const value = text(body, name, path);
  if (value === "") throw invalidArgument(path, "is required");
  return value;
}

/** A number of at least 0, also written as text; absent is `fallback`. */
export function amount(body: JsonObject, name: string, fallback: number, path = name): number {
  const value = body[name];
  if (value === undefined || value === null || value === "") return fallback;
  const number =
    typeof value === "string" && /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value) ? Number(value) : value;
  if (typeof number !== "number" || !Number.isFinite(number)) throw invalidArgument(path, "must be a number");
  if (number < 0) throw invalidArgument(path, "must not be negative");
  return number;
}

/** An object, also written as its JSON text; absent is undefined. */
export function objectOrText(body: JsonObject, name: string, path = name): JsonObject | undefined {
  const value = body[name];
  if (value === undefined || value === null || value === "") return undefined;
  if (isObject(value)) return value;
  if (typeof value === "string") {
    try {
      const parsed: unknown = JSON.parse(value);
      if (isObject(parsed)) return parsed;
    } catch {
      // Not JSON: told below.
    }
  }
  throw invalidArgument(path, "must be an object");
}

/** Labels: anything that is not text becomes its JSON text; absent is empty. */
export function labels(body: JsonObject, name: string, path = name): Record<string, string> {
  const given = objectOrText(body, name, path) ?? {};
  return Object.fromEntries(
    Object.entries(given).flatMap(([key, value]) =>
      value === null || value === undefined ? [] : [[key, typeof value === "string" ? value : JSON.stringify(value)]],
    ),
  );
}

/** What the headers of a message say against the contract; nothing when there are none (BeamLine, headers). The message is handled all the same. */
export function headerViolations(headers: Headers, msgId: string | undefined): string[] {
  const names = Object.keys(headers);
  if (names.length === 0) return [];
  const wrong: string[] = [];
  if (headers[header.traceId] === "") wrong.push("empty_trace_id");
  if (headers[header.tenantId] === "") wrong.push("empty_tenant_id");
  if (headers[header.version] !== undefined && headers[header.version] !== "1") wrong.push("version");
  if (msgId === undefined || msgId === "") wrong.push("missing_msg_id");
  return wrong;
}
