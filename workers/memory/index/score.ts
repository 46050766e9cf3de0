/**
 * How relevant a text is: meaning and words, blended into one number from 0 to 1 (aiOS, memory, semantic search).
 *
 * Pure, and the same whatever the index: an index proposes candidates, this decides.
 */

const MEANING = 0.6;
const WORDS = 0.4;
/** Keyword score of a query without words: blended, the 0.2 of the contract. */
const NO_WORDS = Math.SQRT1_2;

/** Words that say nothing about what a text is about; they count only when a query has no others. */
const common = new Set(
  (
    "a about after all also am an and any are as at be been before being but by can could did do does doing done during each few for from get gets " +
    "got had has have having he her him his how i if in into is it its just may me might more most much many must my no nor not of off on once " +
    "only or other our out over own please shall she should so some such than that the their them then there these they this those through to " +
    "too under until up us very was we were what when where which while who whom whose why will with would you your"
  ).split(" "),
);

/** Words of a query that are looked for at most, from its beginning: each costs a look into every candidate. */
const MOST_WORDS = 200;
/** Characters of a query that words are taken from. */
const READ_CHARS = 20_000;

/**
 * The words of a query that are looked for: lower case, without punctuation around them, each once, the first 200. White space and control
 * characters are between words.
 */
export function wordsOf(query: string): string[] {
  const all = new Set<string>();
  for (const raw of query
    .slice(0, READ_CHARS)
    .toLowerCase()
    .split(/[\s\p{Cc}]+/u)) {
    const word = /[\p{L}\p{N}](?:.*[\p{L}\p{N}])?/su.exec(raw)?.[0]; // in one pass, whatever there is between
    if (word !== undefined) all.add(word);
  }
  const telling = [...all].filter((word) => !common.has(word));
  return (telling.length > 0 ? telling : [...all]).slice(0, MOST_WORDS);
}

/** Share of the words that occur somewhere in the text, whatever their case. */
export function keywordScore(words: readonly string[], text: string): number {
  if (words.length === 0) return NO_WORDS;
  const haystack = text.toLowerCase();
  let found = 0;
  for (const word of words) if (haystack.includes(word)) found++;
  return found / words.length;
}

/**
 * Relevance from the cosine of the vectors (below zero counts as none) and the share of words found. The share counts squared: all the words
 * of a query put a text first, one of many is likely to be a coincidence (bench/memory.retrieval: recall@1 0.54 instead of 0.44).
 */
export function relevance(cosine: number, keywords: number): number {
  const blended = MEANING * Math.min(1, Math.max(0, cosine)) + WORDS * keywords ** 2;
  return Math.min(1, Math.max(0, blended));
}

/** Cosine similarity of two vectors of length 1. */
export function cosine(one: ArrayLike<number>, other: ArrayLike<number>): number {
  let sum = 0;
  for (let at = 0; at < one.length; at++) sum += (one[at] ?? 0) * (other[at] ?? 0);
  return sum;
}

/** A vector scaled to length 1; one without a direction stays as it is. */
export function unit(vector: ArrayLike<number>): Float32Array {
  let square = 0;
  for (let at = 0; at < vector.length; at++) square += (vector[at] ?? 0) ** 2;
  const length = Math.sqrt(square);
  return Float32Array.from(vector, (value) => (length > 0 ? value / length : value));
}

/** Lower case of ASCII letters alone, as SQL LIKE compares (aiOS, memory, pattern matching). */
export function lowerAscii(text: string): string {
  return text.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase());
}
