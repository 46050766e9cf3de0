/**
 * Randomness and identifiers as ports, with implementations for the machine and repeatable ones for tests.
 */
import { randomFillSync, randomUUID } from "node:crypto";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";

export interface Random {
  /** At least 0, below 1. Not for secrets. */
  float(): number;
  /** Bytes nobody can guess; in the repeatable implementation, bytes a test can. */
  bytes(length: number): Uint8Array;
}

export interface Ids {
  /** A random UUID. */
  v4(): string;
  /** A UUID that sorts by time of making (RFC 9562), also within a millisecond; for keys of stored things. */
  v7(): string;
}

const POOL_BYTES = 8_192;

/** Randomness of the machine; bytes are drawn from it in blocks, since one draw costs as much as a hundred ids. */
export function createSystemRandom(): Random {
  const pool = Buffer.allocUnsafeSlow(POOL_BYTES);
  let used = POOL_BYTES;
  return {
    float: Math.random,
    bytes(length) {
      if (length > POOL_BYTES) return randomFillSync(new Uint8Array(length));
      if (used + length > POOL_BYTES) {
        randomFillSync(pool);
        used = 0;
      }
      used += length;
      return Uint8Array.prototype.slice.call(pool, used - length, used);
    },
  };
}

/** The same numbers for the same seed, always (the mulberry32 generator). */
export function createSeededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  return {
    float: () => next() / 2 ** 32,
    bytes: (length) => Uint8Array.from({ length }, () => next() >>> 24),
  };
}

/** Identifiers made from a clock and a source of randomness. */
export function createIds(clock: Clock, random: Random): Ids {
  let lastMs = 0;
  let sequence = 0;
  return {
    v4: () => uuid(random.bytes(16), 4),
    v7() {
      const nowMs = clock.now();
      const bytes = random.bytes(16);
      if (nowMs > lastMs) {
        lastMs = nowMs;
        // Starts in the lower half, so that at least 2048 more ids fit into the millisecond.
        sequence = (((bytes[6] ?? 0) << 8) | (bytes[7] ?? 0)) & 0x7ff;
      } else if (++sequence > 0xfff) {
        // More ids than fit, or a clock that was set back: borrow from the next millisecond rather than lose the order.
        lastMs += 1;
        sequence = 0;
      }
      const [high, low] = [Math.floor(lastMs / 2 ** 32), lastMs >>> 0];
      bytes.set([high >>> 8, high, low >>> 24, low >>> 16, low >>> 8, low, sequence >>> 8, sequence]);
      return uuid(bytes, 7);
    },
  };
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** Writes version and variant into the 16 bytes and gives the text. */
function uuid(bytes: Uint8Array, version: number): string {
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | (version << 4);
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return `${hex(bytes, 0, 4)}-${hex(bytes, 4, 6)}-${hex(bytes, 6, 8)}-${hex(bytes, 8, 10)}-${hex(bytes, 10, 16)}`;
}

function hex(bytes: Uint8Array, from: number, to: number): string {
  let text = "";
  for (let at = from; at < to; at++) text += HEX[bytes[at] ?? 0];
  return text;
}

/** Randomness of the machine, shared. */
export const systemRandom: Random = createSystemRandom();

/** Identifiers from the machine's clock and randomness, shared. */
export const systemIds: Ids = { ...createIds(systemClock, systemRandom), v4: () => randomUUID() };
