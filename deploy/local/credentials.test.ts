import { mkdtempDisposableSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadCredentials, natsUsers } from "./credentials.ts";

test("made once, for this user's eyes only, and the same ever after", () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-credentials-"));
  const dataDir = join(directory.path, "data");
  const first = loadCredentials(dataDir, {});
  expect(statSync(join(dataDir, "credentials.json")).mode & 0o777).toBe(0o600);
  expect(new Set(natsUsers.map((user) => first[user].password)).size).toBe(natsUsers.length);
  expect(new Set(natsUsers.map((user) => first[user].inboxPrefix)).size).toBe(natsUsers.length);
  expect(loadCredentials(dataDir, {})).toEqual(first);
});

test("the environment wins over the file", () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-credentials-"));
  expect(loadCredentials(directory.path, { BEAMLINE_NATS_EDGE_PASSWORD: "given" }).edge.password).toBe("given");
});

test("a damaged file is named, not replaced", () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-credentials-"));
  writeFileSync(join(directory.path, "credentials.json"), `{"edge":"x"}`);
  expect(() => loadCredentials(directory.path, {})).toThrow(/credentials\.json does not hold one password for each/);
});
