/**
 * Protobuf bytes to the bus's JSON text and back, in one pass and without a message object in between: what the edge does on
 * every call. The rules are those of the codec (C1–C6), held to the same golden files.
 *
 * Only what is plain goes the short way. Whatever is unusual - text that may not be UTF-8, a value of the wrong type, a field
 * given twice, a type the short way does not know - is left to the generated message and the codec, which also know how to
 * refuse it.
 */
import { codecOf, registry, type MessageType } from "./codec.ts";
import { invalidArgument } from "./errors.ts";
import { planOf } from "./wireplan.ts";
import { textOf } from "./wireread.ts";
import { bytesOf } from "./wirewrite.ts";

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
