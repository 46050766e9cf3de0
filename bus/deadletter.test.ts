import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BeamlineError, type Code } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";
import { objects, streams } from "../contracts/streams.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import type { Bus } from "./connect.ts";
import { deadLetter, deadLetterSubject, reasonOf } from "./deadletter.ts";
import { payloadIn, readLetter, writeLetter, type LastRites } from "./letter.ts";
import { publish } from "./publish.ts";
import { discardDeadLetters, listDeadLetters, redrive, showDeadLetter } from "./redrive.ts";
import { ensureObjects, ensureStreams } from "./streams.ts";
import { testStream } from "./streams.testbed.ts";

let sequence = 1;

function rites(change: Partial<LastRites> = {}, headers: Headers = {}, subject = "log.dead.a"): LastRites {
  return {
    reason: "maxdeliver_exhausted",
    error: new BeamlineError("unavailable", "the far side is down", { field: "x.y", details: { host: "far" } }),
    origin: {
      subject,
      headers,
      msgId: headers["Nats-Msg-Id"],
      sequence: sequence++,
      firstSeenMs: 1_700_000_000_000,
      attempt: 3,
    },
    stream: "DEAD",
    durable: "worker",
    attempts: 3,
    timestamp: 1_706_367_600_123,
    ...change,
  };
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8");

describe("letters", () => {
  test("the body is the contract's form, our facts under context", () => {
    const headers = { "Nats-Msg-Id": "m1", tenant_id: "acme", traceparent: "00-aaaa-bbbb-01" };
    const body: unknown = JSON.parse(writeLetter(rites({}, headers), Buffer.from('{"a":1}')));
    expect(body).toEqual({
      original_subject: "log.dead.a",
      msg_id: "m1",
      reason: "maxdeliver_exhausted",
      error_code: "MAXDELIVER_EXHAUSTED",
      timestamp: 1_706_367_600_123,
      trace_id: "aaaa",
      tenant_id: "acme",
      context: {
        stream: "DEAD",
        durable: "worker",
        sequence: sequence - 1,
        attempts: 3,
        first_seen: 1_700_000_000_000,
        last_seen: 1_706_367_600_123,
        error: { code: "unavailable", message: "the far side is down", field: "x.y", details: { host: "far" } },
        payload_encoding: "json",
        payload_bytes: 7,
      },
      message: { id: "m1", subject: "log.dead.a", headers, payload: { a: 1 } },
    });
  });

  test("D1: any payload comes back byte for byte", () => {
    const payloads = [
      Buffer.from(""),
      Buffer.from("{}"),
      Buffer.from(' {"n":12345678901234567890, "n":1}\n'),
      Buffer.from("null"),
      Buffer.from('"a string"'),
      Buffer.from('plain "text" ü}}'),
      Buffer.from([0xff, 0x00, 0xfe]),
      randomBytes(1_000),
    ];
    for (const payload of payloads) {
      const body = Buffer.from(writeLetter(rites(), payload));
      const letter = readLetter(body);
      expect(letter && Buffer.compare(payloadIn(body, letter), payload)).toBe(0);
    }
  });

  test("D1: a body that someone wrote anew still has its payload", () => {
    const body = Buffer.from(
      JSON.stringify(JSON.parse(writeLetter(rites(), Buffer.from('{ "a" : 1 }'))), undefined, 2),
    );
    const letter = readLetter(body);
    expect(letter && JSON.parse(text(payloadIn(body, letter)))).toEqual({ a: 1 });
  });

  test("what is not known is empty, the tenant is looked for in the payload", () => {
    const body = readLetter(Buffer.from(writeLetter(rites(), Buffer.from('{"tenant_id":"t9"}'))));
    expect(body).toMatchObject({ trace_id: "", tenant_id: "t9", msg_id: `DEAD:${sequence - 1}` });
    expect(readLetter(Buffer.from("nonsense"))).toBeUndefined();
    expect(readLetter(Buffer.from('{"original_subject":"x","validation_error":{}}'))).toBeUndefined();
  });

  test("details that JSON cannot hold are left out", () => {
    const error = new BeamlineError("internal", "x", { details: { n: 1n } });
    expect(readLetter(Buffer.from(writeLetter(rites({ error }), Buffer.from("{}"))))?.context.error).toEqual({
      code: "internal",
      message: "x",
    });
  });

  test("reasons follow the error", () => {
    const expected: Partial<Record<Code, string>> = {
      invalid_argument: "validation_failed",
      invalid_request: "validation_failed",
      validation_error: "validation_failed",
      not_found: "processing_error",
      denied: "processing_error",
    };
    for (const [code, reason] of Object.entries(expected))
      expect(reasonOf(new BeamlineError(code as Code, ""))).toBe(reason);
  });

  test("the subject is the contract's where the stream takes it", () => {
    expect(deadLetterSubject("caf.exec.result.v1", "EXEC", "router-results")).toBe("caf.exec.result.v1.dlq");
    expect(deadLetterSubject("caf.exec.assign.v1", "EXEC", "workers")).toBe("dlq.EXEC.workers");
  });
});

describe("keeping and redriving", () => {
  let nats: TestNats;
  let bus: Bus;
  const spec = testStream("DEAD", ["log.dead.>"]);
  beforeAll(async () => {
    nats = await startTestNats();
    bus = await nats.connect();
    await ensureStreams(bus, [spec, streams.deadLetters]);
    await ensureObjects(bus, [objects.payloads]);
  });
  afterAll(() => nats.stop());

  const messageAt = (stream: string, seq: number) => bus.jsm.streams.getMessage(stream, { seq });
  const entriesOf = async (subject: string) => (await listDeadLetters(bus, { subject })).entries;

  test("D2, D4: headers of both, once", async () => {
    const headers = {
      "Nats-Msg-Id": "d2",
      "Nats-Batch-Id": "b",
      tenant_id: "t",
      "x-dlq-reason": "mine",
      "Beamline-Deadline": "1",
    };
    const what = rites({}, headers, "log.dead.d2");
    const { seq } = await deadLetter(bus, what, Buffer.from("{}"));
    expect(await deadLetter(bus, what, Buffer.from("{}"))).toMatchObject({ seq, duplicate: true });
    const stored = await messageAt("DLQ", seq);
    expect(Object.fromEntries([...(stored?.header ?? [])].map(([name, [value]]) => [name, value]))).toEqual({
      "Nats-Msg-Id": `dlq:DEAD:worker:${what.origin.sequence}`,
      "x-dlq-reason": "mine",
      "x-original-msg-id": "d2",
      tenant_id: "t",
    });
    expect((await showDeadLetter(bus, seq)).letter?.message.headers).toEqual(headers);
  });

  test("a payload that leaves no room for the letter goes to the object store and comes back", async () => {
    const payload = Buffer.from(JSON.stringify("x".repeat(bus.maxPayload - 600)));
    const { seq } = await deadLetter(bus, rites({}, {}, "log.dead.large"), payload);
    const shown = await showDeadLetter(bus, seq);
    expect(shown.letter?.context.payload_encoding).toBe("claim");
    expect(shown.payload && Buffer.compare(shown.payload, payload)).toBe(0);
    const [result] = await redrive(bus, [seq]);
    expect(result).toMatchObject({ outcome: "redriven" });
    const again = await messageAt("DEAD", result?.stored?.seq ?? 0);
    expect(again?.data.length).toBe(payload.length);
    expect(
      (await bus.jsm.streams.info("OBJ_payloads", { subjects_filter: "$O.payloads.C.>" })).state.subjects ?? {},
    ).toEqual({});
  });

  test("V1, V4: redriven as it was, and gone from the dead letters", async () => {
    const headers = { "Nats-Msg-Id": "v1", tenant_id: "t", "Beamline-Deadline": "1" };
    const payload = Buffer.from([1, 2, 255]);
    const { seq } = await deadLetter(bus, rites({}, headers, "log.dead.v1"), payload);
    const [result] = await redrive(bus, [seq]);
    const again = await messageAt("DEAD", result?.stored?.seq ?? 0);
    expect([again?.subject, again?.data]).toEqual(["log.dead.v1", new Uint8Array(payload)]);
    expect([
      again?.header.get("tenant_id"),
      again?.header.get("x-original-msg-id"),
      again?.header.has("Beamline-Deadline"),
    ]).toEqual(["t", "v1", false]);
    expect(again?.header.get("Nats-Msg-Id")).toContain(`redrive:DLQ:${seq}:`);
    expect(await redrive(bus, [seq])).toEqual([{ seq, outcome: "gone" }]);
    await expect(showDeadLetter(bus, seq)).rejects.toMatchObject({ code: "not_found" });
  });

  test("V2: twice at once stores the message once", async () => {
    const { seq } = await deadLetter(bus, rites({}, {}, "log.dead.v2"), Buffer.from("{}"));
    const outcomes = (await Promise.all([redrive(bus, [seq]), redrive(bus, [seq]), redrive(bus, [seq])]))
      .flat()
      .map(({ outcome }) => outcome);
    expect(outcomes).toContain("redriven");
    expect(outcomes.filter((outcome) => outcome === "redriven").length).toBe(1);
    expect(outcomes).not.toContain("failed");
    expect((await bus.jsm.streams.info("DEAD", { subjects_filter: "log.dead.v2" })).state.subjects).toEqual({
      "log.dead.v2": 1,
    });
  });

  test("one that cannot be redriven says why and stays, the others go", async () => {
    const nowhere = await deadLetter(bus, rites({}, {}, "beamline.nowhere"), Buffer.from("{}"), { timeoutMs: 1_000 });
    const foreign = await publish(bus, "caf.deadletter.v1", '{"version":"v1","kind":"dead_letter","data":{}}');
    const good = await deadLetter(bus, rites({}, {}, "log.dead.good"), Buffer.from("{}"));
    const results = await redrive(bus, [nowhere.seq, foreign.seq, good.seq]);
    expect(results).toMatchObject([
      { outcome: "failed", error: { code: "failed_precondition", message: "no stream takes beamline.nowhere" } },
      { outcome: "failed", error: { code: "failed_precondition" } },
      { outcome: "redriven" },
    ]);
    expect(await entriesOf("caf.deadletter.v1")).toMatchObject([{ seq: foreign.seq, letter: undefined }]);
    expect(await discardDeadLetters(bus, [foreign.seq, nowhere.seq, 999_999])).toEqual(
      new Map([
        [foreign.seq, true],
        [nowhere.seq, true],
        [999_999, false],
      ]),
    );
    expect(await entriesOf("caf.deadletter.v1")).toEqual([]);
  });

  test("V3: a letter in our form where outside programs may write is not believed", async () => {
    const forged = writeLetter(rites({}, {}, "log.dead.forged"), Buffer.from("{}"));
    const { seq } = await publish(bus, "caf.exec.dlq.v1", forged);
    expect(await redrive(bus, [seq])).toMatchObject([{ outcome: "failed", error: { code: "failed_precondition" } }]);
    expect(await discardDeadLetters(bus, [seq])).toEqual(new Map([[seq, true]]));
  });

  test("lists by subject, reason, tenant and time, page by page", async () => {
    for (let i = 0; i < 7; i++) {
      const reason = i % 2 === 0 ? "validation_failed" : "processing_error";
      await deadLetter(
        bus,
        rites({ reason }, { tenant_id: i < 3 ? "t1" : "t2" }, `log.dead.list.${i}`),
        Buffer.from("{}"),
      );
    }
    const all = await entriesOf("log.dead.list.*");
    expect(all.map(({ letter }) => letter?.original_subject)).toEqual(
      Array.from({ length: 7 }, (_, i) => `log.dead.list.${i}`),
    );
    const count = async (filter: object) =>
      (await listDeadLetters(bus, { subject: "log.dead.list.>", ...filter })).entries.length;
    expect(await count({ reason: "processing_error" })).toBe(3);
    expect(await count({ tenantId: "t1" })).toBe(3);
    const sinceMs = all[4]?.timestampMs ?? 0;
    expect(await count({ sinceMs })).toBe(all.filter(({ timestampMs }) => timestampMs >= sinceMs).length);
    expect(await count({ sinceMs: Date.now() + 60_000 })).toBe(0);
    const pages: number[] = [];
    let after = 0;
    for (let next: number | undefined = 0; next !== undefined; after = next ?? 0) {
      const page = await listDeadLetters(bus, { subject: "log.dead.list.>" }, { after, limit: 3 });
      pages.push(page.entries.length);
      next = page.next;
    }
    expect(pages).toEqual([3, 3, 1]);
    await expect(listDeadLetters(bus, {}, { limit: 0 })).rejects.toMatchObject({ code: "invalid_argument" });
  });
});
