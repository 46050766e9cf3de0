/**
 * Bearer tokens signed by an identity provider (JWT), checked against the keys it publishes (JWKS).
 *
 * A token is checked once, before the call is looked at, and what came of it is kept for a while: who the caller is can then be asked in
 * passing, as with an API key. Keys are fetched when the first token comes, kept, and fetched again when they are old or a token names one
 * that is not among them, the latter not more often than every half minute, whoever asks for it.
 */
import { createHash } from "node:crypto";
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload } from "jose";
import { BeamlineError } from "../contracts/errors.ts";
import { TEST_SCOPE } from "../contracts/openwop/testkeys.ts";
import type { Principal } from "./auth.ts";

export interface TokenRules {
  /** Where the provider publishes its keys. It is the operator's word: no guard stands before it. */
  readonly jwksUrl: string;
  readonly issuer: string;
  readonly audience: string;
  /** Claim that names the tenant. */
  readonly tenantClaim: string;
  /** Claim with the scopes: a text, separated by spaces, or a list. */
  readonly scopeClaim: string;
}

/** Only keys of which the other half stays with the provider. */
const ALGORITHMS = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519".split(" ");
const CLOCK_SKEW_S = 5;
const MAX_TOKEN = 16 * 1024;
/** How long the keys are good without asking again, and how soon they may be asked for again, milliseconds. */
const KEYS_AGE_MS = 600_000;
const KEYS_PAUSE_MS = 30_000;
const FETCH_MS = 5_000;
/** How long what came of a token is kept, milliseconds; at most to its end. */
const KEPT_MS = 60_000;
const FAILED_KEPT_MS = 1_000;
const MAX_KEPT = 10_000;
const TENANT = /^[\w.:-]{1,256}$/;

interface Kept {
  readonly outcome: Principal | BeamlineError;
  /** When it is checked again, epoch milliseconds. */
  readonly until: number;
  /** When the token ends, epoch milliseconds. */
  readonly end: number;
}

export class Tokens {
  readonly #rules: TokenRules;
  readonly #keys: ReturnType<typeof createRemoteJWKSet>;
  readonly #now: () => number;
  /** By the token's digest, oldest first. */
  readonly #kept = new Map<string, Kept>();
  readonly #underWay = new Map<string, Promise<void>>();

  constructor(rules: TokenRules, now: () => number = Date.now) {
    this.#rules = rules;
    this.#now = now;
    this.#keys = createRemoteJWKSet(new URL(rules.jwksUrl), {
      timeoutDuration: FETCH_MS,
      cooldownDuration: KEYS_PAUSE_MS,
      cacheMaxAge: KEYS_AGE_MS,
    });
  }

  /** Checks the token a call brings, if it brings one that has not been checked; `owner` has what came of it. Never rejects. */
  prepare(bearer: string | undefined): Promise<void> | undefined {
    if (bearer === undefined || !isToken(bearer)) return undefined;
    const digest = digestOf(bearer);
    if ((this.#kept.get(digest)?.until ?? 0) > this.#now()) return undefined;
    let check = this.#underWay.get(digest);
    if (check === undefined) {
      check = this.#check(bearer, digest).finally(() => this.#underWay.delete(digest));
      this.#underWay.set(digest, check);
    }
    return check;
  }

  /**
   * Who a token that was prepared stands for. Throws `unauthenticated` saying what is wrong with it, `unavailable` when the provider's keys
   * cannot be had.
   */
  owner(bearer: string): Principal {
    const kept = this.#kept.get(digestOf(bearer));
    if (kept === undefined) throw invalid();
    if (kept.outcome instanceof BeamlineError) throw kept.outcome;
    if (kept.end <= this.#now()) throw expired();
    return kept.outcome;
  }

  async #check(bearer: string, digest: string): Promise<void> {
    const now = this.#now();
    let kept: Kept;
    try {
      if (bearer.length > MAX_TOKEN) throw invalid();
      const { issuer, audience } = this.#rules;
      const { payload } = await jwtVerify(bearer, this.#keys, {
        issuer,
        audience,
        algorithms: ALGORITHMS,
        requiredClaims: ["sub", "exp"],
        clockTolerance: CLOCK_SKEW_S,
        currentDate: new Date(now),
      });
      const end = ((payload.exp ?? 0) + CLOCK_SKEW_S) * 1_000;
      kept = { outcome: this.#principal(payload), until: Math.min(now + KEPT_MS, end), end };
    } catch (thrown) {
      kept = { outcome: worded(thrown), until: now + FAILED_KEPT_MS, end: now };
    }
    this.#kept.delete(digest);
    this.#kept.set(digest, kept);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break;
      this.#kept.delete(oldest);
    }
  }

  #principal(payload: JWTPayload): Principal {
    const { tenantClaim, scopeClaim } = this.#rules;
    const tenant = payload[tenantClaim];
    if (typeof tenant !== "string" || !TENANT.test(tenant))
      throw new BeamlineError("unauthenticated", `the bearer token names no tenant in ${tenantClaim}`);
    if (payload.sub === undefined || payload.sub === "") throw invalid();
    const given = payload[scopeClaim];
    const scopes = (typeof given === "string" ? given.split(" ") : Array.isArray(given) ? given : []).filter(
      (scope): scope is string =>
        typeof scope === "string" && scope !== "" && !/\s/.test(scope) && scope !== TEST_SCOPE,
    );
    return { id: payload.sub, tenant, scopes };
  }
}

/** Whether a bearer is a signed token rather than an API key: three parts, the first an object in JSON. */
export function isToken(bearer: string): boolean {
  return /^eyJ[\w-]*\.[\w-]*\.[\w-]*$/.test(bearer);
}

function digestOf(bearer: string): string {
  return createHash("sha256").update(bearer).digest("base64");
}

const invalid = (): BeamlineError => new BeamlineError("unauthenticated", "the bearer token is not valid");
const expired = (): BeamlineError => new BeamlineError("unauthenticated", "the bearer token has expired");

/** What is wrong with a token, in words that stay; what is wrong with the provider is not the caller's fault. */
function worded(thrown: unknown): BeamlineError {
  if (thrown instanceof BeamlineError) return thrown;
  if (thrown instanceof errors.JWTExpired) return expired();
  if (thrown instanceof errors.JWTClaimValidationFailed && (thrown.claim === "iss" || thrown.claim === "aud"))
    return new BeamlineError("unauthenticated", "the bearer token is not for this service");
  const ours =
    thrown instanceof errors.JWTClaimValidationFailed ||
    thrown instanceof errors.JWTInvalid ||
    thrown instanceof errors.JWSInvalid ||
    thrown instanceof errors.JWSSignatureVerificationFailed ||
    thrown instanceof errors.JOSEAlgNotAllowed ||
    thrown instanceof errors.JOSENotSupported ||
    thrown instanceof errors.JWKSNoMatchingKey ||
    thrown instanceof errors.JWKSMultipleMatchingKeys;
  if (ours) return invalid();
  return new BeamlineError("unavailable", "the keys that bearer tokens are signed with cannot be had", {
    cause: thrown,
  });
}
