/**
 * Who calls the edge.
 *
 * - A bearer key of the key ring is its owner: principal, tenant, scopes. So is a token of the identity provider, where there is one.
 * - Existing aiOS and BeamLine clients bring no credentials: where anonymous calls are allowed (by default on loopback only) they
 *   act as the principal `local` of the tenant they name, else of `default`.
 * - RouterAdmin brings its own admin key, which the routing worker checks; OpenWOP always needs its bearer (design, security).
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { BeamlineError } from "../contracts/errors.ts";
import { TEST_KEY_PREFIX, TEST_SCOPE } from "../contracts/openwop/testkeys.ts";
import { isToken, type Tokens } from "./tokens.ts";

export interface Principal {
  readonly id: string;
  /** Tenant of the credential; undefined lets the caller name one. */
  readonly tenant: string | undefined;
  readonly scopes: readonly string[];
}

/** A key as it is stored: never the key itself. */
export interface StoredKey {
  /** The principal. Two keys with one id are the old and the new one of a rotation: both are the same caller. */
  readonly id: string;
  /** Lower-case hex SHA-256 of the key. */
  readonly sha256: string;
  readonly tenant?: string;
  readonly scopes: readonly string[];
  /** Epoch milliseconds. */
  readonly expires_at_ms?: number;
  /** Epoch milliseconds from which the key is refused as revoked. One that lies ahead is the end of a grace window. */
  readonly revoked_at_ms?: number;
}

export const LOCAL: Principal = { id: "local", tenant: undefined, scopes: ["*"] };

interface Known {
  readonly digest: Buffer;
  readonly key: StoredKey;
}

export class KeyRing {
  #keys: readonly Known[];

  constructor(keys: readonly StoredKey[]) {
    this.#keys = known(keys);
  }

  /** From now on these are the keys. */
  replace(keys: readonly StoredKey[]): void {
    this.#keys = known(keys);
  }

  get size(): number {
    return this.#keys.length;
  }

  /**
   * The owner of a key. A test key has the test scope, another has it not, whatever is stored.
   * Throws `unauthenticated` for an unknown key, `key_revoked` for a revoked one and `key_expired` for an old one.
   */
  owner(bearer: string): Principal {
    const digest = createHash("sha256").update(bearer).digest();
    let found: StoredKey | undefined;
    for (const { digest: stored, key } of this.#keys) if (timingSafeEqual(digest, stored)) found = key;
    if (found === undefined) throw new BeamlineError("unauthenticated", "unknown API key");
    const now = Date.now();
    if (found.revoked_at_ms !== undefined && found.revoked_at_ms <= now)
      throw new BeamlineError("key_revoked", "the API key was revoked");
    if (found.expires_at_ms !== undefined && found.expires_at_ms <= now)
      throw new BeamlineError("key_expired", "the API key has expired");
    const { id, tenant, scopes } = found;
    const test = bearer.startsWith(TEST_KEY_PREFIX);
    if (test === scopes.includes(TEST_SCOPE)) return { id, tenant, scopes };
    return { id, tenant, scopes: test ? [...scopes, TEST_SCOPE] : scopes.filter((scope) => scope !== TEST_SCOPE) };
  }
}

function known(keys: readonly StoredKey[]): Known[] {
  return keys.map((key) => ({ digest: Buffer.from(key.sha256, "hex"), key }));
}

/** Digest under which a key is stored. */
export function sha256(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}

/** The key of an `authorization` value: `Bearer <key>` or the bare key. */
export function bearerOf(authorization: string | undefined): string | undefined {
  const key = authorization?.replace(/^bearer\s+/i, "").trim();
  return key === undefined || key === "" ? undefined : key;
}

export interface AuthPolicy {
  readonly keys: KeyRing;
  /** Tokens of an identity provider; whoever serves a call has prepared its token before. */
  readonly tokens?: Tokens | undefined;
  /** Whether callers without credentials are served as `local`. */
  readonly allowAnonymous: boolean;
}

/**
 * The principal of a call. `ownKey` says that the service checks a key of its own in the same place (RouterAdmin), so that an
 * unknown bearer is not refused here; `always` that anonymous callers are refused wherever they come from (OpenWOP).
 */
export function authenticate(
  policy: AuthPolicy,
  authorization: string | undefined,
  service: { ownKey: boolean; always: boolean },
): Principal {
  if (authorization === undefined) {
    if (policy.allowAnonymous && !service.always) return LOCAL;
    if (service.ownKey) return { ...LOCAL, id: "", scopes: [] };
    throw new BeamlineError("unauthenticated", "a bearer token is required in authorization");
  }
  if (service.ownKey) return { ...LOCAL, id: "", scopes: [] };
  const bearer = bearerOf(authorization);
  if (bearer === undefined) throw new BeamlineError("unauthenticated", "authorization carries no bearer token");
  return policy.tokens !== undefined && isToken(bearer) ? policy.tokens.owner(bearer) : policy.keys.owner(bearer);
}
