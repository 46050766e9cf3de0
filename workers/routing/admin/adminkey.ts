/**
 * The admin key (BeamLine, gRPC metadata): `x-api-key` before `authorization` (`Bearer <key>` or the bare key), then the body's `api_key` for
 * callers that cannot send headers. Without a configured key every call is refused.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { BeamlineError } from "../../../contracts/errors.ts";
import { header, type Headers } from "../../../contracts/headers.ts";

/** Throws `unauthenticated`. */
export type AdminCheck = (headers: Headers, bodyKey: unknown) => void;

export function adminCheck(key: string | undefined): AdminCheck {
  const expected = key === undefined ? undefined : digest(key);
  return (headers, bodyKey) => {
    const authorization = headers["authorization"]?.replace(/^bearer\s+/i, "").trim();
    const given = headers[header.apiKey] || authorization || (typeof bodyKey === "string" ? bodyKey : "");
    // Digests have one length, so that comparing tells nothing about the key, not even how long it is.
    if (expected === undefined || given === "" || !timingSafeEqual(digest(given), expected)) {
      throw new BeamlineError("unauthenticated", "missing or invalid API key");
    }
  };
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
