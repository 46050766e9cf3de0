/** States of runs that were read, the least recently used forgotten first: as many as fit, and never more bytes than a worker can spare. */
import type { Held } from "./log.ts";

const MOST = 2_000;
/** About as many bytes of values as are kept. One run of a larger state is kept alone. */
const MOST_BYTES = 128 * 1024 * 1024;
/** What a value takes beside its text, bytes. */
const VALUE_BYTES = 32;

interface Place {
  readonly held: Held;
  /** As of `streamSeq`. */
  readonly bytes: number;
  readonly streamSeq: number;
}

export class RunCache {
  /** Least recently used first. */
  readonly #places = new Map<string, Place>();
  readonly #mostBytes: number;
  #bytes = 0;

  constructor(mostBytes = MOST_BYTES) {
    this.#mostBytes = mostBytes;
  }

  get size(): number {
    return this.#places.size;
  }

  get(key: string): Held | undefined {
    return this.#places.get(key)?.held;
  }

  /** Keeps it as the most recently used. A state that moved on is weighed anew. */
  put(key: string, held: Held): void {
    const known = this.#places.get(key);
    const same = known?.held === held && known.streamSeq === held.streamSeq;
    const place = same ? known : { held, streamSeq: held.streamSeq, bytes: bytesOf(held.state, this.#mostBytes) };
    this.delete(key);
    this.#places.set(key, place);
    this.#bytes += place.bytes;
    for (const oldest of this.#places.keys()) {
      if (this.#places.size <= MOST && (this.#bytes <= this.#mostBytes || this.#places.size === 1)) return;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    this.#bytes -= this.#places.get(key)?.bytes ?? 0;
    this.#places.delete(key);
  }
}

/** About what a value takes in memory; counting ends beyond `most`. */
function bytesOf(value: unknown, most: number): number {
  const left: unknown[] = [value];
  let bytes = 0;
  while (left.length > 0 && bytes <= most) {
    const one = left.pop();
    bytes += VALUE_BYTES;
    if (typeof one === "string") bytes += one.length;
    else if (one instanceof Map) for (const [key, part] of one) left.push(key, part);
    else if (one instanceof Set || Array.isArray(one)) for (const part of one) left.push(part);
    else if (typeof one === "object" && one !== null)
      for (const name in one) left.push((one as Record<string, unknown>)[name]);
  }
  return bytes;
}
