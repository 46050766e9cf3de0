/** Pieces that never end inside a character: half a surrogate pair waits for its other half, and one that never gets it becomes the replacement character. */
import type { Piece } from "./provider.ts";

const HALF = /[\uD800-\uDBFF]$/;

export async function* inWholeCharacters(pieces: AsyncIterable<Piece>): AsyncGenerator<Piece> {
  let held = "";
  for await (const piece of pieces) {
    if ("end" in piece) {
      if (held !== "") yield { text: held.toWellFormed() };
      yield piece;
      return;
    }
    const text = held + piece.text;
    const whole = HALF.test(text) ? text.slice(0, -1) : text;
    held = text.slice(whole.length);
    if (whole !== "") yield { text: whole.toWellFormed() };
  }
}
