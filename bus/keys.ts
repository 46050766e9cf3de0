/**
 * Any text as one token of a subject or a key-value key, and back. What is a plain id stays readable: letters, digits, `-` and `_`
 * are themselves, every other byte of the UTF-8 form is `=XX`, and the empty text is a lone `=`.
 */
import { invalidArgument } from "../contracts/errors.ts";

/** Longest key, characters. The server cuts the connection of a client whose subject does not fit its control line of 4096 bytes. */
export const MAX_KEY_LENGTH = 1024;

const special = /[^A-Za-z0-9_-]/u;
const specials = /[^A-Za-z0-9_-]/gu;

/** One part as one token. Throws `invalid_argument` for text that UTF-8 cannot hold (a lone surrogate). */
export function tokenOf(part: string): string {
  if (part === "") return "=";
  if (!special.test(part)) return part;
  if (!part.isWellFormed()) throw invalidArgument("key", "is not well-formed text");
  return part.replaceAll(specials, (char) => {
    let escaped = "";
    for (const byte of Buffer.from(char, "utf8")) escaped += `=${byte.toString(16).toUpperCase().padStart(2, "0")}`;
    return escaped;
  });
}

/** The text a token stands for. */
export function partOf(token: string): string {
  if (token === "=") return "";
  if (!token.includes("=")) return token;
  const bytes: number[] = [];
  for (let at = 0; at < token.length; at++) {
    if (token[at] === "=") {
      bytes.push(Number.parseInt(token.slice(at + 1, at + 3), 16));
      at += 2;
    } else bytes.push(token.charCodeAt(at));
  }
  return Buffer.from(bytes).toString("utf8");
}

/** Parts as one key, a token each: `keyOf("acme inc.", "default")` is `acme=20inc=2E.default`. Throws `invalid_argument` when it is too long. */
export function keyOf(...parts: readonly string[]): string {
  const key = parts.map(tokenOf).join(".");
  if (key.length > MAX_KEY_LENGTH) throw invalidArgument("key", `is longer than ${MAX_KEY_LENGTH} characters`);
  return key;
}

/** The parts a key was made of. */
export function partsOf(key: string): string[] {
  return key.split(".").map(partOf);
}
