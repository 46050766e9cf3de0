/**
 * A value inside a JSON text as it was written, byte for byte: what is parsed and printed again loses large integers, spaces and the spelling
 * of numbers. The text must be valid JSON; of a key that is there twice the last counts, as when parsing.
 */
export function sliceAt(text: string, path: readonly string[]): string | undefined {
  let start = skipSpace(text, 0);
  for (const key of path) {
    const found = valueOf(text, start, key);
    if (found === undefined) return undefined;
    start = found;
  }
  return text.slice(start, endOf(text, start));
}

/** Where the value of a key of the object at `start` begins. */
function valueOf(text: string, start: number, key: string): number | undefined {
  if (text[start] !== "{") return undefined;
  let found: number | undefined;
  let at = skipSpace(text, start + 1);
  while (text[at] === '"') {
    const end = endOf(text, at);
    const name = JSON.parse(text.slice(at, end)) as string;
    const value = skipSpace(text, skipSpace(text, end) + 1); // behind the colon
    if (name === key) found = value;
    at = skipSpace(text, endOf(text, value));
    if (text[at] === ",") at = skipSpace(text, at + 1);
  }
  return found;
}

const space = new Set([" ", "\t", "\n", "\r"]);

function skipSpace(text: string, at: number): number {
  while (space.has(text[at] ?? "")) at++;
  return at;
}

/** Where the value that begins at `start` ends. */
function endOf(text: string, start: number): number {
  const first = text[start];
  if (first === '"') return endOfString(text, start);
  if (first !== "{" && first !== "[") {
    let at = start;
    while (at < text.length && !",]} \t\n\r".includes(text[at] ?? "")) at++;
    return at;
  }
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    const char = text[at];
    if (char === '"') at = endOfString(text, at) - 1;
    else if (char === "{" || char === "[") depth++;
    else if ((char === "}" || char === "]") && --depth === 0) return at + 1;
  }
  return text.length;
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === '"') return at + 1;
  }
  return text.length;
}
