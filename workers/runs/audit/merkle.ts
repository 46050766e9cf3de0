/** The Merkle tree hash of RFC 6962 over a growing list, from the peaks of its complete subtrees: a few hashes, whatever the length. */
import { createHash } from "node:crypto";

/** Peaks from the largest subtree to the smallest, hex, with the number of leaves below all of them. */
export interface Peaks {
  readonly count: number;
  readonly hashes: readonly string[];
}

export const NO_PEAKS: Peaks = { count: 0, hashes: [] };

/** The peaks with one more leaf. */
export function withLeaf({ count, hashes }: Peaks, leaf: string): Peaks {
  const grown = [...hashes, hash("00", Buffer.from(leaf, "utf8").toString("hex"))];
  // As many subtrees are complete now as the count has trailing ones.
  for (let rest = count; rest % 2 === 1; rest = Math.floor(rest / 2)) {
    const right = grown.pop() ?? "";
    const left = grown.pop() ?? "";
    grown.push(hash("01", left + right));
  }
  return { count: count + 1, hashes: grown };
}

/** The root, hex. */
export function rootOf({ hashes }: Peaks): string {
  if (hashes.length === 0) return createHash("sha256").digest("hex");
  return hashes.slice(0, -1).reduceRight((right, left) => hash("01", left + right), hashes.at(-1) ?? "");
}

function hash(prefix: string, hex: string): string {
  return createHash("sha256")
    .update(Buffer.from(prefix + hex, "hex"))
    .digest("hex");
}
