/**
 * Keeping secrets out of logs and spans (BeamLine reference, observability, logs): values under telling keys become
 * `[REDACTED]` at any depth, error texts that speak of credentials are replaced whole, and what looks like a
 * credential inside any other text is cut out.
 */

/** What stands in the place of a secret. */
export const REDACTED = "[REDACTED]";

/** Filtered keys, without case, `-` and `_`. */
const SECRET_KEYS = new Set(
  "password passwd pwd apikey secret token accesstoken refreshtoken idtoken authorization cookie setcookie creditcard ssn email phone privatekey".split(
    " ",
  ),
);
/** Endings of longer keys that hold the same: `x-api-key`, `client_secret`, `NATS_PASSWORD`. */
const SECRET_ENDING = /(password|apikey|secret|token|authorization|privatekey)$/;
const SPEAKS_OF_CREDENTIALS = /api[ _-]?key|secret|token|password|authorization|bearer/i;
const CREDENTIAL_INSIDE =
  /\bBearer\s+[\w.~+/=-]{8,}|\bBasic\s+[\w+/=-]{16,}|(?<=:\/\/)[^\s/@]+(?=@)|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\b(?:sk|pk|rk)[-_][\w-]{16,}|(?<=(?:password|secret|token|api[_-]?key)["']?\s*[=:]\s*["']?)[^\s"',;&]+/gi;

/** Remembered answers, so that a key is taken apart once. Bounded, since keys may come from callers' data. */
const known = new Map<string, boolean>();
const MAX_KNOWN = 2_000;

/** Whether values under the key are secret. */
export function isSecretKey(key: string): boolean {
  const answer = known.get(key);
  if (answer !== undefined) return answer;
  const plain = key.toLowerCase().replaceAll(/[-_\s]/g, "");
  const secret = SECRET_KEYS.has(plain) || SECRET_ENDING.test(plain);
  if (known.size < MAX_KNOWN) known.set(key, secret);
  return secret;
}

/** The text with anything that looks like a credential cut out: bearer values, tokens, user parts of URLs. */
export function redactText(text: string): string {
  return text.replace(CREDENTIAL_INSIDE, REDACTED);
}

/** The text of an error, or the marker alone when it speaks of credentials at all. */
export function redactErrorText(text: string): string {
  return SPEAKS_OF_CREDENTIALS.test(text) ? REDACTED : redactText(text);
}

/** An error as plain data. */
export interface ErrorData {
  readonly type: string;
  readonly code?: string;
  readonly message: string;
  /** Where it was thrown: frames only, since the head of a stack repeats the message. */
  readonly stack?: readonly string[];
  readonly cause?: unknown;
}

const MAX_DEPTH = 8;
const MAX_ITEMS = 200;
const MAX_FRAMES = 12;

/**
 * Any value as plain JSON data without secrets. Copies, never changes what it was given; cuts what is deeper than 8
 * levels or longer than 200 items, so a cycle or a giant cannot hang a log line.
 */
export function redactValue(value: unknown, depth = 0): unknown {
  switch (typeof value) {
    case "string":
      return redactText(value);
    case "bigint":
      return value.toString();
    case "function":
    case "symbol":
      return undefined;
    case "object":
      return value === null ? null : redactObject(value, depth);
    default:
      return value;
  }
}

/** The fields of the object, each without secrets. */
export function redactFields(fields: object, depth = 0): Record<string, unknown> {
  const copy: Record<string, unknown> = {};
  let items = 0;
  for (const [key, value] of Object.entries(fields)) {
    if (++items > MAX_ITEMS) {
      copy["…"] = "cut";
      break;
    }
    if (value === undefined) continue;
    copy[key] = isSecretKey(key) ? REDACTED : redactValue(value, depth + 1);
  }
  return copy;
}

function redactObject(value: object, depth: number): unknown {
  if (value instanceof Error) return describeError(value, depth);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (ArrayBuffer.isView(value)) return `<${value.byteLength} bytes>`;
  if (depth >= MAX_DEPTH) return "[deep]";
  if (Array.isArray(value) || value instanceof Set) {
    const items = [...value];
    const copy = items.slice(0, MAX_ITEMS).map((item) => redactValue(item, depth + 1));
    return items.length > MAX_ITEMS ? [...copy, `… ${items.length - MAX_ITEMS} more`] : copy;
  }
  if (value instanceof Map) return redactFields(Object.fromEntries(value), depth);
  return redactFields(value, depth);
}

/** What an error is called in logs and spans: its code when it has one, else its class. */
export function errorType(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}

/** An error and its causes as plain data without secrets. */
export function describeError(error: Error, depth = 0): ErrorData {
  const data: { -readonly [K in keyof ErrorData]: ErrorData[K] } = {
    type: error.name,
    message: redactErrorText(error.message),
  };
  if ("code" in error && (typeof error.code === "string" || typeof error.code === "number"))
    data.code = `${error.code}`;
  const frames = error.stack?.split("\n").filter((line) => line.startsWith("    at ")) ?? [];
  if (frames.length > 0) data.stack = frames.slice(0, MAX_FRAMES).map((frame) => frame.slice(7));
  if (error.cause !== undefined && depth < MAX_DEPTH) data.cause = redactValue(error.cause, depth + 1);
  return data;
}
