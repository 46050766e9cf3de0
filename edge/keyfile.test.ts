import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { until } from "../test/kit/until.ts";
import { KeyRing, sha256, type StoredKey } from "./auth.ts";
import { followKeys, readKeys } from "./keyfile.ts";

const dir = mkdtempSync(join(tmpdir(), "beamline-keys-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const key = (secret: string, more: Partial<StoredKey> = {}): StoredKey => ({
  id: "alice",
  sha256: sha256(secret),
  scopes: ["runs:read"],
  ...more,
});
const codeOf = (ring: KeyRing, secret: string): string => {
  try {
    return ring.owner(secret).id;
  } catch (thrown) {
    return (thrown as { code: string }).code;
  }
};

test("keys come, overlap and go while the file changes; a file that is no list changes nothing", async () => {
  const file = join(dir, "keys.json");
  const write = (keys: unknown): void => {
    writeFileSync(`${file}.new`, typeof keys === "string" ? keys : JSON.stringify(keys));
    renameSync(`${file}.new`, file);
  };
  write([key("old")]);
  const ring = new KeyRing(readKeys(file));
  const problems: string[] = [];
  const stop = followKeys(file, ring, {
    onChange: () => undefined,
    onProblem: ({ message }) => problems.push(message),
  });
  try {
    expect([codeOf(ring, "old"), codeOf(ring, "new")]).toEqual(["alice", "unauthenticated"]);
    write([key("old", { revoked_at_ms: Date.now() + 3_600_000 }), key("new")]);
    await until(() => codeOf(ring, "new") === "alice", "the new key");
    expect(codeOf(ring, "old")).toBe("alice");
    write("[{}");
    await until(() => problems.length > 0, "the complaint");
    expect([codeOf(ring, "old"), codeOf(ring, "new")]).toEqual(["alice", "alice"]);
    write([key("old", { revoked_at_ms: Date.now() }), key("new")]);
    await until(() => codeOf(ring, "old") === "key_revoked", "the revocation");
    expect(codeOf(ring, "new")).toBe("alice");
  } finally {
    stop();
  }
});

test.each([
  ["{}", /must hold a JSON array/],
  ["nonsense", /cannot be read as JSON/],
  ['[{"id":"a","sha256":"ABC","scopes":[]}]', /\[0\] must be/],
  [`[{"id":"a","sha256":"${sha256("x")}","scopes":"*"}]`, /\[0\] must be/],
  [`[{"id":"a","sha256":"${sha256("x")}","scopes":[],"revoked_at_ms":"now"}]`, /\[0\] must be/],
])("%s is refused by name", (text, message) => {
  const file = join(dir, "bad.json");
  writeFileSync(file, text);
  expect(() => readKeys(file)).toThrow(message);
});
