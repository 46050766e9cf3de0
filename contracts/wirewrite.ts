/** JSON as plain protobuf bytes. */
import { LENGTH, type FieldPlan, type Kind, type Plan } from "./wireplan.ts";

// One scratch buffer for all; a message is copied out of it when it is complete.

let output = Buffer.allocUnsafeSlow(16 * 1024);
let to = 0;
/** Something is unusual: what has been written so far is dropped. */
let odd = false;

/** The bytes of a message, or undefined when something about it is not plain. */
export function bytesOf(plan: Plan, json: unknown): Buffer | undefined {
  to = 0;
  odd = false;
  writeMessage(plan, json);
  return odd ? undefined : Buffer.from(output.subarray(0, to));
}

function writeMessage(plan: Plan, json: unknown): void {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    odd = true;
    return;
  }
  const record = json as Readonly<Record<string, unknown>>;
  for (const field of plan.fields) {
    const value = record[field.name];
    if (value === undefined || value === null) continue;
    if (field.shape === "one") writeValue(field.tag, field.kind, field.message, value, false);
    else if (field.shape === "list") writeList(field, value);
    else writeMap(field, value);
    if (odd) return;
  }
}

function writeList(field: FieldPlan, list: unknown): void {
  if (!Array.isArray(list)) odd = true;
  else for (const item of list) writeValue(field.tag, field.kind, field.message, item, true);
}

const ENTRY_KEY = (1 << 3) | LENGTH;

function writeMap(field: FieldPlan, map: unknown): void {
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    odd = true;
    return;
  }
  for (const key of Object.keys(map)) {
    const value = (map as Readonly<Record<string, unknown>>)[key];
    if (value === null || value === undefined) continue;
    writeVarint(field.tag);
    const start = openLength();
    writeValue(ENTRY_KEY, "string", undefined, key, false);
    const given = field.kind === "string" && typeof value !== "string" ? JSON.stringify(value) : value; // C5
    writeValue(field.valueTag, field.kind, field.message, given, false);
    closeLength(start);
  }
}

/** Writes one value with its tag; nothing for a default, unless it is an item of a list. */
function writeValue(tag: number, kind: Kind, message: Plan | undefined, value: unknown, always: boolean): void {
  switch (kind) {
    case "string":
      if (typeof value !== "string") odd = true;
      else if (value !== "" || always) writeText(tag, value);
      return;
    case "text": {
      const text = typeof value === "string" ? value : JSON.stringify(value);
      if (text === undefined) odd = true;
      else if (text !== "" || always) writeText(tag, text);
      return;
    }
    case "message": {
      if (message === undefined) return;
      writeVarint(tag);
      const start = openLength();
      writeMessage(message, value);
      closeLength(start);
      return;
    }
    case "bool":
      if (typeof value !== "boolean") odd = true;
      else if (value || always) {
        writeVarint(tag);
        writeVarint(value ? 1 : 0);
      }
      return;
    case "double":
      if (typeof value !== "number" || !Number.isFinite(value)) odd = true;
      else if (value !== 0 || always) {
        writeVarint(tag);
        reserve(8);
        to = output.writeDoubleLE(value, to);
      }
      return;
    case "int32":
    case "int64":
      // Negative numbers and decimal strings are rare enough for the long way.
      if (
        typeof value !== "number" ||
        !Number.isSafeInteger(value) ||
        value < 0 ||
        (kind === "int32" && value > 0x7fff_ffff)
      )
        odd = true;
      else if (value !== 0 || always) {
        writeVarint(tag);
        writeVarint(value);
      }
      return;
    case "base64":
      odd = true;
  }
}

function writeText(tag: number, text: string): void {
  writeVarint(tag);
  if (text.length * 3 < 0x80) {
    reserve(text.length * 3 + 1);
    const length = writeAscii(text, to + 1) ? text.length : writeUtf8(text, to + 1);
    output[to] = length;
    to += 1 + length;
    return;
  }
  const length = Buffer.byteLength(text);
  writeVarint(length);
  reserve(length);
  to += writeUtf8(text, to);
}

/** A short text is written sooner here than by asking the platform to. False when it is not ASCII. */
function writeAscii(text: string, start: number): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 0x80) return false;
    output[start + i] = code;
  }
  return true;
}

/** A lone surrogate has no UTF-8 form. */
function writeUtf8(text: string, start: number): number {
  if (!text.isWellFormed()) odd = true;
  return output.write(text, start);
}

/** Leaves one byte for a length; returns where the content starts. */
function openLength(): number {
  reserve(1);
  return ++to;
}

/** Fills the length in; content of 128 bytes and more moves up to make room for a longer one. */
function closeLength(start: number): void {
  const length = to - start;
  if (length < 0x80) {
    output[start - 1] = length;
    return;
  }
  const extra = length < 0x4000 ? 1 : length < 0x20_0000 ? 2 : length < 0x1000_0000 ? 3 : 4;
  reserve(extra);
  output.copyWithin(start + extra, start, to);
  to = start - 1;
  writeVarint(length);
  to += length;
}

function writeVarint(value: number): void {
  reserve(10);
  if (value < 0x80) {
    output[to++] = value;
    return;
  }
  let rest = value;
  while (rest >= 0x80) {
    output[to++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  output[to++] = rest;
}

function reserve(bytes: number): void {
  if (to + bytes <= output.length) return;
  const larger = Buffer.allocUnsafeSlow(Math.max(output.length * 2, to + bytes));
  output.copy(larger, 0, 0, to);
  output = larger;
}
