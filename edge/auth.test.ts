import { describe, expect, test } from "vitest";
import { authenticate, bearerOf, KeyRing, LOCAL, sha256, type AuthPolicy } from "./auth.ts";

const keys = new KeyRing([
  { id: "alice", sha256: sha256("alice-key"), tenant: "acme", scopes: ["runs:read"] },
  { id: "old", sha256: sha256("old-key"), scopes: [], expires_at_ms: 1 },
  { id: "gone", sha256: sha256("gone-key"), scopes: [], revoked_at_ms: 1 },
  { id: "tester", sha256: sha256("hk_test_key"), scopes: ["runs:read"] },
  { id: "live", sha256: sha256("hk_live_key"), scopes: ["runs:read", "openwop:test"] },
]);
const open: AuthPolicy = { keys, allowAnonymous: true };
const closed: AuthPolicy = { keys, allowAnonymous: false };
const plain = { ownKey: false, always: false };

test("a known key is its owner", () => {
  expect(authenticate(closed, "Bearer alice-key", plain)).toEqual({
    id: "alice",
    tenant: "acme",
    scopes: ["runs:read"],
  });
  expect(authenticate(closed, "alice-key", plain).id).toBe("alice");
});

test("a test key is told by its prefix, whatever scopes are stored", () => {
  expect(keys.owner("hk_test_key").scopes).toEqual(["runs:read", "openwop:test"]);
  expect(keys.owner("hk_live_key").scopes).toEqual(["runs:read"]);
});

test.each([
  ["an unknown key", closed, "Bearer nope", plain, "unauthenticated"],
  ["an unknown key where anonymous callers are welcome", open, "Bearer nope", plain, "unauthenticated"],
  ["an expired key", closed, "Bearer old-key", plain, "key_expired"],
  ["a revoked key", closed, "Bearer gone-key", plain, "key_revoked"],
  ["no key where one is needed", closed, undefined, plain, "unauthenticated"],
  ["no key at a service that always needs one", open, undefined, { ownKey: false, always: true }, "unauthenticated"],
  ["a scheme without a key", closed, "Bearer ", plain, "unauthenticated"],
])("%s is refused", (_what, policy, authorization, rules, code) => {
  expect(() => authenticate(policy, authorization, rules)).toThrow(expect.objectContaining({ code }) as Error);
});

test("an anonymous caller on loopback is the local principal", () =>
  expect(authenticate(open, undefined, plain)).toBe(LOCAL));

test("a service with a key of its own checks it itself, and its callers get no rights here", () => {
  expect(authenticate(closed, "Bearer some-admin-key", { ownKey: true, always: false })).toMatchObject({
    id: "",
    scopes: [],
  });
});

describe("bearerOf", () => {
  test.each([
    ["Bearer x", "x"],
    ["bearer  x ", "x"],
    ["x", "x"],
    ["", undefined],
    [undefined, undefined],
  ])("%j is %j", (given, key) => expect(bearerOf(given)).toBe(key));
});
