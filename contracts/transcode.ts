/**
 * Protobuf bytes to the bus's JSON text and back, in one pass and without a message object in between: what the edge does on
 * every call. The rules are those of the codec (C1–C6), held to the same golden files.
 *
 * Only what is plain goes the short way. Whatever is unusual - text that may not be UTF-8, a value of the wrong type, a field
 * given twice, a type the short way does not know - is left to the generated message and the codec, which also know how to
 * refuse it.
 */
import { ScalarType, type DescField, type DescMessage } from "@bufbuild/protobuf";
import { codecOf, isTextBytes, registry, type MessageType } from "./codec.ts";
import { invalidArgument } from "./errors.ts";

export interface Transcoder {
  /** Throws `invalid_argument` for bytes that are no such message, or naming the field that has no JSON form. */
  toText(bytes: Uint8Array): string;
  /** Throws `invalid_argument` for text that is no such JSON, naming the field. */
  toBytes(text: string): Buffer;
}

export function transcoderOf(type: MessageType): Transcoder {
  const codec = codecOf(type);
  const descriptor = type.$type === undefined ? undefined : registry.getMessage(type.$type);
  const plan = descriptor === undefined ? undefined : planOf(descriptor);
  return {
    toText(bytes) {
      const short = plan === undefined ? undefined : textOf(plan, bytes);
      if (short !== undefined) return short;
      let message: unknown;
      try {
        message = type.decode(bytes);
      } catch {
        throw invalidArgument("request", `is not a valid ${type.$type ?? "message"}`);
      }
      return JSON.stringify(codec.toJson(message));
    },
    toBytes(text) {
      let json: unknown;
      try {
        json = JSON.parse(text);
      } catch {
        throw invalidArgument("body", "is not valid JSON");
      }
      const short = plan === undefined ? undefined : bytesOf(plan, json);
      if (short !== undefined) return short;
      const bytes = type.encode(codec.fromJson(json)).finish();
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
  };
}

type Kind = "string" | "text" | "base64" | "bool" | "double" | "int32" | "int64" | "message";

interface FieldPlan {
  readonly index: number;
  readonly name: string;
  /** `"name":` as it stands in the text. */
  readonly key: string;
  readonly tag: number;
  readonly shape: "one" | "list" | "map";
  readonly kind: Kind;
  /** Of the values in the entries of a map. */
  readonly valueTag: number;
  /** Of a message field, or of a map's message values. */
  readonly message: Plan | undefined;
}

interface Plan {
  readonly fields: readonly FieldPlan[];
  /** A place for the text of each field. */
  readonly empty: readonly (string | undefined)[];
  readonly byTag: readonly (FieldPlan | undefined)[];
}

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

const kinds: Partial<Record<ScalarType, readonly [Kind, number]>> = {
  [ScalarType.STRING]: ["string", LENGTH],
  [ScalarType.BOOL]: ["bool", VARINT],
  [ScalarType.DOUBLE]: ["double", FIXED64],
  [ScalarType.INT32]: ["int32", VARINT],
  [ScalarType.INT64]: ["int64", VARINT],
};

const plans = new Map<string, Plan | undefined>();

/** The plan of a message, or undefined when some field of it is not plain. */
function planOf(descriptor: DescMessage): Plan | undefined {
  if (plans.has(descriptor.typeName)) return plans.get(descriptor.typeName);
  plans.set(descriptor.typeName, undefined); // a message within itself is not plain
  const fields = descriptor.fields.toSorted((a, b) => a.number - b.number).map(fieldPlan);
  const plain = !descriptor.typeName.startsWith("google.protobuf.") && fields.every((field) => field !== undefined);
  const plan = plain ? { fields, empty: fields.map(() => undefined), byTag: byTag(fields) } : undefined;
  plans.set(descriptor.typeName, plan);
  return plan;
}

function fieldPlan(field: DescField, index: number): FieldPlan | undefined {
  const shape = field.fieldKind === "list" ? "list" : field.fieldKind === "map" ? "map" : "one";
  const named = {
    index,
    name: field.name,
    key: `${JSON.stringify(field.name)}:`,
    shape,
    valueTag: (2 << 3) | LENGTH,
  } as const;
  if (shape === "map" && field.fieldKind === "map" && field.mapKey !== ScalarType.STRING) return undefined;
  if (field.message !== undefined) {
    const message = planOf(field.message);
    return message === undefined
      ? undefined
      : { ...named, kind: "message", message, tag: (field.number << 3) | LENGTH };
  }
  if (field.scalar === undefined) return undefined;
  if (field.scalar === ScalarType.BYTES) {
    return {
      ...named,
      kind: isTextBytes(field) ? "text" : "base64",
      message: undefined,
      tag: (field.number << 3) | LENGTH,
    };
  }
  const known = kinds[field.scalar];
  if (known === undefined) return undefined;
  const [kind, wire] = known;
  if (shape === "list" && wire !== LENGTH) return undefined; // packed
  return {
    ...named,
    kind,
    message: undefined,
    tag: (field.number << 3) | (shape === "map" ? LENGTH : wire),
    valueTag: (2 << 3) | wire,
  };
}

function byTag(fields: readonly FieldPlan[]): (FieldPlan | undefined)[] {
  const table: (FieldPlan | undefined)[] = [];
  for (const field of fields) table[field.tag] = field;
  return table;
}

// Reading. The cursor and the two halves of the last varint stand outside the functions: one message is read at a time.

let input: Buffer = Buffer.alloc(0);
/** The same bytes, one character each: a piece of ASCII is cut out of it for next to nothing. */
let characters = "";
let at = 0;
let low = 0;
let high = 0;
/** Something is unusual: what has been read so far is dropped. */
let odd = false;

function textOf(plan: Plan, bytes: Uint8Array): string | undefined {
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

// Writing, into one scratch buffer that is copied when the message is complete.

let output = Buffer.allocUnsafeSlow(16 * 1024);
let to = 0;

function bytesOf(plan: Plan, json: unknown): Buffer | undefined {
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
