import { hash } from "node:crypto";

/** An id in the shape of a random UUID, the same for the same parts. */
export function uuidOf(...parts: readonly (string | number)[]): string {
  const bytes = Buffer.from(hash("sha256", JSON.stringify(parts), "hex"), "hex").subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
