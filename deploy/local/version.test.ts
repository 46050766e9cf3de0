import { describe, expect, test } from "vitest";
import { formatVersion, isAtLeast, parseVersion } from "./version.ts";

describe("parseVersion", () => {
  test.each([
    ["nats-server: v2.15.1\n", "2.15.1"],
    ["Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0", "7.0.15"],
    ["5:7.0.15-1~deb12u10", "7.0.15"],
    ["2.12.0-preview.1", "2.12.0"],
    ["2.12", "2.12.0"],
  ])("reads %j as %s", (text, version) => {
    const parsed = parseVersion(text);
    expect(parsed === undefined ? undefined : formatVersion(parsed)).toBe(version);
  });

  test("finds none in a text without one", () => expect(parseVersion("Segmentation fault")).toBeUndefined());
});

describe("isAtLeast", () => {
  test.each([
    ["2.12.0", true],
    ["2.15.1", true],
    ["10.0.0", true],
    ["2.9.10", false],
    ["2.11.99", false],
  ])("%s is recent enough for 2.12: %s", (text, expected) =>
    expect(isAtLeast(parseVersion(text), [2, 12, 0])).toBe(expected),
  );

  test("an unknown version is not", () => expect(isAtLeast(undefined, [0, 0, 0])).toBe(false));
});
