/** Masking of what a workflow declares sensitive (OpenWOP, privacy and redaction). */
import { createHash } from "node:crypto";
import { canonicalJson, type Json } from "./json.ts";
import type { Masking } from "./log.ts";

export const MASK = "[REDACTED]";

/** A value as it may be shown; undefined leaves it out. */
export function masked(value: unknown, mode: Masking): unknown {
  switch (mode) {
    case "passthrough":
      return value;
    case "omit":
      return undefined;
    case "hash":
      return `sha256:${createHash("sha256").update(canonicalJson(value)).digest("hex")}`;
    case "mask":
      return MASK;
  }
}

/** The object with the named members masked; itself when none of them is there. */
export function maskMembers(object: Json, names: ReadonlySet<string>, mode: Masking): Json {
  if (names.size === 0 || mode === "passthrough") return object;
  const copy: Record<string, unknown> = {};
  let changed = false;
  for (const [name, value] of Object.entries(object)) {
    if (!names.has(name)) copy[name] = value;
    else {
      changed = true;
      const shown = masked(value, mode);
      if (shown !== undefined) copy[name] = shown;
    }
  }
  return changed ? copy : object;
}

/** Shorter texts are left alone: they would be found everywhere. */
const SHORTEST = 4;

/** The texts among the values of sensitive variables. */
export function sensitiveTexts(names: ReadonlySet<string>, values: Json): readonly string[] {
  const texts: string[] = [];
  for (const name of names) gather(values[name], texts);
  return texts;
}

function gather(value: unknown, texts: string[]): void {
  if (typeof value === "string") {
    if (value.length >= SHORTEST) texts.push(value);
  } else if (typeof value === "object" && value !== null)
    for (const member of Object.values(value)) gather(member, texts);
}

/** The value with sensitive texts replaced wherever they stand, under whatever name; itself when there are none in it. */
export function scrub(value: unknown, texts: readonly string[]): unknown {
  if (texts.length === 0) return value;
  if (typeof value === "string") {
    let shown = value;
    for (const text of texts) if (shown.includes(text)) shown = shown.replaceAll(text, MASK);
    return shown;
  }
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value);
  const scrubbed = entries.map(([name, member]) => [name, scrub(member, texts)] as const);
  if (scrubbed.every(([, member], at) => member === entries[at]?.[1])) return value;
  return Array.isArray(value) ? scrubbed.map(([, member]) => member) : Object.fromEntries(scrubbed);
}
