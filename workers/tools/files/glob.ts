/** Globs for file names: `*`, `?`, `[abc]`, `[!abc]`, no ranges (aiOS tools, fs.search). Takes time in proportion to pattern times name. */

type Piece = "*" | "?" | { readonly not: boolean; readonly chars: ReadonlySet<string> } | { readonly char: string };

/** Whether a name matches the pattern, whole. An unclosed bracket is a plain character. */
export function globMatcher(pattern: string): (name: string) => boolean {
  const pieces = parse(pattern);
  return (name) => {
    const chars = Array.from(name);
    let [at, piece] = [0, 0];
    let [star, resume] = [-1, 0];
    while (at < chars.length) {
      const one = pieces[piece];
      if (one === "*") {
        star = piece++;
        resume = at;
      } else if (one !== undefined && fits(one, chars[at] ?? "")) {
        at++;
        piece++;
      } else if (star >= 0) {
        piece = star + 1;
        at = ++resume;
      } else return false;
    }
    while (pieces[piece] === "*") piece++;
    return piece === pieces.length;
  };
}

function fits(piece: Piece, char: string): boolean {
  if (piece === "?") return true;
  if (piece === "*") return false;
  return "char" in piece ? piece.char === char : piece.chars.has(char) !== piece.not;
}

function parse(pattern: string): Piece[] {
  const chars = Array.from(pattern);
  const pieces: Piece[] = [];
  for (let at = 0; at < chars.length; at++) {
    const char = chars[at] ?? "";
    const close = char === "[" ? chars.indexOf("]", at + (chars[at + 1] === "!" ? 3 : 2)) : -1;
    if (char === "*" || char === "?") pieces.push(char);
    else if (close > 0) {
      const not = chars[at + 1] === "!";
      pieces.push({ not, chars: new Set(chars.slice(at + (not ? 2 : 1), close)) });
      at = close;
    } else pieces.push({ char });
  }
  return pieces;
}
