/**
 * The kinds of settings a configuration table is made of. One declaration gives the type, the parsing, the default and
 * the documentation:
 *
 *     RECALL_TOP_K: int(10, "Hits returned when the caller does not say.", { min: 1, max: 100 }),
 *
 * A kind knows how to read its text and how to show a value; `config.ts` knows where the text comes from.
 */

/** In place of a default: the process does not start without this setting. */
export const required: unique symbol = Symbol("required");
/** In place of a default: the value is `undefined` when nothing is given. */
export const optional: unique symbol = Symbol("optional");

/** A default of type `D`, or one of the two words instead. */
export type Fallback<D> = D | typeof required | typeof optional;
type Value<T, D> = D extends typeof optional ? T | undefined : T;

export type Kind =
  "text" | "secret" | "file" | "int" | "float" | "bool" | "url" | "address" | "choice" | "list" | "duration_ms";

/** Reads a file named by a setting; `undefined` when it cannot be read. */
export type ReadFile = (path: string) => string | undefined;

/** One row of a configuration table. */
export interface Setting<T> {
  readonly kind: Kind;
  readonly fallback: typeof required | { readonly value: T };
  /** What the setting is for, one sentence. */
  readonly sentence: string;
  /** What a right value looks like, to complete "expected …". */
  readonly expected: string;
  /** Other settings that must be given whenever this one is. */
  readonly needs: readonly string[];
  /** The value, or `undefined` when the text is not a right value. */
  parse(text: string, readFile: ReadFile): T | undefined;
  /** The value as a person may read it: never the secret itself, never a password inside a URL. */
  show(value: T): string;
}

export interface Options {
  /** Names of settings that must be given whenever this one is (a certificate needs its key). */
  readonly needs?: readonly string[];
}

interface Reading<T> {
  readonly kind: Kind;
  readonly expected: string;
  readonly parse: (text: string, readFile: ReadFile) => T | undefined;
  readonly show?: (value: T) => string;
}

/** What stands for a secret that is set. */
export const HIDDEN = "[REDACTED]";

function setting<T, D>(reading: Reading<T>, fallback: D, sentence: string, options?: Options): Setting<Value<T, D>>;
function setting<T>(
  reading: Reading<T>,
  fallback: Fallback<T>,
  sentence: string,
  options: Options = {},
): Setting<T | undefined> {
  const { kind, expected, parse, show = String } = reading;
  const value = fallback === optional ? undefined : fallback;
  return {
    kind,
    expected,
    sentence,
    needs: options.needs ?? [],
    fallback: value === required ? required : { value },
    parse,
    show: (given) => (given === undefined ? "" : show(given)),
  };
}

/** Any non-empty text. */
export function text<const D extends Fallback<string>>(fallback: D, sentence: string, options?: Options) {
  return setting<string, D>(
    { kind: "text", expected: "some text", parse: (given) => given },
    fallback,
    sentence,
    options,
  );
}

/** Never printed, logged or described. Also read from the file named by `<NAME>_FILE`, as container secrets are mounted. */
export function secret<const D extends typeof required | typeof optional>(
  fallback: D,
  sentence: string,
  options: Options & { readonly pattern?: RegExp; readonly expected?: string } = {},
) {
  const { pattern, expected = "a secret" } = options;
  const parse = (given: string) => (pattern && !pattern.test(given) ? undefined : given);
  return setting<string, D>({ kind: "secret", expected, parse, show: () => HIDDEN }, fallback, sentence, options);
}

/** Path of a file that must be readable at start. The value is the path, not the content. */
export function file<const D extends Fallback<string>>(fallback: D, sentence: string, options?: Options) {
  const parse = (given: string, readFile: ReadFile) => (readFile(given) === undefined ? undefined : given);
  return setting<string, D>(
    { kind: "file", expected: "the path of a readable file", parse },
    fallback,
    sentence,
    options,
  );
}

export interface Range {
  /** Inclusive. */
  readonly min?: number;
  /** Inclusive. */
  readonly max?: number;
}

function within(value: number, { min = -Infinity, max = Infinity }: Range): number | undefined {
  return value >= min && value <= max ? value : undefined;
}

function spoken({ min, max }: Range, suffix = ""): string {
  if (min !== undefined && max !== undefined) return ` from ${min}${suffix} to ${max}${suffix}`;
  if (min !== undefined) return ` of at least ${min}${suffix}`;
  return max === undefined ? "" : ` of at most ${max}${suffix}`;
}

/** A whole number. */
export function int<const D extends Fallback<number>>(fallback: D, sentence: string, options: Options & Range = {}) {
  const parse = (given: string) =>
    /^[+-]?\d+$/.test(given) && Number.isSafeInteger(Number(given)) ? within(Number(given), options) : undefined;
  return setting<number, D>(
    { kind: "int", expected: `a whole number${spoken(options)}`, parse },
    fallback,
    sentence,
    options,
  );
}

/** Any finite number. */
export function float<const D extends Fallback<number>>(fallback: D, sentence: string, options: Options & Range = {}) {
  const parse = (given: string) =>
    /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(given) ? within(Number(given), options) : undefined;
  return setting<number, D>(
    { kind: "float", expected: `a number${spoken(options)}`, parse },
    fallback,
    sentence,
    options,
  );
}

/** `true`, `1`, `yes`, `on` or `false`, `0`, `no`, `off`, in any case. */
export function bool<const D extends Fallback<boolean>>(fallback: D, sentence: string, options?: Options) {
  const parse = (given: string) => {
    if (/^(true|1|yes|on)$/i.test(given)) return true;
    return /^(false|0|no|off)$/i.test(given) ? false : undefined;
  };
  return setting<boolean, D>({ kind: "bool", expected: "true or false", parse }, fallback, sentence, options);
}

/** One of the given words, in any case; the value is the word as listed. */
export function choice<const W extends string, const D extends Fallback<W>>(
  words: readonly W[],
  fallback: D,
  sentence: string,
  options?: Options,
) {
  const parse = (given: string) => words.find((word) => word.toLowerCase() === given.toLowerCase());
  return setting<W, D>({ kind: "choice", expected: `one of ${words.join(", ")}`, parse }, fallback, sentence, options);
}

const UNIT_MS: Readonly<Record<string, number>> = { "": 1, ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds: a plain number, or one with a unit (`500ms`, `10s`, `5m`, `1h`, `1d`). */
export function durationMs<const D extends Fallback<number>>(
  fallback: D,
  sentence: string,
  options: Options & Range = {},
) {
  const parse = (given: string) => {
    const [, amount, unit = ""] = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/i.exec(given) ?? [];
    const factor = UNIT_MS[unit.toLowerCase()];
    return amount === undefined || factor === undefined
      ? undefined
      : within(Math.round(Number(amount) * factor), options);
  };
  const expected = `a duration${spoken(options, " ms")} (10000, 500ms, 10s, 5m or 1h)`;
  return setting<number, D>({ kind: "duration_ms", expected, parse }, fallback, sentence, options);
}

export interface UrlOptions extends Options {
  /** Accepted schemes without the colon; any when left out. */
  readonly schemes?: readonly string[];
  /** Scheme put in front of a bare `host:port`; bare values are refused when left out. */
  readonly assume?: string;
}

/** One URL, kept as it was written. Credentials inside it are never shown. */
export function url<const D extends Fallback<string>>(fallback: D, sentence: string, options: UrlOptions = {}) {
  const parse = (given: string) => urlText(given, options);
  const expected = `a URL${schemesOf(options)}`;
  return setting<string, D>({ kind: "url", expected, parse, show: maskUrl }, fallback, sentence, options);
}

/** Several URLs separated by commas, as a cluster's seeds are written. */
export function urls<const D extends Fallback<readonly string[]>>(
  fallback: D,
  sentence: string,
  options: UrlOptions = {},
) {
  const parse = (given: string) => items(given, (item) => urlText(item, options));
  const show = (values: readonly string[]) => values.map(maskUrl).join(",");
  const expected = `URLs separated by commas${schemesOf(options)}`;
  return setting<readonly string[], D>({ kind: "list", expected, parse, show }, fallback, sentence, options);
}

export interface ListOptions extends Options {
  /** Whether an item is a right one; any is when left out. */
  readonly each?: (item: string) => boolean;
  /** What the items are, to complete "expected … separated by commas". */
  readonly items?: string;
}

/** Texts separated by commas; spaces around them do not count. */
export function list<const D extends Fallback<readonly string[]>>(
  fallback: D,
  sentence: string,
  options: ListOptions = {},
) {
  const { each, items: what = "texts" } = options;
  const parse = (given: string) => items(given, (item) => (each?.(item) === false ? undefined : item));
  const show = (values: readonly string[]) => values.join(",");
  return setting<readonly string[], D>(
    { kind: "list", expected: `${what} separated by commas`, parse, show },
    fallback,
    sentence,
    options,
  );
}

function items(given: string, read: (item: string) => string | undefined): readonly string[] | undefined {
  const values: string[] = [];
  for (const item of given.split(",")) {
    if (item.trim() === "") continue;
    const value = read(item.trim());
    if (value === undefined) return undefined;
    values.push(value);
  }
  return values.length > 0 ? Object.freeze(values) : undefined;
}

function urlText(given: string, { schemes, assume }: UrlOptions): string | undefined {
  const whole = given.includes("://") || assume === undefined ? given : `${assume}://${given}`;
  const parsed = URL.parse(whole);
  if (!parsed || parsed.hostname === "") return undefined;
  return schemes && !schemes.includes(parsed.protocol.slice(0, -1)) ? undefined : whole;
}

function schemesOf({ schemes }: UrlOptions): string {
  return schemes ? ` (${schemes.map((scheme) => `${scheme}://`).join(", ")})` : "";
}

/** URLs with everything before the `@` hidden: a user and password, or the token of a NATS server. */
export function maskUrl(given: string): string {
  return given.replace(/((?:^|,)\s*(?:[a-z][a-z0-9+.-]*:\/\/)?)[^,]*@/gi, `$1${HIDDEN}@`);
}

/** Where to listen. Port 0 takes a free one. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** `host:port`, with brackets around an IPv6 host. */
export function address<const D extends Fallback<string>>(
  fallback: D,
  sentence: string,
  options?: Options,
): Setting<Value<Address, D>>;
export function address(fallback: Fallback<string>, sentence: string, options?: Options): Setting<Address | undefined> {
  const value = typeof fallback === "string" ? parseAddress(fallback) : fallback;
  if (value === undefined) throw new Error(`The default address ${String(fallback)} is not host:port.`);
  const reading: Reading<Address> = {
    kind: "address",
    expected: "host:port",
    parse: parseAddress,
    show: formatAddress,
  };
  return setting(reading, value, sentence, options);
}

/** The two parts of `host:port`, or `undefined` when it is not one. */
export function parseAddress(given: string): Address | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-f:.%]+)\]|([^\s:/[\]]+)):(\d{1,5})$/i.exec(given) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : Object.freeze({ host, port });
}

/** The opposite of `parseAddress`. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
