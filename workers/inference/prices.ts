/** What calls cost, from a versioned table, in integer micro-dollars. */
import { readFileSync } from "node:fs";
import type { Tokens } from "./provider.ts";

/** Micro-dollars per million tokens. */
export interface Price {
  readonly input: number;
  readonly output: number;
}

export interface PriceTable {
  readonly version: string;
  /** Names without the date or the word of a release, which a model may have behind its name: `gpt-4o-2024-08-06`, `claude-3-5-haiku-latest`. */
  readonly models: readonly (Price & { readonly model: string })[];
  /** For models the table does not know, and for the budgets of the aiOS gateway (aiOS, API gateway: costs). */
  readonly families: readonly (Price & { readonly family: string })[];
}

/** The table that comes with the product, or one of the operator's. Throws when it is not one. */
export function loadPrices(path?: string): PriceTable {
  const table = JSON.parse(readFileSync(path ?? new URL("./prices.json", import.meta.url), "utf8")) as PriceTable;
  for (const row of [...table.models, ...table.families]) {
    if (![row.input, row.output].every((price) => Number.isSafeInteger(price) && price >= 0))
      throw new Error(`price table ${path ?? ""}: prices must be whole micro-dollars`);
  }
  return table;
}

const RELEASE = /[-@](\d{4,8}(-\d\d-\d\d)?|latest|preview)$/;

/** The price of a model, or of its family; undefined when nobody knows either: such calls cost 0 and say so. */
export function priceOf(table: PriceTable, family: string, model: string): Price | undefined {
  const name = model.replace(RELEASE, "");
  return table.models.find((row) => row.model === model || row.model === name) ?? familyPrice(table, family);
}

export function familyPrice(table: PriceTable, family: string): Price | undefined {
  return table.families.find((row) => row.family === family);
}

/** Integer micro-dollars, half up. Where only a sum of tokens is known it is split half and half. */
export function costOf(price: Price | undefined, tokens: Tokens): number {
  if (price === undefined) return 0;
  const { input, output } = splitTokens(tokens);
  return Math.round((input * price.input + output * price.output) / 1_000_000);
}

export function splitTokens({ input, output, total = 0 }: Tokens): { input: number; output: number } {
  if (input !== undefined || output !== undefined) return { input: input ?? 0, output: output ?? 0 };
  const half = Math.floor(total / 2);
  return { input: half, output: half };
}
