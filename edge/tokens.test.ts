import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT, type CryptoKey, type JWK, type JWTPayload } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BeamlineError } from "../contracts/errors.ts";
import { authenticate, KeyRing, sha256 } from "./auth.ts";
import { isToken, Tokens } from "./tokens.ts";

const ISSUER = "https://id.example.org";
const AUDIENCE = "beamline";

let provider: Server;
let url: string;
let published: JWK[] = [];
let asked = 0;
let signing: CryptoKey;
let other: CryptoKey;
let now = Date.now();

beforeAll(async () => {
  const pair = await generateKeyPair("ES256", { extractable: true });
  signing = pair.privateKey;
  published = [{ ...(await exportJWK(pair.publicKey)), kid: "one", alg: "ES256", use: "sig" }];
  other = (await generateKeyPair("ES256")).privateKey;
  provider = createServer((request, response) => {
    asked++;
    if (request.url === "/broken") return void response.writeHead(500).end();
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ keys: published }));
  });
  await new Promise<void>((resolve) => provider.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
});
afterAll(() => {
  provider.closeAllConnections();
  provider.close();
});

const claims: JWTPayload = { sub: "ann", tenant_id: "acme", scope: "runs:read runs:write openwop:test" };
const tokens = (jwksUrl = `${url}/keys`): Tokens =>
  new Tokens({ jwksUrl, issuer: ISSUER, audience: AUDIENCE, tenantClaim: "tenant_id", scopeClaim: "scope" }, () => now);

interface Made {
  readonly claims?: JWTPayload;
  readonly key?: CryptoKey;
  readonly kid?: string;
  readonly issuer?: string;
  readonly audience?: string;
  /** Seconds from now. */
  readonly expires?: number;
  readonly notBefore?: number;
}

function sign({ claims: given = claims, key = signing, kid = "one", ...more }: Made = {}): Promise<string> {
  const at = Math.floor(now / 1_000);
  const token = new SignJWT(given)
    .setProtectedHeader({ alg: "ES256", kid })
    .setIssuer(more.issuer ?? ISSUER)
    .setAudience(more.audience ?? AUDIENCE)
    .setExpirationTime(at + (more.expires ?? 600));
  return (more.notBefore === undefined ? token : token.setNotBefore(at + more.notBefore)).sign(key);
}

/** What a checked token comes to: its principal, or code and text of what it is refused with. */
async function outcome(checker: Tokens, bearer: string): Promise<unknown> {
  await checker.prepare(bearer);
  try {
    return checker.owner(bearer);
  } catch (thrown) {
    if (!(thrown instanceof BeamlineError)) throw thrown;
    return [thrown.code, thrown.message];
  }
}

test("a token stands for its subject, in its tenant, with its scopes; never for a test key", async () => {
  const principal = { id: "ann", tenant: "acme", scopes: ["runs:read", "runs:write"] };
  expect(await outcome(tokens(), await sign())).toEqual(principal);
  const listed = { ...claims, scope: ["runs:read", "runs:write", "openwop:test", 5, "a b", ""] };
  expect(await outcome(tokens(), await sign({ claims: listed }))).toEqual(principal);
  expect(await outcome(tokens(), await sign({ claims: { sub: "ann", tenant_id: "acme" } }))).toEqual({
    ...principal,
    scopes: [],
  });
});

describe("refused", () => {
  const invalid = ["unauthenticated", "the bearer token is not valid"];
  const foreign = ["unauthenticated", "the bearer token is not for this service"];
  const homeless = ["unauthenticated", "the bearer token names no tenant in tenant_id"];
  const cases: Readonly<Record<string, readonly [() => Promise<string>, readonly string[]]>> = {
    "signed by somebody else": [() => sign({ key: other }), invalid],
    "with a key nobody published": [() => sign({ kid: "two", key: other }), invalid],
    "of another issuer": [() => sign({ issuer: "https://evil.example.org" }), foreign],
    "for another service": [() => sign({ audience: "others" }), foreign],
    "over its time": [() => sign({ expires: -60 }), ["unauthenticated", "the bearer token has expired"]],
    "before its time": [() => sign({ notBefore: 60 }), invalid],
    "without a subject": [() => sign({ claims: { tenant_id: "acme" } }), invalid],
    "with an empty subject": [() => sign({ claims: { ...claims, sub: "" } }), invalid],
    "without a tenant": [() => sign({ claims: { sub: "ann" } }), homeless],
    "with a tenant that is none": [() => sign({ claims: { ...claims, tenant_id: "a b" } }), homeless],
    "with a list of tenants": [() => sign({ claims: { ...claims, tenant_id: ["acme"] } }), homeless],
    "not signed": [
      async () => new UnsecuredJWT(claims).setIssuer(ISSUER).setAudience(AUDIENCE).setExpirationTime("1h").encode(),
      invalid,
    ],
    "signed with the public key as if it were a secret": [
      () =>
        new SignJWT(claims)
          .setProtectedHeader({ alg: "HS256", kid: "one" })
          .setIssuer(ISSUER)
          .setAudience(AUDIENCE)
          .setExpirationTime("1h")
          .sign(Buffer.from(JSON.stringify(published[0]))),
      invalid,
    ],
    "changed afterwards": [
      async () => {
        const [head, , signature] = (await sign()).split(".");
        const body = Buffer.from(JSON.stringify({ ...claims, tenant_id: "other", exp: 9_999_999_999 }));
        return `${head}.${body.toString("base64url")}.${signature}`;
      },
      invalid,
    ],
    "of three parts that are nothing": [async () => "eyJ.a.b", invalid],
    "larger than any": [() => sign({ claims: { ...claims, padding: "x".repeat(20_000) } }), invalid],
  };
  test.each(Object.keys(cases))("one %s", async (what) => {
    const [make, expected] = cases[what] ?? [];
    expect(await outcome(tokens(), (await make?.()) ?? "")).toEqual(expected);
  });

  test("one that was never checked", async () => {
    const bearer = await sign();
    expect(() => tokens().owner(bearer)).toThrow("is not valid");
  });
});

test("a provider that cannot be reached is not the caller's fault", async () => {
  for (const where of [`${url}/broken`, "http://127.0.0.1:1/keys"])
    expect(await outcome(tokens(where), await sign()), where).toMatchObject([
      "unavailable",
      expect.stringContaining("keys") as string,
    ]);
});

test("keys are fetched once for many tokens, again for a new one, and not for every unknown one", async () => {
  const checker = tokens();
  const before = asked;
  const many = await Promise.all(Array.from({ length: 20 }, (_, n) => sign({ claims: { ...claims, sub: `u${n}` } })));
  await Promise.all([...many, ...many].map(async (bearer) => checker.prepare(bearer)));
  for (const bearer of many) expect(checker.owner(bearer).tenant).toBe("acme");
  expect(asked - before).toBe(1);
  for (let n = 0; n < 10; n++) await outcome(checker, await sign({ kid: `unknown${n}` }));
  expect(asked - before).toBe(1); // within the pause
});

test("what came of a token is kept, but not beyond its end", async () => {
  const checker = tokens();
  const bearer = await sign({ expires: 20 });
  await checker.prepare(bearer);
  expect(checker.prepare(bearer)).toBeUndefined();
  now += 24_000;
  expect(checker.owner(bearer).id).toBe("ann"); // clocks may differ by five seconds
  now += 2_000;
  expect(() => checker.owner(bearer)).toThrow("has expired");
  expect(await outcome(checker, bearer)).toEqual(["unauthenticated", "the bearer token has expired"]);
});

test("tokens and API keys live side by side", async () => {
  const keys = new KeyRing([{ id: "alice", sha256: sha256("alice-key"), scopes: ["*"] }]);
  const checker = tokens();
  const bearer = await sign();
  await checker.prepare(bearer);
  const rules = { ownKey: false, always: true };
  const who = (policy: { tokens?: Tokens }, value: string) =>
    authenticate({ keys, allowAnonymous: false, ...policy }, value, rules).id;
  expect(who({ tokens: checker }, `Bearer ${bearer}`)).toBe("ann");
  expect(who({ tokens: checker }, "Bearer alice-key")).toBe("alice");
  expect(() => who({}, `Bearer ${bearer}`)).toThrow("unknown API key");
  expect(checker.prepare("alice-key")).toBeUndefined();
  expect(isToken("eyJhbGciOiJub25lIn0.e30.")).toBe(true);
});
