import { describe, expect, test } from "vitest";
import { codeIn, errorBody, errorHeaders, errorOfBody, isErrorBody } from "./errorbody.ts";
import { BeamlineError, codes, invalidArgument, type Code } from "./errors.ts";

const all = Object.keys(codes) as Code[];

test.each(all)("%s means something to every listener", (code) => {
  const { grpc, http, outcome } = codes[code];
  expect(grpc).toBeGreaterThan(0);
  expect(grpc).toBeLessThanOrEqual(16);
  expect(http).toBeGreaterThanOrEqual(400);
  expect(http).toBeLessThan(600);
  expect(["term", "retry", "done"]).toContain(outcome);
});

test.each([
  [new BeamlineError("not_found", "x"), "not_found"],
  [Object.assign(new Error("a"), { name: "AbortError" }), "cancelled"],
  [Object.assign(new Error("t"), { name: "TimeoutError" }), "deadline_exceeded"],
  [new TypeError("secret"), "internal"],
  ["a string", "internal"],
  [undefined, "internal"],
])("from(%s) is %s", (thrown, code) => {
  const error = BeamlineError.from(thrown);
  expect(error.code).toBe(code);
  expect(error.message).not.toContain("secret");
});

describe("bodies", () => {
  const error = new BeamlineError("policy_not_found", "policy not found", {
    details: { policy_id: "p" },
    retryAfterSeconds: 3,
  });

  test("BeamLine's envelope", () => {
    expect(errorBody(error, "beamline", { request_id: "r" })).toEqual({
      ok: false,
      error: {
        code: "policy_not_found",
        message: "policy not found",
        details: { policy_id: "p", retry_after_seconds: 3 },
      },
      context: { request_id: "r" },
    });
  });

  test("OpenWOP's envelope has no other top-level key", () => {
    expect(errorBody(new BeamlineError("run_not_found", "no such run"), "openwop")).toEqual({
      error: "run_not_found",
      message: "no such run",
    });
    expect(errorBody(invalidArgument("runId", "is empty"), "openwop")).toEqual({
      error: "validation_error",
      message: "runId is empty",
      details: { field: "runId" },
    });
  });

  test.each(["beamline", "aios", "openwop"] as const)("%s: what is written is read again", (dialect) => {
    const back = errorOfBody(errorBody(error, dialect));
    expect(back).toMatchObject({
      code: codeIn(dialect, error.code),
      message: error.message,
      details: error.details,
      retryAfterSeconds: 3,
    });
    expect(isErrorBody(errorBody(error, dialect))).toBe(true);
  });

  // The codes BeamLine's gateways know; they answer 200 to any other.
  const known = [
    "invalid_request",
    "unauthorized",
    "denied",
    "policy_not_found",
    "decision_failed",
    "internal",
    "extension_not_found",
    "extension_timeout",
    "validator_blocked",
    "post_processor_failed",
    "extension_unavailable",
    "extension_error",
    "rate_limit_exceeded",
    "unavailable",
  ];
  const generic = [
    "cancelled",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
    "message_too_large",
    "quota_exceeded",
  ] as const;
  test.each(generic)("BeamLine never hears of %s by a name it does not know", (code) =>
    expect(known).toContain(codeIn("beamline", code)),
  );

  test("upper-case codes of the admin subjects are their lower-case twins", () => {
    expect(errorOfBody({ ok: false, error: { code: "POLICY_NOT_FOUND", message: "m" } }).code).toBe("policy_not_found");
    expect(errorOfBody({ ok: false, error: { code: "INVALID_ARGUMENT", message: "m" } }).code).toBe("invalid_argument");
  });

  test.each([undefined, null, 5, "text", [], {}, { error: {} }, { error: { code: 7 } }])(
    "an unreadable body %j is internal, with a text",
    (body) => {
      expect(errorOfBody(body)).toMatchObject({ code: "internal", message: "internal error" });
    },
  );

  test("headers carry one line and the HTTP status", () => {
    expect(errorHeaders(new BeamlineError("not_found", "a\r\nb"))).toEqual({
      "Nats-Service-Error": "not_found: a b",
      "Nats-Service-Error-Code": "404",
    });
  });
});
