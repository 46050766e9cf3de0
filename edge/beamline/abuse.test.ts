import { expect, test } from "vitest";
import { abuseRules, AbuseWatch, type Seen } from "./abuse.ts";

function watch() {
  const clock = { now: 600_000 };
  const one = new AbuseWatch(abuseRules, () => clock.now);
  const look = (more: Partial<Seen> = {}) =>
    one.look({ tenant: "acme", address: "a", key: "k", payloadBytes: 100, ...more });
  return { clock, look };
}

test("ordinary requests are nothing; small and heavy payloads are told and served", () => {
  const { look } = watch();
  expect(look()).toEqual([]);
  expect(look({ payloadBytes: undefined })).toEqual([]);
  expect(look({ payloadBytes: 9 })).toEqual([{ kind: "payload_too_small" }]);
  expect(look({ payloadBytes: 512 * 1024 + 1 })).toEqual([{ kind: "payload_heavy" }]);
  expect(look()).toEqual([]);
});

test.each([
  ["request_flood", 500, () => ({})],
  ["key_rotation", 10, (n: number) => ({ key: `k${n}` })],
  ["address_rotation", 10, (n: number) => ({ address: `a${n}` })],
  ["tenant_hopping", 20, (n: number) => ({ tenant: `t${n}` })],
] as const)("%s beyond %i is refused for five minutes", (kind, most, change) => {
  const { clock, look } = watch();
  for (let n = 0; n < most; n++) expect(look(change(n))).toEqual([]);
  expect(look(change(most))).toEqual([{ kind, retryAfterSeconds: 300 }]);
  clock.now += 299_000;
  expect(look(kind === "tenant_hopping" ? { tenant: "any" } : {})).toEqual([{ kind: "blocked", retryAfterSeconds: 1 }]);
  clock.now += 302_000;
  expect(look(kind === "tenant_hopping" ? { tenant: "any" } : {})).toEqual([]);
});

test("what was seen long ago does not count", () => {
  const { clock, look } = watch();
  for (let n = 0; n < 100; n++) {
    expect(look({ key: `k${n}`, address: `a${n}` })).toEqual([]);
    clock.now += 60_000;
  }
});

test("a tenant that is refused refuses no other", () => {
  const { look } = watch();
  for (let n = 0; n <= 500; n++) look();
  expect(look()).toMatchObject([{ kind: "blocked" }]);
  expect(look({ tenant: "other", address: "b" })).toEqual([]);
});
