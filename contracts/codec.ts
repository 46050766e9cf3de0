/**
 * The JSON of the bus, and only that JSON. One compiled codec per message type, derived from the descriptors.
 *
 * Rules (BeamLine, JSON and protobuf rules; design, how a call travels):
 * C1 names are the contract's snake_case names; there are no aliases.
 * C2 int32 and int64 are numbers while safe, decimal strings beyond 2^53; both are accepted.
 * C3 text bytes (`payload`, `body`, `data` of a provider chunk, every `*_json` and `*_schema`) are UTF-8 strings, never
 *    sniffed for base64; bytes that are not UTF-8 are refused, never mangled. Other bytes are base64.
 * C4 unset fields are omitted; null and absence are one; unknown fields are ignored.
 * C5 a non-string value in a map<string,string> becomes its JSON text.
 * C6 an error names the field by its full path.
 */
import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { configureTextEncoding, getTextEncoding } from "@bufbuild/protobuf/wire";
import { createFileRegistry, fromBinary, ScalarType, type DescField, type DescMessage } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { BeamlineError, invalidArgument } from "./errors.ts";

/** What ts-proto generates per message, as far as a codec needs it. */
export interface MessageType<T = unknown> {
  readonly $type?: string;
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
  fromPartial(partial: object): T;
}

/** Some message type: what every generated one is, whatever its message. */
export interface AnyMessageType {
  readonly $type?: string;
  encode(message: never): { finish(): Uint8Array };
  decode(bytes: Uint8Array): unknown;
  fromPartial(partial: never): unknown;
}

export type JsonObject = Record<string, unknown>;

// Text that is not UTF-8 is refused when protobuf is read, not replaced: the default decoder would mangle it in silence (C3).
const encoding = getTextEncoding();
configureTextEncoding({ ...encoding, decodeUtf8: (bytes) => encoding.decodeUtf8(bytes, true) });

export interface Codec<T> {
  /** The message as JSON data with its unset fields omitted. Throws `invalid_argument` for text bytes that are not UTF-8. */
  toJson(message: T): JsonObject;
  /** The message a JSON object stands for. Throws `invalid_argument` naming the field. */
  fromJson(json: unknown): T;
}

type Message = Record<string, unknown>;
type ToJson = (value: unknown) => unknown;
type FromJson = (json: unknown) => unknown;

/** The descriptors of every contract, as a `google.protobuf.FileDescriptorSet`. */
export const descriptorSet: Uint8Array = readFileSync(new URL("./gen/descriptors.binpb", import.meta.url));
export const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));

const compiled = new Map<string, Codec<unknown>>();

/** A message type whose message nobody needs to know by name, as the loops over routes see it. */
export function opaque(type: AnyMessageType): MessageType {
  return type;
}

/** The codec of a generated message type; compiled once. */
export function codecOf<T>(type: MessageType<T>): Codec<T> {
  const name = type.$type;
  const known = name === undefined ? undefined : compiled.get(name);
  if (known !== undefined) return known as Codec<T>;
  const descriptor = name === undefined ? undefined : registry.getMessage(name);
  if (name === undefined || descriptor === undefined) throw new Error(`no descriptor for message type ${name ?? "?"}`);
  const shape = shapeOf(descriptor);
  const codec: Codec<T> = {
    toJson: (message) => shape.toJson(message) as JsonObject,
    fromJson: (json) => type.fromPartial(shape.fromJson(json) as object),
  };
  compiled.set(name, codec);
  return codec;
}

interface Shape {
  readonly toJson: ToJson;
  readonly fromJson: FromJson;
}

const shapes = new Map<string, Shape>();

function shapeOf(descriptor: DescMessage): Shape {
  const special = wellKnown[descriptor.typeName];
  if (special !== undefined) return special;
  const known = shapes.get(descriptor.typeName);
  if (known !== undefined) return known;
  const fields: FieldCodec[] = [];
  const shape: Shape = {
    toJson(message) {
      const out: JsonObject = {};
      for (const field of fields) field.write(message as Message, out);
      return out;
    },
    fromJson(json) {
      if (!isObject(json)) throw invalidArgument("", "must be a JSON object");
      const out: Message = {};
      for (const field of fields) {
        const value = json[field.name];
        if (value !== undefined && value !== null) out[field.name] = within(field.name, field.read, value);
      }
      return out;
    },
  };
  shapes.set(descriptor.typeName, shape); // before the fields: messages may contain themselves
  fields.push(...descriptor.fields.map(fieldCodec));
  return shape;
}

interface FieldCodec {
  readonly name: string;
  write(message: Message, out: JsonObject): void;
  read: FromJson;
}

function fieldCodec(field: DescField): FieldCodec {
  const { name } = field;
  const { toJson, fromJson, isUnset } = valueOf(field);
  switch (field.fieldKind) {
    case "list":
      return {
        name,
        write(message, out) {
          const list = message[name] as unknown[];
          if (list.length > 0) out[name] = list.map((item, i) => within(`${name}[${i}]`, toJson, item));
        },
        read(json) {
          if (!Array.isArray(json)) throw invalidArgument("", "must be an array");
          return json.map((item, i) => within(`[${i}]`, fromJson, item));
        },
      };
    case "map":
      return {
        name,
        write(message, out) {
          const map = message[name] as Record<string, unknown>;
          let any = false;
          const entries: JsonObject = {};
          for (const key in map) {
            any = true;
            put(entries, key, toJson(map[key]));
          }
          if (any) out[name] = entries;
        },
        read(json) {
          if (!isObject(json)) throw invalidArgument("", "must be an object");
          const map: JsonObject = {};
          for (const key of Object.keys(json)) {
            if (json[key] !== null) put(map, key, within(key, fromJson, json[key]));
          }
          return map;
        },
      };
    default:
      return {
        name,
        write(message, out) {
          const value = message[name];
          if (!isUnset(value)) out[name] = within(name, toJson, value);
        },
        read: fromJson,
      };
  }
}

interface ValueCodec {
  readonly toJson: ToJson;
  readonly fromJson: FromJson;
  /** Whether a singular field holds its default, and so is not written. */
  readonly isUnset: (value: unknown) => boolean;
}

const absent = (value: unknown): boolean => value === undefined;

function valueOf(field: DescField): ValueCodec {
  if (field.message !== undefined) return { ...shapeLater(field.message), isUnset: absent };
  if (field.enum !== undefined) {
    const { values, value } = field.enum;
    return {
      toJson: (n) => value[n as number]?.name ?? n,
      fromJson(json) {
        const found = values.find((v) => v.name === json || v.number === json);
        if (found === undefined) throw invalidArgument("", `must be one of ${values.map((v) => v.name).join(", ")}`);
        return found.number;
      },
      isUnset: (n) => n === 0 || n === undefined,
    };
  }
  const text = isTextBytes(field);
  switch (field.scalar) {
    case ScalarType.STRING:
      return {
        toJson: same,
        fromJson: isMapOfStrings(field) ? stringify : string,
        isUnset: (v) => v === "" || v === undefined,
      };
    case ScalarType.BOOL:
      return { toJson: same, fromJson: boolean, isUnset: (v) => v !== true };
    case ScalarType.BYTES:
      return {
        toJson: text ? textOfBytes : base64OfBytes,
        fromJson: text ? bytesOfText : bytesOfBase64,
        isUnset: (v) => v === undefined || (v as Uint8Array).length === 0,
      };
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return { toJson: finite, fromJson: finite, isUnset: (v) => v === 0 || v === undefined };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return {
        toJson: int64ToJson,
        fromJson: integer64(-(1n << 63n), (1n << 63n) - 1n),
        isUnset: (v) => v === 0n || v === undefined,
      };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return {
        toJson: int64ToJson,
        fromJson: integer64(0n, (1n << 64n) - 1n),
        isUnset: (v) => v === 0n || v === undefined,
      };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { toJson: same, fromJson: integer32(0, 2 ** 32 - 1), isUnset: (v) => v === 0 || v === undefined };
    default:
      return { toJson: same, fromJson: integer32(-(2 ** 31), 2 ** 31 - 1), isUnset: (v) => v === 0 || v === undefined };
  }
}

/** Looked up on first use, so that recursive messages compile. */
function shapeLater(descriptor: DescMessage): Shape {
  let shape: Shape | undefined;
  return {
    toJson: (value) => (shape ??= shapeOf(descriptor)).toJson(value),
    fromJson: (json) => (shape ??= shapeOf(descriptor)).fromJson(json),
  };
}

/** Bytes the contracts carry as UTF-8 text (C3). */
export function isTextBytes(field: DescField): boolean {
  if (field.scalar !== ScalarType.BYTES) return false;
  if (field.parent.typeName === "beamline.provider.v1.StreamChunk") return field.name === "data";
  return (
    field.name === "payload" || field.name === "body" || field.name.endsWith("_json") || field.name.endsWith("_schema")
  );
}

function isMapOfStrings(field: DescField): boolean {
  return field.fieldKind === "map" && field.scalar === ScalarType.STRING;
}

const wellKnown: Readonly<Record<string, Shape>> = {
  "google.protobuf.Struct": { toJson: allFinite, fromJson: object },
  "google.protobuf.Value": { toJson: allFinite, fromJson: same },
  "google.protobuf.Timestamp": {
    toJson: (date) => (date as Date).toISOString(),
    fromJson(json) {
      const date = new Date(string(json));
      if (Number.isNaN(date.getTime())) throw invalidArgument("", "must be an RFC 3339 timestamp");
      return date;
    },
  },
  "google.protobuf.Empty": { toJson: () => ({}), fromJson: object },
};

function same(value: unknown): unknown {
  return value;
}

/** A lone surrogate has no UTF-8 form: refused rather than replaced. */
function string(json: unknown): string {
  if (typeof json !== "string") throw invalidArgument("", "must be a string");
  if (!json.isWellFormed()) throw invalidArgument("", "must be well-formed Unicode");
  return json;
}

/** A string as it is, anything else as its JSON text (C5). */
function stringify(json: unknown): string {
  return string(typeof json === "string" ? json : JSON.stringify(json));
}

function boolean(json: unknown): boolean {
  if (typeof json !== "boolean") throw invalidArgument("", "must be true or false");
  return json;
}

function object(json: unknown): JsonObject {
  if (!isObject(json)) throw invalidArgument("", "must be an object");
  return json;
}

function finite(value: unknown): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw invalidArgument("", "must be a finite number");
  return value;
}

const decimal = /^-?(0|[1-9]\d*)$/;

function integer32(min: number, max: number): (json: unknown) => number {
  return (json) => {
    const value = typeof json === "string" && decimal.test(json) ? Number(json) : json;
    if (typeof value !== "number" || !Number.isInteger(value)) throw invalidArgument("", "must be an integer");
    if (value < min || value > max) throw invalidArgument("", `must be between ${min} and ${max}`);
    return value;
  };
}

function integer64(min: bigint, max: bigint): (json: unknown) => bigint {
  return (json) => {
    let value: bigint;
    if (typeof json === "number" && Number.isSafeInteger(json)) value = BigInt(json);
    else if (typeof json === "string" && decimal.test(json)) value = BigInt(json);
    else throw invalidArgument("", "must be an integer, as a decimal string beyond 2^53");
    if (value < min || value > max) throw invalidArgument("", `must be between ${min} and ${max}`);
    return value;
  };
}

function int64ToJson(value: unknown): number | string {
  const n = Number(value);
  return Number.isSafeInteger(n) ? n : String(value);
}

function textOfBytes(value: unknown): string {
  const bytes = value as Uint8Array;
  if (!isUtf8(bytes)) throw invalidArgument("", "must be valid UTF-8");
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

function bytesOfText(json: unknown): Uint8Array {
  return Buffer.from(stringify(json), "utf8");
}

function base64OfBytes(value: unknown): string {
  const bytes = value as Uint8Array;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

function bytesOfBase64(json: unknown): Uint8Array {
  if (typeof json !== "string" || !base64.test(json)) throw invalidArgument("", "must be base64");
  return Buffer.from(json, "base64");
}

function isObject(json: unknown): json is JsonObject {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

/** JSON as it is; a number that JSON cannot write is refused rather than made null (protobuf, ProtoJSON). */
function allFinite(value: unknown): unknown {
  if (typeof value === "number") return finite(value);
  if (Array.isArray(value)) value.forEach((item, i) => within(`[${i}]`, allFinite, item));
  else if (isObject(value)) for (const key of Object.keys(value)) within(key, allFinite, value[key]);
  return value;
}

/** Assignment that also keeps a key named `__proto__`. */
function put(target: JsonObject, key: string, value: unknown): void {
  if (key === "__proto__")
    Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
  else target[key] = value;
}

/** Runs a step for one field and puts the field's name in front of the path of any error it throws (C6). */
function within(name: string, step: (value: unknown) => unknown, value: unknown): unknown {
  try {
    return step(value);
  } catch (thrown) {
    if (!(thrown instanceof BeamlineError)) throw thrown;
    const inner = thrown.field ?? "";
    const what = thrown.message.slice(inner.length).trimStart();
    const path = inner === "" ? name : inner.startsWith("[") ? name + inner : `${name}.${inner}`;
    throw invalidArgument(path, what);
  }
}
