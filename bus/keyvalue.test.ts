import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Kvm } from "@nats-io/kv";
import type { BeamlineError } from "../contracts/errors.ts";
import type { BucketSpec } from "../contracts/streams.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import type { Bus } from "./connect.ts";
import { keyOf } from "./keys.ts";
import { Bucket, jsonCodec, type Entry } from "./keyvalue.ts";
import { ensureBuckets } from "./streams.ts";
import { watchInto, type Watch } from "./watch.ts";

interface Policy {
  readonly weight: number;
}

let nats: TestNats;
let bus: Bus;
let admin: Bus;
const watches: Watch<Policy>[] = [];
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
  admin = await nats.connect("admin", "operator");
});
afterAll(async () => {
  for (const watch of watches) watch.stop();
  await nats.stop();
});

const specOf = (name: string): BucketSpec => ({ name, purpose: "a test", history: 3, ttlMs: 0 });

async function bucketOf(name: string, on: Bus = bus): Promise<Bucket<Policy>> {
  await ensureBuckets(bus, [specOf(name)]);
  return new Bucket(on, specOf(name), jsonCodec<Policy>());
}

/** A watch that keeps what it was told. */
function follow(bucket: Bucket<Policy>) {
  const told: [string, number | undefined][] = [];
  const errors: BeamlineError[] = [];
  const onChange = (key: string, entry: Entry<Policy> | undefined): void => void told.push([key, entry?.value.weight]);
  const watch = watchInto(bucket, { beatMs: 200, onChange, onError: (error) => errors.push(error) });
  watches.push(watch);
  const weights = (): Record<string, number> =>
    Object.fromEntries([...watch.entries].map(([key, { value }]) => [key, value.weight]));
  return { watch, told, errors, weights };
}

describe("values", () => {
  test("list: all of them, or those below a part, whatever their number; deleted ones are not there", async () => {
    const bucket = await bucketOf("listed");
    expect(await bucket.list()).toEqual([]);
    await Promise.all(Array.from({ length: 1_100 }, (_, at) => bucket.put(keyOf("acme", `k${at}`), { weight: at })));
    await bucket.put(keyOf("other", "k"), { weight: 7 });
    await bucket.put(keyOf("acme", "k1"), { weight: -1 });
    await bucket.delete(keyOf("acme", "k2"));
    const acme = await bucket.list("acme.>");
    expect(acme).toHaveLength(1_099);
    expect(acme.at(-1)).toMatchObject({ key: "acme.k1", value: { weight: -1 } });
    expect(acme.some(({ key }) => key === "acme.k2")).toBe(false);
    expect((await bucket.list()).map(({ key }) => key)).toContain("other.k");
    expect(await bucket.list("nobody.>")).toEqual([]);
  });

  test("Q1: put, get, update and delete, checked against the revision", async () => {
    const bucket = await bucketOf("values");
    const key = keyOf("acme inc.", "p.1");
    expect(await bucket.get(key)).toBeUndefined();
    const first = await bucket.put(key, { weight: 1 });
    expect(await bucket.get(key)).toMatchObject({ key, value: { weight: 1 }, revision: first });
    const second = await bucket.update(key, { weight: 2 }, first);
    await expect(bucket.update(key, { weight: 3 }, first)).rejects.toMatchObject({
      code: "aborted",
      details: { expected: first, actual: second },
    });
    await expect(bucket.delete(key, { revision: first })).rejects.toMatchObject({ code: "aborted" });
    await bucket.delete(key, { revision: second });
    expect(await bucket.get(key)).toBeUndefined();
  });

  test("Q1: of many creators one wins, also after a deletion", async () => {
    const bucket = await bucketOf("create");
    for (const round of [1, 2]) {
      const tries = await Promise.allSettled(Array.from({ length: 8 }, (_, weight) => bucket.create("k", { weight })));
      expect(tries.filter(({ status }) => status === "fulfilled").length).toBe(1);
      for (const one of tries)
        if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "already_exists" });
      if (round === 1) await bucket.delete("k");
    }
  });

  test("Q2: what cannot be read is data loss", async () => {
    const bucket = await bucketOf("broken");
    await bus.js.publish(bucket.subjectOf("k"), "not json");
    await expect(bucket.get("k")).rejects.toMatchObject({ code: "data_loss" });
  });

  test("other clients of the bucket see the same", async () => {
    const bucket = await bucketOf("shared");
    const other = await new Kvm(bus.js).open("shared");
    await bucket.put("a", { weight: 1 });
    expect((await other.get("a"))?.json()).toEqual({ weight: 1 });
    await other.put("b", JSON.stringify({ weight: 2 }));
    expect(await bucket.get("b")).toMatchObject({ value: { weight: 2 } });
    await other.delete("a");
    await other.purge("b");
    expect([await bucket.get("a"), await bucket.get("b")]).toEqual([undefined, undefined]);
    await bucket.put("a", { weight: 3 });
    await bucket.delete("a");
    expect((await other.get("a"))?.operation).toBe("DEL");
  });

  test("what never was there is not found, what no bucket holds says so", async () => {
    const nowhere = new Bucket(bus, specOf("nowhere"), jsonCodec<Policy>());
    await expect(nowhere.put("a", { weight: 1 })).rejects.toMatchObject({ code: "unavailable" });
    await expect(nowhere.get("a")).rejects.toMatchObject({ code: "not_found" });
  });
});

describe("watching", () => {
  test("W1: an empty bucket is ready at once, a full one when all of it is there", async () => {
    const bucket = await bucketOf("load");
    const empty = follow(bucket);
    await empty.watch.ready;
    expect(empty.watch.current).toBe(true);
    for (let i = 0; i < 200; i++) await bucket.put(`k${i % 100}`, { weight: i });
    await bucket.delete("k5");
    const full = follow(bucket);
    await full.watch.ready;
    expect(full.watch.entries.size).toBe(99);
    expect(full.weights()["k7"]).toBe(107);
    await until(() => empty.watch.entries.size === 99);
    expect(empty.weights()).toEqual(full.weights());
  });

  test("changes and deletions arrive, in order", async () => {
    const bucket = await bucketOf("changes");
    const { watch, told } = follow(bucket);
    await watch.ready;
    await bucket.put("a", { weight: 1 });
    await bucket.put("a", { weight: 2 });
    await bucket.delete("a");
    await until(() => told.length === 3);
    expect(told).toEqual([
      ["a", 1],
      ["a", 2],
      ["a", undefined],
    ]);
  });

  test("W2: after silence nothing is missed, not even a deletion that left no mark", async () => {
    const bucket = await bucketOf("silence");
    for (const key of ["stays", "goes", "changes"]) await bucket.put(key, { weight: 1 });
    const { watch, told, errors, weights } = follow(bucket);
    await watch.ready;
    // Its consumer is taken away, as by a server that forgot it.
    const [consumer] = await bus.jsm.consumers.list("KV_silence").next();
    await bus.jsm.consumers.delete("KV_silence", consumer?.name ?? "");
    await bus.jsm.streams.purge("KV_silence", { filter: bucket.subjectOf("goes") });
    await bucket.put("changes", { weight: 2 });
    await bucket.put("comes", { weight: 3 });
    await until(() => weights()["comes"] === 3 && !watch.entries.has("goes"));
    expect(weights()).toEqual({ stays: 1, changes: 2, comes: 3 });
    expect(told.filter(([key]) => key === "goes")).toEqual([
      ["goes", 1],
      ["goes", undefined],
    ]);
    expect(told.filter(([key]) => key === "stays").length).toBe(1);
    expect(errors.map(({ code }) => code)).toContain("unavailable");
  });

  test("W2: a bucket made again starts anew", async () => {
    const bucket = await bucketOf("again");
    await bucket.put("a", { weight: 1 });
    await bucket.put("b", { weight: 1 });
    const { watch, weights } = follow(bucket);
    await watch.ready;
    await admin.jsm.streams.delete("KV_again");
    await ensureBuckets(bus, [specOf("again")]);
    await bucket.put("b", { weight: 2 });
    await until(() => weights()["b"] === 2 && !watch.entries.has("a"));
  });

  test("W4: one that begins while the connection drains is told so, and ends nothing", async () => {
    const leaving = await nats.connect("leaving");
    const bucket = await bucketOf("leaving", leaving);
    const drained = leaving.drain();
    const { watch, errors } = follow(bucket);
    expect([watch.current, errors.length]).toEqual([false, 1]);
    watch.stop();
    await drained;
  });

  test("W3, W4: a value that cannot be read and a listener that throws are reported, the rest goes on", async () => {
    const bucket = await bucketOf("bad");
    await bucket.put("a", { weight: 1 });
    const errors: BeamlineError[] = [];
    const watch = watchInto(bucket, {
      onError: (error) => errors.push(error),
      onChange: (key) => {
        if (key === "thrown") throw new Error("in the listener");
      },
    });
    watches.push(watch);
    await watch.ready;
    await bus.js.publish(bucket.subjectOf("a"), "not json");
    await bucket.put("thrown", { weight: 1 });
    await bucket.put("b", { weight: 2 });
    await until(() => watch.entries.has("b"));
    expect(watch.entries.get("a")?.value).toEqual({ weight: 1 });
    expect(errors.map(({ code }) => code)).toEqual(["data_loss", "internal"]);
  });

  test("what a server was made to deliver into the bucket's stream under another subject is no key of it", async () => {
    const bucket = await bucketOf("foreign");
    await bucket.put("a", { weight: 1 });
    // A pull request whose reply subject is a key: the message lands in the stream, under the subject it has.
    await admin.jsm.streams.add({ name: "SOURCE", subjects: ["a.subject.longer.than.the.prefix"] });
    await admin.jsm.consumers.add("SOURCE", { durable_name: "taker", ack_policy: "explicit" });
    await admin.js.publish("a.subject.longer.than.the.prefix", JSON.stringify({ weight: 9 }));
    admin.nc.publish("$JS.API.CONSUMER.MSG.NEXT.SOURCE.taker", JSON.stringify({ batch: 1, no_wait: true }), {
      reply: bucket.subjectOf("b"),
    });
    await until(async () => (await admin.jsm.streams.info(bucket.stream)).state.messages === 2, "the foreign message");
    const { watch, errors } = follow(bucket);
    await watch.ready;
    expect([...watch.entries.keys()]).toEqual(["a"]);
    expect((await bucket.list()).map(({ key }) => key)).toEqual(["a"]);
    expect(errors).toEqual([]);
  });

  test("an expired value goes from the map, too", async () => {
    const spec = { ...specOf("brief"), ttlMs: 1_000 };
    await ensureBuckets(bus, [spec]);
    const bucket = new Bucket(bus, spec, jsonCodec<Policy>());
    const { watch } = follow(bucket);
    await watch.ready;
    await bucket.put("a", { weight: 1 });
    await until(() => watch.entries.has("a"));
    await until(() => watch.entries.size === 0);
    expect(await bucket.get("a")).toBeUndefined();
    await bucket.create("a", { weight: 2 });
  });

  test("W2: NATS killed and restarted; the map answers meanwhile and is current afterwards", async () => {
    const bucket = await bucketOf("restart");
    await bucket.put("a", { weight: 1 });
    await bucket.put("b", { weight: 1 });
    const { watch, weights } = follow(bucket);
    await watch.ready;
    await nats.server.kill();
    await until(() => !watch.current);
    expect(weights()).toEqual({ a: 1, b: 1 });
    await nats.server.restart();
    await until(() => watch.current);
    await bucket.put("a", { weight: 2 });
    await bucket.delete("b");
    await until(() => weights()["a"] === 2 && !watch.entries.has("b"));
    const later = follow(bucket);
    await later.watch.ready;
    expect(later.weights()).toEqual({ a: 2 });
  });

  test("a watch that was stopped is quiet", async () => {
    const bucket = await bucketOf("stopped");
    const { watch, told } = follow(bucket);
    const other = follow(bucket);
    await Promise.all([watch.ready, other.watch.ready]);
    watch.stop();
    await bucket.put("a", { weight: 1 });
    await until(() => other.told.length === 1);
    expect(told).toEqual([]);
    await until(async () => (await bus.jsm.consumers.list("KV_stopped").next()).length === 1);
  });
});
