import { expect, test } from "vitest";
import { toldBy } from "./otherletters.ts";

const told = (body: unknown): object => toldBy(Buffer.from(typeof body === "string" ? body : JSON.stringify(body)));

test("the digest of a refused request tells its tenant and what was wrong", () => {
  const body = {
    original_subject: "beamline.router.v1.decide",
    original_payload_hash: "ab",
    validation_error: { code: "SCHEMA_VALIDATION_FAILED", message: "Missing required field: payload" },
    context: { tenant_id: "acme", validation_stage: "schema" },
  };
  expect(told(body)).toEqual({ reason: "", tenantId: "acme", error: "Missing required field: payload" });
});

test("a worker's result tells its error, else its code", () => {
  const result = { assignment_id: "a", status: "error", tenant_id: "acme", error_code: "INVALID_INPUT" };
  expect(told({ ...result, error_message: "job.type is required" })).toMatchObject({ error: "job.type is required" });
  expect(told(result)).toEqual({ reason: "", tenantId: "acme", error: "INVALID_INPUT" });
  expect(told({ version: "v1", kind: "exec_result", data: result })).toMatchObject({ tenantId: "acme" });
});

test("the Rust worker's envelope tells its reason and where the message was", () => {
  const data = { reason: "PARSE_ERROR", payload_ref: { subject: "caf.exec.assign.v1", len: 9 }, ts: "now" };
  expect(told({ version: "v1", kind: "dead_letter", data })).toEqual({
    reason: "PARSE_ERROR",
    tenantId: "",
    error: "a message on caf.exec.assign.v1 of 9 bytes",
  });
});

test.each(["", "{", "[]", "null", "7", '{"data":[],"context":"x","reason":1}'])("%j tells nothing", (body) => {
  expect(told(body)).toEqual({ reason: "", tenantId: "", error: "" });
});
