import { expect, test } from "vitest";
import { codecOf } from "./codec.ts";
import { CreateRunRequest } from "./gen/openwop/v1/openwop.ts";

test.each([
  [{ a: { b: [1, Number.NaN] } }, "inputs.a.b[1]"],
  [{ a: Number.POSITIVE_INFINITY }, "inputs.a"],
])("a number JSON has no word for is refused by its place: %j", (inputs, field) => {
  const request = CreateRunRequest.fromPartial({ workflow_id: "w", inputs });
  expect(() => codecOf(CreateRunRequest).toJson(request)).toThrow(
    expect.objectContaining({ code: "invalid_argument", field, message: `${field} must be a finite number` }),
  );
});
