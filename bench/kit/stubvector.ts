/** A vector for a text, the same every time: a sum of fixed directions, one per word, so that texts with words in common are near. */
import { createSeededRandom } from "../../runtime/ids.ts";
import { unit } from "../../workers/memory/index/score.ts";

export const STUB_DIMENSIONS = 512;

const directions = new Map<string, Float32Array>();

function directionOf(word: string): Float32Array {
  let direction = directions.get(word);
  if (direction !== undefined) return direction;
  let seed = 7;
  for (const char of word) seed = (Math.imul(seed, 31) + (char.codePointAt(0) ?? 0)) >>> 0;
  const random = createSeededRandom(seed);
  direction = Float32Array.from({ length: STUB_DIMENSIONS }, () => random.float() - 0.5);
  directions.set(word, direction);
  return direction;
}

export function stubVector(text: string): Float32Array {
  const sum = new Float32Array(STUB_DIMENSIONS);
  for (const word of text.toLowerCase().split(/\W+/)) {
    const direction = directionOf(word);
    for (let at = 0; at < sum.length; at++) sum[at] = (sum[at] ?? 0) + (direction[at] ?? 0);
  }
  return unit(sum);
}
