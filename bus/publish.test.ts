import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import { publishBatch } from "./batch.ts";
import type { Bus } from "./connect.ts";
import { findDuplicate, publish } from "./publish.ts";
import { publishRetrying } from "./retrying.ts";
import { ensureStreams } from "./streams.ts";
import { testStream } from "./streams.testbed.ts";

let nats: TestNats;
let bus: Bus;
const spec = testStream("PUB", ["log.pub.>"]);
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
  await ensureStreams(bus, [spec, { ...spec, name: "OTHER", subjects: ["log.other.>"] }]);
});
afterAll(() => nats.stop());

const stored = async (subject: string) => {
  const info = await bus.jsm.streams.info("PUB", { subjects_filter: subject });
  return info.state.subjects?.[subject] ?? 0;
};

describe("publish", () => {
  test("what is acknowledged is stored, once per message id", async () => {
    const first = await publish(bus, "log.pub.once", "one", { msgId: "once", headers: { tenant_id: "t" } });
    const second = await publish(bus, "log.pub.once", "one", { msgId: "once" });
    expect(first).toMatchObject({ stream: "PUB", duplicate: false });
    expect(second).toEqual({ ...first, duplicate: true });
    const message = await bus.jsm.streams.getMessage("PUB", { seq: first.seq });
    expect([message?.string(), message?.header.get("tenant_id")]).toEqual(["one", "t"]);
  });

  test("many at once, each with its own answer", async () => {
    const all = await Promise.all(Array.from({ length: 500 }, (_, i) => publish(bus, `log.pub.many.${i}`, `${i}`)));
    expect(new Set(all.map(({ seq }) => seq)).size).toBe(500);
    const some = await bus.jsm.streams.getMessage("PUB", { seq: all[123]?.seq ?? 0 });
    expect(some?.string()).toBe("123");
  });

  test("an expectation that does not hold is aborted, with both sequences", async () => {
    const { seq } = await publish(bus, "log.pub.expect", "a", { expectLastSubjectSequence: 0 });
    await expect(publish(bus, "log.pub.expect", "b", { expectLastSubjectSequence: 0 })).rejects.toMatchObject({
      code: "aborted",
      details: { expected: 0, actual: seq },
    });
    await publish(bus, "log.pub.expect", "b", { expectLastSubjectSequence: seq });
    await expect(publish(bus, "log.pub.expect", "c", { expectLastSequence: 1 })).rejects.toMatchObject({
      code: "aborted",
    });
    const wild = { expectLastSubjectSequence: seq, expectLastSubject: "log.pub.expect" };
    await expect(publish(bus, "log.pub.expect2", "c", wild)).rejects.toMatchObject({ code: "aborted" });
    expect(await stored("log.pub.expect")).toBe(2);
  });

  test("P3: the same id with the same expectation is a duplicate, not a conflict", async () => {
    const options = { msgId: "p3", expectLastSubjectSequence: 0 };
    const first = await publish(bus, "log.pub.p3", "a", options);
    await publish(bus, "log.pub.p3", "later");
    expect(await publish(bus, "log.pub.p3", "a", options)).toEqual({ ...first, duplicate: true });
    await expect(publish(bus, "log.pub.p3", "a", { ...options, msgId: "p3-other" })).rejects.toMatchObject({
      code: "aborted",
    });
    expect(await stored("log.pub.p3")).toBe(2);
  });

  test("looking for an id stores nothing", async () => {
    expect(await findDuplicate(bus, "log.pub.probe", "never-sent")).toBeUndefined();
    expect(await stored("log.pub.probe")).toBe(0);
  });

  verifies("clear-failure", "each failed publish has its code", async () => {
    await expect(publish(bus, "log.nowhere", "x")).rejects.toMatchObject({
      code: "unavailable",
      message: "publish to log.nowhere: no stream takes this subject",
    });
    await expect(publish(bus, "log.pub.big", "x".repeat(bus.maxPayload + 1))).rejects.toMatchObject({
      code: "message_too_large",
    });
    await expect(publish(bus, "log.pub.ttl", "x", { ttlMs: 5 })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(publish(bus, "log.pub.x", "x", { expectStream: "OTHER" })).rejects.toMatchObject({
      code: "failed_precondition",
    });
    await expect(publish(bus, "log.pub.x", "x", { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "cancelled",
    });
    await expect(publish(bus, "log.pub.x", "x", { timeoutMs: 0 })).rejects.toMatchObject({ code: "deadline_exceeded" });
    const late = new AbortController();
    const cancelled = publish(bus, "log.pub.x", "x", { signal: late.signal });
    late.abort();
    await expect(cancelled).rejects.toMatchObject({ code: "cancelled" });
    const edge = await nats.connect("edge", "edge");
    await expect(publish(edge, "log.pub.x", "x")).rejects.toMatchObject({ code: "permission_denied" });
    // A responder that is not a stream.
    const fake = bus.nc.subscribe("caf.test.fake", { callback: (_error, message) => void message.respond("hello") });
    await expect(publish(bus, "caf.test.fake", "x")).rejects.toMatchObject({ code: "internal" });
    fake.unsubscribe();
  });
});

describe("batch", () => {
  const batch = (...subjects: string[]) => subjects.map((subject, i) => ({ subject, payload: `${i}` }));

  test("A1: all are stored, side by side and in order", async () => {
    const done = await publishBatch(bus, batch("log.pub.a1.x", "log.pub.a1.y", "log.pub.a1.x"));
    const messages = await Promise.all(
      [2, 1, 0].map((back) => bus.jsm.streams.getMessage("PUB", { seq: done.seq - back })),
    );
    expect(messages.map((message) => message?.string())).toEqual(["0", "1", "2"]);
    expect(done).toMatchObject({ stream: "PUB", count: 3, duplicate: false });
  });

  test("A2: one broken expectation, and nothing is stored", async () => {
    const { seq } = await publish(bus, "log.pub.a2", "a");
    const good = [
      { subject: "log.pub.a2", payload: "b", expectLastSubjectSequence: seq },
      ...batch("log.pub.a2", "log.pub.a2.z"),
    ];
    const done = await publishBatch(bus, good);
    await expect(publishBatch(bus, good)).rejects.toMatchObject({
      code: "aborted",
      details: { expected: seq, actual: done.seq - 1 },
    });
    const second = [...batch("log.pub.a2.z"), { subject: "log.pub.a2", payload: "c", expectLastSubjectSequence: 1 }];
    await expect(publishBatch(bus, second)).rejects.toMatchObject({ code: "aborted" });
    expect([await stored("log.pub.a2"), await stored("log.pub.a2.z")]).toEqual([3, 1]);
  });

  test("the same batch twice is stored once, with and without an expectation", async () => {
    for (const expectLastSubjectSequence of [undefined, 0]) {
      const subject = `log.pub.twice${expectLastSubjectSequence ?? ""}`;
      const messages = [
        { subject, payload: "a", ...(expectLastSubjectSequence !== undefined && { expectLastSubjectSequence }) },
        { subject, payload: "b" },
      ];
      const first = await publishBatch(bus, messages, { msgId: subject });
      await publish(bus, subject, "later");
      expect(await publishBatch(bus, messages, { msgId: subject })).toEqual({ ...first, duplicate: true });
      expect(await stored(subject)).toBe(3);
    }
  });

  test("one message is a batch too; none, too many, and two streams are refused", async () => {
    expect(await publishBatch(bus, batch("log.pub.single"))).toMatchObject({ count: 1 });
    await expect(publishBatch(bus, [])).rejects.toMatchObject({ code: "invalid_argument" });
    const many = Array.from({ length: 1_001 }, () => ({ subject: "log.pub.toomany", payload: "" }));
    await expect(publishBatch(bus, many)).rejects.toMatchObject({ code: "invalid_argument" });
    expect(await publishBatch(bus, many.slice(1))).toMatchObject({ count: 1_000 });
    await expect(publishBatch(bus, batch("log.pub.cross", "log.other.cross", "log.pub.cross"))).rejects.toMatchObject({
      code: "unavailable",
    });
    expect(await stored("log.pub.cross")).toBe(0);
    const big = [...batch("log.pub.cross"), { subject: "log.pub.cross", payload: "x".repeat(bus.maxPayload) }];
    await expect(publishBatch(bus, big)).rejects.toMatchObject({ code: "message_too_large" });
    expect(await stored("log.pub.cross")).toBe(0);
  });
});

describe("a server that dies", () => {
  verifies("acked-is-durable", "P2: in flight fails at once, publishing again loses and doubles nothing", async () => {
    let failed = 0;
    let killed = false;
    const count = 400;
    const one = async (i: number): Promise<void> => {
      const msgId = `p2-${i}`;
      try {
        await publish(bus, "log.pub.p2", msgId, { msgId, timeoutMs: 30_000 });
      } catch (thrown) {
        expect(thrown).toMatchObject({ code: "unavailable" });
        failed++;
        await publishRetrying(bus, "log.pub.p2", msgId, { msgId });
      }
    };
    const all = (async () => {
      for (let at = 0; at < count; at += 20) {
        await Promise.all(Array.from({ length: 20 }, (_, i) => one(at + i)));
        if (at >= count / 2 && !killed) {
          killed = true;
          void nats.server.kill().then(() => nats.server.restart());
        }
      }
    })();
    await all;
    await until(() => failed > 0, "a publish that failed");
    expect(await stored("log.pub.p2")).toBe(count);
  });

  test("a publish while the bus is away fails at once; retrying ends at its deadline", async () => {
    await nats.server.kill();
    await until(() => !bus.connected, "the loss of the connection");
    const before = performance.now();
    await expect(publish(bus, "log.pub.away", "x", { timeoutMs: 30_000 })).rejects.toMatchObject({
      code: "unavailable",
    });
    await expect(publishRetrying(bus, "log.pub.away", "x", { msgId: "away", timeoutMs: 300 })).rejects.toMatchObject({
      code: "unavailable",
    });
    expect(performance.now() - before).toBeLessThan(5_000);
    await nats.server.restart();
    expect(await publishRetrying(bus, "log.pub.away", "x", { msgId: "away" })).toMatchObject({ duplicate: false });
  });
});
