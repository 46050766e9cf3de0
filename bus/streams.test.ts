import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nanos } from "@nats-io/transport-node";
import { streams, buckets, objects, type StreamSpec } from "../contracts/streams.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import type { Bus } from "./connect.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "./streams.ts";
import { testStream } from "./streams.testbed.ts";
import { publish } from "./publish.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
});
afterAll(() => nats.stop());

const HOUR_MS = 3_600_000;

const spec = (name: string, change: Partial<StreamSpec> = {}): StreamSpec =>
  testStream(name, [`log.${name}.>`], { maxAgeMs: 24 * HOUR_MS, duplicateWindowMs: HOUR_MS, ...change });

const config = async (name: string) => (await bus.jsm.streams.info(name)).config;

describe("streams", () => {
  test("every stream, bucket and object store of the contracts can be made", async () => {
    await ensureStreams(bus, Object.values(streams));
    await ensureBuckets(bus, Object.values(buckets));
    await ensureObjects(bus, Object.values(objects));
    const again = [
      ...(await ensureStreams(bus, Object.values(streams))),
      ...(await ensureBuckets(bus, Object.values(buckets))),
      ...(await ensureObjects(bus, Object.values(objects))),
    ];
    expect(again.length).toBeGreaterThan(3);
    expect(again.filter(({ outcome }) => outcome !== "unchanged")).toEqual([]);
  });

  test("features and durability are what the contracts promise", async () => {
    await ensureStreams(bus, [spec("features")]);
    expect(await config("features")).toMatchObject({
      storage: "file",
      discard: "old",
      allow_direct: true,
      allow_msg_ttl: true,
      allow_msg_schedules: true,
      allow_atomic: true,
      num_replicas: 1,
      duplicate_window: nanos(HOUR_MS),
    });
  });

  test("T1: several processes starting at once agree", async () => {
    const buses = await Promise.all(Array.from({ length: 5 }, () => nats.connect()));
    const outcomes = await Promise.all(buses.map((one) => ensureStreams(one, [spec("together")])));
    expect(outcomes.flat().filter(({ outcome }) => outcome === "updated")).toEqual([]);
    expect((await config("together")).subjects).toEqual(["log.together.>"]);
  });

  test("T1: versions that differ only ever add subjects", async () => {
    await ensureStreams(bus, [spec("versions")]);
    const newer = spec("versions", { subjects: ["log.versions.>", "log.versions2.>"], maxAgeMs: 48 * HOUR_MS });
    expect(await ensureStreams(bus, [newer])).toMatchObject([{ outcome: "updated" }]);
    await ensureStreams(bus, [spec("versions")]);
    expect((await config("versions")).subjects).toEqual(["log.versions.>", "log.versions2.>"]);
  });

  test("T2: a subject that moved to another stream goes there, and what was stored stays", async () => {
    await ensureStreams(bus, [spec("whole", { subjects: ["log.whole.a", "log.whole.b"] })]);
    await publish(bus, "log.whole.b", "before");
    const parts = [
      spec("whole", { subjects: ["log.whole.a"], moved: ["log.whole.b"] }),
      spec("part", { subjects: ["log.whole.b"] }),
    ];
    await Promise.all([ensureStreams(bus, parts), ensureStreams(bus, parts)]);
    expect([(await config("whole")).subjects, (await config("part")).subjects]).toEqual([
      ["log.whole.a"],
      ["log.whole.b"],
    ]);
    expect((await publish(bus, "log.whole.b", "after")).stream).toBe("part");
    expect((await bus.jsm.streams.info("whole")).state.messages).toBe(1);
  });

  test("T2: a limit is not narrowed below what is stored", async () => {
    await ensureStreams(bus, [spec("narrow")]);
    for (let i = 0; i < 5; i++) await publish(bus, "log.narrow.a", "x".repeat(1_000));
    const [narrowed] = await ensureStreams(bus, [spec("narrow", { maxBytes: 2_000, purpose: "changed" })]);
    expect(narrowed).toEqual({ stream: "narrow", outcome: "updated", kept: ["max_bytes"] });
    expect(await config("narrow")).toMatchObject({ max_bytes: -1, description: "changed" });
    expect((await bus.jsm.streams.info("narrow")).state.messages).toBe(5);
    await ensureStreams(bus, [spec("narrow", { maxBytes: 1_000_000 })]);
    expect(await config("narrow")).toMatchObject({ max_bytes: 1_000_000 });
  });

  test("T3: what cannot change is refused, naming the field", async () => {
    await ensureStreams(bus, [spec("fixed")]);
    await expect(ensureStreams(bus, [spec("fixed", { retention: "workqueue" })])).rejects.toMatchObject({
      code: "failed_precondition",
      field: "retention",
      message: "stream fixed: retention is limits, workqueue is asked for, and that cannot be changed",
    });
    await expect(ensureStreams(bus, [spec("fixed")], { replicas: 3 })).rejects.toMatchObject({
      code: "failed_precondition",
      field: "num_replicas",
    });
    await expect(ensureStreams(bus, [spec("thief", { subjects: ["log.fixed.a"] })])).rejects.toMatchObject({
      code: "failed_precondition",
      field: "subjects",
    });
    const window = spec("window", { maxAgeMs: HOUR_MS, duplicateWindowMs: 2 * HOUR_MS });
    await expect(ensureStreams(bus, [window])).rejects.toMatchObject({ field: "duplicate_window" });
  });

  test("a user without the right is told so", async () => {
    const edge = await nats.connect("edge", "edge");
    await expect(ensureStreams(edge, [spec("forbidden")])).rejects.toMatchObject({ code: "permission_denied" });
  });
});
