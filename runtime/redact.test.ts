import { expect, test } from "vitest";
import { describeError, errorType, isSecretKey, redactErrorText, redactText, redactValue } from "./redact.ts";

test("values under telling keys are hidden at any depth, in any spelling", () => {
  const given = {
    password: "p",
    "X-Api-Key": "k",
    list: [{ accessToken: "t", kept: 1 }],
    deep: { NATS_PASSWORD: "p", client_secret: { whole: "object" }, prompt_tokens: 5 },
    email: "a@b",
  };
  expect(redactValue(given)).toEqual({
    password: "[REDACTED]",
    "X-Api-Key": "[REDACTED]",
    list: [{ accessToken: "[REDACTED]", kept: 1 }],
    deep: { NATS_PASSWORD: "[REDACTED]", client_secret: "[REDACTED]", prompt_tokens: 5 },
    email: "[REDACTED]",
  });
  expect(given.password).toBe("p");
});

test("every key the contract lists is filtered", () => {
  const listed = "password api_key secret token access_token refresh_token authorization credit_card ssn email phone";
  for (const key of listed.split(" ")) expect(isSecretKey(key), key).toBe(true);
  for (const key of ["tenant_id", "tokens", "key", "provider", "secretary"]) expect(isSecretKey(key), key).toBe(false);
});

test("credentials inside texts are cut out, ordinary texts are left", () => {
  expect(redactText("sent Bearer abc.def-123_xyz to it")).toBe("sent [REDACTED] to it");
  expect(redactText("redis://:hunter2@host:6379 refused")).toBe("redis://[REDACTED]@host:6379 refused");
  expect(redactText("with access_token=abc123&x=1")).toBe("with access_token=[REDACTED]&x=1");
  expect(redactText("jwt eyJhbGciOiJI.eyJzdWIi.sig")).toBe("jwt [REDACTED]");
  expect(redactText("key sk-proj-0123456789abcdef")).toBe("key [REDACTED]");
  for (const plain of ["max_tokens=100", "basic authentication", "a token bucket", "at https://host/path"]) {
    expect(redactText(plain)).toBe(plain);
  }
});

test("error texts that speak of credentials are replaced whole; where they were thrown stays", () => {
  expect(redactErrorText("wrong password for bob")).toBe("[REDACTED]");
  expect(redactErrorText("connection refused")).toBe("connection refused");
  const cause = Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
  const data = describeError(new TypeError("token abc is wrong", { cause }));
  expect(data).toMatchObject({
    type: "TypeError",
    message: "[REDACTED]",
    cause: { code: "ECONNREFUSED", message: "refused" },
  });
  expect(data.stack?.[0]).toContain("redact.test.ts");
  expect(JSON.stringify(data)).not.toContain("abc");
});

test("anything becomes plain data, however deep, long or circular", () => {
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  expect(JSON.stringify(redactValue(circular))).toContain("[deep]");
  expect(
    redactValue([
      1n,
      new Date(0),
      Buffer.from("abc"),
      new Map([["token", 1]]),
      new Set(["x"]),
      null,
      new Date(Number.NaN),
    ]),
  ).toEqual(["1", "1970-01-01T00:00:00.000Z", "<3 bytes>", { token: "[REDACTED]" }, ["x"], null, null]);
  expect(redactValue(Array.from({ length: 300 }, () => 1))).toHaveLength(201);
});

test("an error is called by its code, else by its class", () => {
  expect(errorType(Object.assign(new Error("x"), { code: "unavailable" }))).toBe("unavailable");
  expect(errorType(new RangeError("x"))).toBe("RangeError");
  expect(errorType("x")).toBe("string");
});
