import { assert, property, string } from "fast-check";
import { describe, expect, test } from "vitest";
import { readRecord, subjectOf, tenantOf, tenantToken, writeRecord, type Record } from "./record.ts";

const record: Record = {
  tenant: "acme inc.",
  kind: "goal",
  id: "g.1 >",
  at: 12,
  born: 12_345,
  by: "ada",
  task: "t",
  trace: "abc",
  state: { id: "g.1 >", priority: 1 },
};

describe("a record", () => {
  test("is read as it was written; the tenant is the subject's", () => {
    const subject = subjectOf(record.tenant, record.kind, record.id);
    expect(subject).toBe("log.memory.rec.acme=20inc=2E.goal.g=2E1=20=3E");
    expect(readRecord(subject, writeRecord(record))).toEqual(record);
    const gone = { ...record, state: undefined, by: "", task: "", trace: "" };
    expect(readRecord(subject, writeRecord(gone))).toEqual(gone);
    expect(readRecord(subjectOf("other", "goal", "x"), writeRecord(record)).tenant).toBe("other");
  });

  test("that cannot be read is data_loss", () => {
    const goal = (more: string) => `{"kind":"goal","id":"x",${more}}`;
    const states = ["null", "5", '"text"', "[]", '{"id":5}', '{"priority":"high"}'];
    const unreadable = [
      "",
      "{",
      "null",
      "5",
      "[]",
      "{}",
      '{"kind":"nonsense","id":"x","at":1}',
      '{"kind":"goal","at":1}',
    ];
    const goals = [goal('"at":"now"'), goal('"at":1e400'), ...states.map((state) => goal(`"at":1,"state":${state}`))];
    for (const text of unreadable.concat(goals)) {
      expect(() => readRecord("log.memory.rec.t.goal.x", text)).toThrow(
        expect.objectContaining({ code: "data_loss" }) as Error,
      );
    }
  });
});

describe("subjects", () => {
  test("are of a bounded length, different for different ids, and never a wildcard", () => {
    const long = "x".repeat(10_000);
    expect(subjectOf("t", "goal", long).length).toBeLessThan(300);
    expect(subjectOf("t", "goal", long)).not.toBe(subjectOf("t", "goal", `${long}y`));
    assert(
      property(string({ unit: "grapheme" }), string({ unit: "grapheme" }), (one, other) => {
        const subject = subjectOf("t", "goal", one);
        expect(subject).toMatch(/^log\.memory\.rec\.t\.goal\.[A-Za-z0-9=_-]+$/);
        expect(subject === subjectOf("t", "goal", other)).toBe(one === other);
      }),
    );
  });

  test("carry the tenant, whatever it is; one too long is refused", () => {
    assert(
      property(string({ unit: "binary", minLength: 1, maxLength: 16 }), (tenant) => {
        expect(tenantOf(subjectOf(tenant, "task", "a.b"))).toBe(tenant);
      }),
    );
    expect(tenantToken("x".repeat(200))).toHaveLength(200);
    expect(() => tenantToken("x".repeat(201))).toThrow("tenant_id");
    expect(() => tenantToken("𐀀".repeat(17))).toThrow("tenant_id takes 204 characters in a subject, 200 are the most");
  });
});
