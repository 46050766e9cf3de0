import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../../contracts/codec.ts";
import { payloadOf, readRequest, type Form } from "./forms.ts";
import { changed, forms } from "../testkit.ts";

describe("payloads go on byte for byte", () => {
  test.each<[Form, unknown, string]>([
    ["seed", '{"text": "Hello, world!"}', '{"text": "Hello, world!"}'],
    ["seed", "SGVsbG8gV29ybGQ=", "SGVsbG8gV29ybGQ="],
    ["seed", "ünïcödé \u0000 \n \u{1F600}", "ünïcödé \u0000 \n \u{1F600}"],
    ["hybrid", { text: "hi", n: 1.5, nested: [null, true] }, '{"text":"hi","n":1.5,"nested":[null,true]}'],
    ["flat", "eyJ0IjoxfQ==", "eyJ0IjoxfQ=="],
    ["extended", "plain text", "plain text"],
    ["extended", { text: "hi there" }, '{"text":"hi there"}'],
  ])("%s %j", (form, given, expected) => {
    const path = form === "flat" ? "payload" : form === "extended" ? "task.payload" : "message.payload";
    const text = JSON.stringify(changed(forms[form], { [path]: given }));
    const request = readRequest(text, JSON.parse(text) as JsonObject, {});
    expect(payloadOf(request)).toBe(expected);
  });
});

test("an object payload is handed on as it was written, numbers beyond 2^53 and spaces included", () => {
  const written = '{ "id": 12345678901234567890, "x": 1.50, "a": "\\u0041" }';
  const text = `{"version":"1","request_id":"r","tenant_id":"acme","message":{"message_type":"chat","payload":${written}}}`;
  expect(payloadOf(readRequest(text, JSON.parse(text) as JsonObject, {}))).toBe(written);
});
