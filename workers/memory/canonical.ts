/**
 * Tells in one pass whether a request's text is already the canonical text of an event (arrival, E1), so that it is kept as it came: nothing is parsed,
 * nothing is written again. Whatever is unusual gets no for an answer and goes the long way (event.ts), which also knows how to refuse it.
 *
 * A yes means: id and timestamp are set, fields stand in the order of the contract without white space, strings are written as `JSON.stringify` writes
 * them, and `data_json` is JSON.
 */

/** How an event is kept, undefined for a text that is not a canonical one or cannot be told to be in one pass. */
export function canonicalKind(text: string): "ordinary" | "critical" | undefined {
  if (text.length > MOST_CHARS || !text.startsWith('{"id":"')) return undefined;
  source = text;
  at = 7;
  if (!plainText() || !timestamp()) return undefined;
  if (follows(',"category":"') && !plainText()) return undefined;
  if (follows(',"source":"') && !plainText()) return undefined;
  if (follows(',"data_json":"') && !jsonInText()) return undefined;
  const critical = follows(',"critical":true');
  if (source.charCodeAt(at) !== CLOSE_BRACE || at + 1 !== source.length) return undefined;
  return critical ? "critical" : "ordinary";
}

/** Longer texts are not worth a second way: what they cost is their bytes. */
const MOST_CHARS = 65_536;
const MOST_NESTING = 64;

const QUOTE = 34;
const BACKSLASH = 92;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
const COMMA = 44;
const COLON = 58;
const MINUS = 45;
const ZERO = 48;
const NINE = 57;

/** Under the cursor: the end of the text of `data_json`; something that is not canonical. No character has these codes. */
const END = -1;
const STRANGE = -2;

// One text at a time, and nothing here waits: the cursor needs no object.
let source = "";
let at = 0;
/** Of `data_json`: the character under the cursor, without the escape it is written with. */
let char = STRANGE;

function follows(piece: string): boolean {
  if (!source.startsWith(piece, at)) return false;
  at += piece.length;
  return true;
}

/** A whole number that is safe, and not written in another way than numbers are. */
function timestamp(): boolean {
  if (!follows(',"timestamp":')) return false;
  const start = at;
  while (isDigit(source.charCodeAt(at))) at++;
  return at > start && at - start <= 15 && source.charCodeAt(start) !== ZERO;
}

/** The rest of a string, to behind its quote; not an empty one, which would be left out. */
function plainText(): boolean {
  const start = at;
  do {
    skipOrdinary();
    advance();
    if (char === STRANGE) return false;
  } while (char !== END);
  return at > start + 1;
}

/** To the next character that may mean something: most of a text is passed here. */
function skipOrdinary(): void {
  const text = source;
  let place = at;
  for (;;) {
    const code = text.charCodeAt(place);
    if (code === QUOTE || code === BACKSLASH || !(code >= 32 && code < 0xd800)) break;
    place++;
  }
  at = place;
}

/** The next character of a string; its closing quote is its end. */
function advance(): void {
  const code = source.charCodeAt(at++);
  if (code === BACKSLASH) char = escaped(source.charCodeAt(at++));
  else if (code === QUOTE) char = END;
  // Halves of pairs may stand alone, and are left to the codec; so is the end of the text, which is not a number.
  else char = code >= 32 && (code < 0xd800 || code > 0xdfff) ? code : STRANGE;
}

/** The escapes that `JSON.stringify` uses, but for those in hex. */
function escaped(code: number): number {
  if (code === QUOTE || code === BACKSLASH) return code;
  if (code === 110) return 10; // n
  if (code === 116) return 9; // t
  if (code === 114) return 13; // r
  return STRANGE;
}

/** The rest of a string that holds JSON. */
function jsonInText(): boolean {
  advance();
  return value(0) && char === END;
}

function blank(): void {
  while (char === 32 || char === 10 || char === 9 || char === 13) advance();
}

/** A value and the white space around it. */
function value(depth: number): boolean {
  blank();
  if (!bare(depth)) return false;
  blank();
  return true;
}

function bare(depth: number): boolean {
  switch (char) {
    case QUOTE:
      return text();
    case OPEN_BRACE:
      return depth < MOST_NESTING && object(depth);
    case OPEN_BRACKET:
      return depth < MOST_NESTING && array(depth);
    case 116:
      return word("true");
    case 102:
      return word("false");
    case 110:
      return word("null");
    default:
      return number();
  }
}

function object(depth: number): boolean {
  advance();
  blank();
  if (took(CLOSE_BRACE)) return true;
  for (;;) {
    blank();
    if (char !== QUOTE || !text()) return false;
    blank();
    if (!took(COLON) || !value(depth + 1)) return false;
    if (took(CLOSE_BRACE)) return true;
    if (!took(COMMA)) return false;
  }
}

function array(depth: number): boolean {
  advance();
  blank();
  if (took(CLOSE_BRACKET)) return true;
  for (;;) {
    if (!value(depth + 1)) return false;
    if (took(CLOSE_BRACKET)) return true;
    if (!took(COMMA)) return false;
  }
}

function took(wanted: number): boolean {
  if (char !== wanted) return false;
  advance();
  return true;
}

/** A string inside the JSON, from its quote to behind the other one. */
function text(): boolean {
  for (;;) {
    skipOrdinary();
    advance();
    if (char === QUOTE) break;
    if (char < 32) return false; // the end and the strange among them
    if (char === BACKSLASH && !escape()) return false;
  }
  advance();
  return true;
}

/** An escape inside the JSON, to its last character. */
function escape(): boolean {
  advance();
  switch (char) {
    case QUOTE:
    case BACKSLASH:
    case 47: // slash
    case 98: // b
    case 102: // f
    case 110: // n
    case 114: // r
    case 116: // t
      return true;
    case 117: // u
      return fourHex();
    default:
      return false;
  }
}

function fourHex(): boolean {
  for (let n = 0; n < 4; n++) {
    advance();
    const lower = char | 32;
    if (!isDigit(char) && !(lower >= 97 && lower <= 102 && char > 0)) return false;
  }
  return true;
}

function word(wanted: string): boolean {
  for (let n = 0; n < wanted.length; n++) if (!took(wanted.charCodeAt(n))) return false;
  return true;
}

function number(): boolean {
  took(MINUS);
  if (!took(ZERO) && !digits()) return false;
  if (took(46) && !digits()) return false;
  if ((char | 32) === 101 && char > 0) {
    advance();
    if (!took(43)) took(MINUS);
    return digits();
  }
  return true;
}

function digits(): boolean {
  if (!isDigit(char)) return false;
  while (isDigit(char)) advance();
  return true;
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE;
}
