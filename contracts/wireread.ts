/** Plain protobuf bytes as JSON text. */
import { FIXED32, FIXED64, LENGTH, VARINT, type FieldPlan, type Kind, type Plan } from "./wireplan.ts";

// The cursor and the two halves of the last varint stand outside the functions: one message is read at a time.

let input: Buffer = Buffer.alloc(0);
/** The same bytes, one character each: a piece of ASCII is cut out of it for next to nothing. */
let characters = "";
let at = 0;
let low = 0;
let high = 0;
/** Something is unusual: what has been read so far is dropped. */
let odd = false;

/** The text of a message, or undefined when something about it is not plain. */
export function textOf(plan: Plan, bytes: Uint8Array): string | undefined {
  input = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  characters = input.toString("latin1");
  at = 0;
  odd = false;
  const text = readMessage(plan, input.length);
  return odd ? undefined : text;
}

function readMessage(plan: Plan, end: number): string {
  const { fields } = plan;
  const found = plan.empty.slice();
  while (at < end && !odd) {
    const tag = readVarint(end);
    if (high !== 0) odd = true;
    const field = plan.byTag[tag];
    if (field === undefined) skip(tag, end);
    else found[field.index] = readField(field, found[field.index], end);
  }
  let text = "";
  for (let i = 0; i < fields.length; i++) {
    const value = found[i];
    const field = fields[i];
    if (value === undefined || field === undefined) continue;
    if (text !== "") text += ",";
    if (field.shape === "one") text += field.key + value;
    else text += field.shape === "list" ? `${field.key}[${value}]` : `${field.key}{${value}}`;
  }
  return `{${text}}`;
}

function readField(field: FieldPlan, before: string | undefined, end: number): string | undefined {
  if (field.shape === "map") return readEntry(field, before, end);
  if (field.shape === "list") {
    const item = readValue(field.kind, field.message, end);
    return before === undefined ? item : `${before},${item}`;
  }
  if (before !== undefined) odd = true; // the last one wins, and messages merge
  const value = readValue(field.kind, field.message, end);
  return value === unset[field.kind] ? undefined : value;
}

/** How a default reads; a message that is there is never unset. */
const unset: Readonly<Record<Kind, string>> = {
  string: '""',
  text: '""',
  base64: '""',
  bool: "false",
  double: "0",
  int32: "0",
  int64: "0",
  message: "",
};

function readEntry(field: FieldPlan, before: string | undefined, end: number): string | undefined {
  const stop = readLength(end);
  let key = '""';
  let value: string | undefined;
  while (at < stop && !odd) {
    const tag = readVarint(stop);
    if (tag === ((1 << 3) | LENGTH)) key = readString(stop);
    else if (tag === field.valueTag) value = readValue(field.kind, field.message, stop);
    else odd = true;
  }
  if (before?.includes(key) === true) odd = true; // perhaps the same key again
  const entry = `${key}:${value ?? (field.kind === "message" ? "{}" : unset[field.kind])}`;
  return before === undefined ? entry : `${before},${entry}`;
}

function readValue(kind: Kind, message: Plan | undefined, end: number): string {
  switch (kind) {
    case "string":
    case "text":
      return readString(end);
    case "base64": {
      const stop = readLength(end);
      const text = input.toString("base64", at, stop);
      at = stop;
      return `"${text}"`;
    }
    case "message": {
      if (message === undefined) return "{}";
      return readMessage(message, readLength(end));
    }
    case "double": {
      if (at + 8 > end) {
        odd = true;
        return "0";
      }
      const value = input.readDoubleLE(at);
      at += 8;
      if (!Number.isFinite(value)) odd = true;
      return String(value === 0 ? 0 : value);
    }
    case "bool":
      readVarint(end);
      return low === 0 && high === 0 ? "false" : "true";
    case "int32":
      readVarint(end);
      if (high !== 0 && high !== -1) odd = true;
      return String(low | 0);
    case "int64": {
      readVarint(end);
      const value = (high | 0) * 0x1_0000_0000 + (low >>> 0);
      return Number.isSafeInteger(value) ? String(value) : `"${(BigInt(high | 0) << 32n) | BigInt(low >>> 0)}"`;
    }
  }
}

/** What JSON writes differently, and what is not ASCII. */
const special = /["\\\x00-\x1f\x80-\xff]/;

function readString(end: number): string {
  const stop = readLength(end);
  const plain = characters.slice(at, stop);
  if (!special.test(plain)) {
    at = stop;
    return `"${plain}"`;
  }
  const text = input.toString("utf8", at, stop);
  at = stop;
  if (text.includes("\uFFFD")) odd = true; // perhaps it was not UTF-8
  return JSON.stringify(text);
}

/** Reads a length; returns where what follows ends. */
function readLength(end: number): number {
  const stop = readVarint(end) + at;
  if (stop > end || high !== 0) {
    odd = true;
    return at;
  }
  return stop;
}

/** Reads a varint into `low` and `high`; returns the low half, unsigned. */
function readVarint(end: number): number {
  low = 0;
  high = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    if (at >= end) break;
    const byte = input[at++] ?? 0;
    const bits = byte & 0x7f;
    if (shift < 28) low |= bits << shift;
    else if (shift === 28) {
      low |= bits << 28;
      high |= bits >>> 4;
    } else high |= bits << (shift - 32);
    if (shift === 63 && byte > 1) break; // more than 64 bits
    if (byte < 0x80) return low >>> 0;
  }
  odd = true;
  return 0;
}

function skip(tag: number, end: number): void {
  switch (tag & 7) {
    case VARINT:
      readVarint(end);
      break;
    case FIXED64:
      at += 8;
      break;
    case LENGTH:
      at = readLength(end);
      break;
    case FIXED32:
      at += 4;
      break;
    default:
      odd = true;
  }
  if (at > end || tag < 8) odd = true;
}
