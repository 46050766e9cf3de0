import { describe, expect, test } from "vitest";
import {
  address,
  bool,
  choice,
  durationMs,
  file,
  float,
  formatAddress,
  int,
  list,
  maskUrl,
  optional,
  parseAddress,
  secret,
  text,
  url,
  urls,
} from "./setting.ts";
import type { Setting } from "./setting.ts";

const noFiles = () => undefined;

/** What the kind reads from each text; `undefined` for a mistake. */
function read<T>(setting: Setting<T>, ...texts: string[]): (T | undefined)[] {
  return texts.map((given) => setting.parse(given, noFiles));
}

describe("kinds read right values and refuse wrong ones", () => {
  test("int", () => {
    const setting = int(1, "s", { min: 1, max: 10 });
    expect(read(setting, "1", "10", "0", "11", "1.5", "ten", "0x5", "1e1")).toEqual([
      1,
      10,
      ...Array(6).fill(undefined),
    ]);
    expect(read(int(0, "s"), "-5", "9007199254740993")).toEqual([-5, undefined]);
    expect(setting.expected).toBe("a whole number from 1 to 10");
  });

  test("float", () => {
    expect(read(float(0, "s", { min: 0, max: 1 }), "0.5", ".25", "1e-3", "1.1", "", "Infinity", "half")).toEqual([
      0.5,
      0.25,
      0.001,
      ...Array(4).fill(undefined),
    ]);
  });

  test("bool", () => {
    expect(read(bool(false, "s"), "true", "YES", "on", "1")).toEqual([true, true, true, true]);
    expect(read(bool(false, "s"), "false", "no", "Off", "0", "maybe")).toEqual([false, false, false, false, undefined]);
  });

  test("duration_ms", () => {
    expect(read(durationMs(0, "s"), "10000", "500ms", "10s", "1.5s", "5m", "2 h", "1d", "s", "-1", "1w")).toEqual([
      10_000,
      500,
      10_000,
      1_500,
      300_000,
      7_200_000,
      86_400_000,
      ...Array(3).fill(undefined),
    ]);
    expect(read(durationMs(0, "s", { max: 1000 }), "2s")).toEqual([undefined]);
  });

  test("choice takes any case and gives the word as listed", () => {
    expect(read(choice(["debug", "info"], "info", "s"), "DEBUG", "verbose")).toEqual(["debug", undefined]);
  });

  test("url keeps the text and knows its schemes", () => {
    const setting = url(optional, "s", { schemes: ["http", "https"] });
    expect(read(setting, "https://x.example/a?b", "ftp://x", "x.example", "http://")).toEqual([
      "https://x.example/a?b",
      ...Array(3).fill(undefined),
    ]);
    expect(setting.expected).toBe("a URL (http://, https://)");
  });

  test("urls reads seeds, with or without the scheme", () => {
    const setting = urls(optional, "s", { schemes: ["nats", "tls"], assume: "nats" });
    expect(read(setting, "nats://a:4222, b:4222", "tls://c", "http://d", " , ")).toEqual([
      ["nats://a:4222", "nats://b:4222"],
      ["tls://c"],
      undefined,
      undefined,
    ]);
  });

  test("list", () => {
    expect(read(list([], "s"), "a, b ,c", ",")).toEqual([["a", "b", "c"], undefined]);
  });

  test("address", () => {
    const setting = address("127.0.0.1:50051", "s");
    expect(setting.fallback).toEqual({ value: { host: "127.0.0.1", port: 50051 } });
    expect(read(setting, "0.0.0.0:0", "[::1]:8080", "host:65536", "host", ":80", "::1:80")).toEqual([
      { host: "0.0.0.0", port: 0 },
      { host: "::1", port: 8080 },
      ...Array(4).fill(undefined),
    ]);
    expect(() => address("nowhere", "s")).toThrow("default address");
  });

  test("file must be readable, and its value is the path", () => {
    const setting = file(optional, "s");
    expect(setting.parse("/a", (path) => (path === "/a" ? "content" : undefined))).toBe("/a");
    expect(setting.parse("/b", noFiles)).toBeUndefined();
  });

  test("secret checks its pattern and shows nothing", () => {
    const setting = secret(optional, "s", { pattern: /^\w{8,}$/, expected: "8 or more letters" });
    expect(read(setting, "longenough", "short")).toEqual(["longenough", undefined]);
    expect(setting.show("longenough")).toBe("[REDACTED]");
    expect(setting.show(undefined)).toBe("");
  });

  test("text", () => {
    expect(read(text("x", "s"), "anything at all")).toEqual(["anything at all"]);
  });
});

test("addresses survive a round trip", () => {
  for (const given of ["127.0.0.1:80", "[fe80::1]:443"]) {
    const parsed = parseAddress(given);
    expect(parsed && formatAddress(parsed)).toBe(given);
  }
});

test("credentials inside URLs are hidden, whatever their form", () => {
  expect(maskUrl("redis://:p@ss/w@h:6379/0")).toBe("redis://[REDACTED]@h:6379/0");
  expect(maskUrl("nats://token@a:4222,nats://u:p@b")).toBe("nats://[REDACTED]@a:4222,nats://[REDACTED]@b");
  expect(maskUrl("u:p@host:4222")).toBe("[REDACTED]@host:4222");
  expect(maskUrl("https://host/path")).toBe("https://host/path");
});
