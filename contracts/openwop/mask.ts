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
