/** Requests for an assignment: what no execution worker would take is refused before anything is decided or promised. */
import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../../contracts/codec.ts";
import { changed, forms, policy, singleProvider, TestRouter } from "../testkit.ts";

const pushing = ["extended", "hybrid"] as const;
const promised: unknown[] = [];
const router = (): TestRouter =>
  new TestRouter([policy(singleProvider)], {
    assignments: {
      promise: async (handover) => {
        promised.push(handover);
        return { keep: () => undefined };
      },
    },
  });

async function refused(form: (typeof pushing)[number], changes: JsonObject): Promise<JsonObject> {
  const one = router();
  const before = promised.length;
  const reply = await one.ask(changed(forms[form], { push_assignment: true, ...changes }));
  expect(reply).toMatchObject({
    ok: false,
    error: { code: "invalid_request", intake_error_code: "SCHEMA_VALIDATION_FAILED" },
  });
  expect(promised).toHaveLength(before);
  expect(one.refused).toHaveLength(1);
  return reply["error"] as JsonObject;
}

describe.each(pushing)("in the %s form", (form) => {
  test.each<[unknown, string, string]>([
    [7, "options", "must be an object"],
    [{ deadline_ms: -1 }, "options.deadline_ms", "must not be negative"],
    [{ deadline_ms: "soon" }, "options.deadline_ms", "must be a number"],
    [{ priority: {} }, "options.priority", "must be a number"],
    [{ retry: 3 }, "options.retry", "must be an object"],
    [{ retry: { max_attempts: "often" } }, "options.retry.max_attempts", "must be a number"],
    [{ retry: { backoff_ms: -1 } }, "options.retry.backoff_ms", "must not be negative"],
  ])("options %j are refused by their field", async (options, field, what) => {
    expect(await refused(form, { options })).toMatchObject({
      message: `Schema validation failed: ${field} ${what}`,
      details: { field },
    });
  });

  test("an id that is no well-formed text is refused by its field", async () => {
    expect(await refused(form, { request_id: "\ud800" })).toMatchObject({
      message: "Schema validation failed: request_id must be well-formed Unicode",
      details: { field: "request_id" },
    });
  });

  test("options nobody reads are let be", async () => {
    const unread = changed(forms[form], { options: { deadline_ms: "soon" } });
    expect(await router().ask(unread)).toMatchObject({ ok: true });
  });
});

test("a message id too long to be an assignment's request id is refused only where it would be one", async () => {
  const long = { request_id: undefined, "message.message_id": "m".repeat(257) };
  expect(await refused("hybrid", long)).toMatchObject({ details: { field: "message.message_id" } });
  expect(await router().ask(changed(forms.hybrid, long))).toMatchObject({ ok: true });
});
