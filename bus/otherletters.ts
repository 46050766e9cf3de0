/**
 * What dead letters say whose form is not that of `letter.ts` (BeamLine, DLQ): the digest of a request that intake refused, a worker's `ExecResult`, and the
 * Rust worker's envelope. They do not hold their message; they tell who, why and where.
 */

export interface Told {
  /** Why, as the program that wrote it calls it; empty when it does not say. */
  readonly reason: string;
  readonly tenantId: string;
  /** For people. */
  readonly error: string;
}

type Json = Readonly<Record<string, unknown>>;

/** Never throws: what is in none of the forms says nothing. */
export function toldBy(body: Uint8Array): Told {
  const whole = parsed(body);
  const data = objectIn(whole, "data");
  const inner = Object.keys(data).length > 0 ? data : whole;
  const refusal = objectIn(whole, "validation_error");
  const place = objectIn(inner, "payload_ref");
  return {
    reason: textIn(inner, "reason"),
    tenantId: textIn(inner, "tenant_id") || textIn(objectIn(whole, "context"), "tenant_id"),
    error: textIn(refusal, "message") || errorOf(inner) || placeOf(place),
  };
}

function errorOf(result: Json): string {
  const message = textIn(result, "error_message");
  return message === "" ? textIn(result, "error_code") : message;
}

/** Where the message was that could not be read. */
function placeOf(place: Json): string {
  const subject = textIn(place, "subject");
  return subject === "" ? "" : `a message on ${subject} of ${String(place["len"])} bytes`;
}

function parsed(body: Uint8Array): Json {
  try {
    return objectIn({ body: JSON.parse(Buffer.from(body).toString("utf8")) as unknown }, "body");
  } catch {
    return {};
  }
}

function objectIn(holder: Json, name: string): Json {
  const value = holder[name];
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function textIn(holder: Json, name: string): string {
  const value = holder[name];
  return typeof value === "string" ? value : "";
}
