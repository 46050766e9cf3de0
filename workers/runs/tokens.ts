/**
 * Signed tokens of interrupts (OpenWOP, tokens): `base64url(payload).base64url(HMAC-SHA256)`. The payload names the key it was signed
 * with, so that secrets can overlap while one replaces the other.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { BeamlineError } from "../../contracts/errors.ts";
import { isObject } from "../../contracts/openwop/json.ts";

export const TOKEN_LIFE_MS = 30 * 60_000;

export interface TokenPayload {
  readonly tenant: string;
  readonly runId: string;
  readonly nodeId: string;
  readonly interruptId: string;
  /** Epoch milliseconds. */
  readonly expiresAt: number;
  readonly intent: "resolve" | "inspect";
}

export interface TokenSecret {
  readonly id: string;
  readonly secret: string;
}

export class Tokens {
  readonly #secrets: readonly TokenSecret[];

  /** The first secret signs, all of them verify. */
  constructor(secrets: readonly TokenSecret[]) {
    this.#secrets = secrets;
  }

  sign(payload: TokenPayload): string {
    const [current] = this.#secrets;
    if (current === undefined) throw new BeamlineError("internal", "there is no secret to sign tokens with");
    const text = Buffer.from(JSON.stringify({ ...payload, kid: current.id })).toString("base64url");
    return `${text}.${mac(current.secret, text)}`;
  }

  /**
   * What a token says. Throws `validation_error` when it is malformed, `interrupt_not_found` when it is not ours, `interrupt_expired` when
   * its time has passed by `now` (epoch milliseconds).
   */
  open(token: string, now: number): TokenPayload {
    const [text, signature, ...rest] = token.split(".");
    if (
      text === undefined ||
      signature === undefined ||
      rest.length > 0 ||
      text === "" ||
      signature === "" ||
      token.length > 4_096
    )
      throw malformed();
    const payload = payloadOf(text);
    const { kid } = payload;
    const known = this.#secrets.find(({ id }) => id === kid);
    if (known === undefined || !same(mac(known.secret, text), signature))
      throw new BeamlineError("interrupt_not_found", "there is no such interrupt");
    if (payload.expiresAt <= now) throw tokenExpired();
    return payload;
  }
}

export function tokenExpired(): BeamlineError {
  return new BeamlineError("interrupt_expired", "the token has expired");
}

function mac(secret: string, text: string): string {
  return createHmac("sha256", secret).update(text).digest("base64url");
}

function same(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function payloadOf(text: string): TokenPayload & { readonly kid: string } {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    throw malformed();
  }
  if (!isObject(value)) throw malformed();
  const { tenant, runId, nodeId, interruptId, expiresAt, intent, kid } = value;
  const texts = [runId, nodeId, interruptId].every((one) => typeof one === "string");
  if (!texts || typeof expiresAt !== "number" || (intent !== "resolve" && intent !== "inspect")) throw malformed();
  return {
    tenant: typeof tenant === "string" ? tenant : "",
    runId: String(runId),
    nodeId: String(nodeId),
    interruptId: String(interruptId),
    expiresAt,
    intent,
    kid: typeof kid === "string" ? kid : "",
  };
}

function malformed(): BeamlineError {
  return new BeamlineError("validation_error", "token is not a token of an interrupt", { field: "token" });
}
