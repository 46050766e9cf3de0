/**
 * The textual form of a `when` in `AdminRule.match` (BeamLine, admin messages): `key:value1|value2`, several keys joined with `|`, so
 * that a part with a colon begins a new key. The empty text is the `when` that matches always. A colon, bar or backslash inside a key or
 * value is written with a backslash before it; a `when` in the operators form is written as its JSON.
 */
import { invalidArgument } from "../../../contracts/errors.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { textOf } from "./match.ts";

const operatorNames = new Set(["==", "!=", ">", "<", ">=", "<=", "in"]);

/** A `when` as text. */
export function printWhen(when: Readonly<JsonObject> | undefined): string {
  if (when === undefined) return "";
  const entries = Object.entries(when);
  if (entries.some(([key]) => operatorNames.has(key) || key === "")) return JSON.stringify(when);
  return entries
    .map(
      ([key, value]) =>
        `${escape(key)}:${(Array.isArray(value) ? value : [value]).map((one) => escape(textOf(one))).join("|")}`,
    )
    .join("|");
}

/** The `when` a text stands for. Throws `invalid_argument` naming `path`. */
export function parseWhen(text: string, path: string): JsonObject {
  if (text === "") return {};
  if (text.startsWith("{")) return parseJsonWhen(text, path);
  const when = new Map<string, string[]>();
  let values: string[] | undefined;
  for (const part of split(text, "|")) {
    const [first = "", ...rest] = split(part, ":");
    if (rest.length > 0) {
      const key = unescape(first);
      if (key === "") throw invalidArgument(path, "must not have an empty key");
      if (when.has(key)) throw invalidArgument(path, `must not name the key ${key} twice`);
      values = [unescape(rest.join(":"))];
      when.set(key, values);
    } else if (values === undefined) throw invalidArgument(path, "must read key:value1|value2");
    else values.push(unescape(part));
  }
  return Object.fromEntries(when);
}

function parseJsonWhen(text: string, path: string): JsonObject {
  let when: unknown;
  try {
    when = JSON.parse(text);
  } catch {
    throw invalidArgument(path, "must read key:value1|value2, or be a JSON object");
  }
  return when as JsonObject;
}

function escape(text: string): string {
  return text.replaceAll(/[\\|:]/g, (char) => `\\${char}`).replace(/^\{/, "\\{");
}

function unescape(text: string): string {
  return text.replaceAll(/\\([\\|:{])/g, "$1");
}

/** Splits at a separator that no backslash protects. */
function split(text: string, separator: string): string[] {
  const parts: string[] = [];
  let start = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === separator) {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}
