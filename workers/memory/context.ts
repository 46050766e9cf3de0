/**
 * Which memories go into a context of limited size (aiOS, memory, context assembly). Pure.
 *
 * X1 A chunk costs a quarter of its UTF-8 bytes in tokens, rounded up; the sum never goes beyond the budget.
 * X2 The most relevant come first; each further chunk of a tier counts a little less, so that no tier crowds out the others.
 * X3 A chunk that does not fit is skipped, the next is tried. The same content is taken once, whatever tier it comes from.
 * X4 The same candidates give the same context: ties are decided by tier, then by their order in it.
 */
export type Tier = "operational" | "working" | "longterm" | "knowledge";

export const tiers: readonly Tier[] = ["operational", "working", "longterm", "knowledge"];

export interface Chunk {
  readonly source: Tier;
  readonly content: string;
  readonly relevance: number;
  readonly tokens: number;
}

export interface Offer {
  readonly content: string;
  readonly relevance: number;
}

/** Budget when the caller gives none, tokens. */
export const DEFAULT_TOKENS = 4_000;
/** What the second chunk of a tier counts beside the first, the third beside the second, and so on. */
const CROWDING = 0.95;

/** The tiers a caller asks for, in its order: `long_term` is `longterm`, unknown ones are skipped, none at all means every one. */
export function tiersOf(wanted: readonly string[]): Tier[] {
  if (wanted.length === 0) return [...tiers];
  const named = wanted.map((name) => (name === "long_term" ? "longterm" : name));
  return tiersIn(named);
}

function tiersIn(names: readonly string[]): Tier[] {
  const known = new Set<Tier>();
  for (const name of names) {
    const tier = tiers.find((one) => one === name);
    if (tier !== undefined) known.add(tier);
  }
  return [...known];
}

export function tokensOf(content: string): number {
  return Math.ceil(Buffer.byteLength(content) / 4);
}

/** The context. A budget of 0 is the default one, a negative one has room for nothing. */
export function assemble(
  offers: ReadonlyMap<Tier, readonly Offer[]>,
  maxTokens: number,
): { chunks: Chunk[]; total_tokens: number } {
  const budget = maxTokens === 0 ? DEFAULT_TOKENS : maxTokens;
  const waiting = [...offers].map(([source, list]) => ({
    source,
    list: list.toSorted((a, b) => b.relevance - a.relevance),
    next: 0,
    taken: 0,
  }));
  const chunks: Chunk[] = [];
  const seen = new Set<string>();
  let total = 0;
  while (total < budget) {
    let best: (typeof waiting)[number] | undefined;
    let bestScore = -1;
    for (const tier of waiting) {
      const offer = tier.list[tier.next];
      if (offer === undefined) continue;
      const score = offer.relevance * CROWDING ** tier.taken; // X2
      if (score > bestScore) [best, bestScore] = [tier, score]; // X4
    }
    const offer = best?.list[best.next];
    if (best === undefined || offer === undefined) break;
    best.next++;
    const tokens = tokensOf(offer.content);
    const key = offer.content.trim();
    if (total + tokens > budget || seen.has(key)) continue; // X3
    seen.add(key);
    total += tokens;
    best.taken++;
    chunks.push({ source: best.source, content: offer.content, relevance: offer.relevance, tokens });
  }
  const order = [...offers.keys()];
  const ranked = chunks.map((chunk, at) => ({ chunk, at }));
  ranked.sort(
    (a, b) =>
      b.chunk.relevance - a.chunk.relevance ||
      order.indexOf(a.chunk.source) - order.indexOf(b.chunk.source) ||
      a.at - b.at,
  );
  return { chunks: ranked.map(({ chunk }) => chunk), total_tokens: total };
}
