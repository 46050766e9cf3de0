import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { objects } from "../contracts/streams.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { checkIn, redeem, release } from "./claims.ts";
import type { Bus } from "./connect.ts";
import { ObjectStore } from "./objects.ts";
import { ensureObjects } from "./streams.ts";

let nats: TestNats;
let bus: Bus;
let store: ObjectStore;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect();
  await ensureObjects(bus, [objects.payloads]);
  store = await ObjectStore.open(bus, objects.payloads);
});
afterAll(() => nats.stop());

async function* pieces(content: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size);
}

describe("objects", () => {
  test("bytes and streams come back as they were, of any size", async () => {
    for (const size of [0, 1, 128 * 1024, 1_000_003]) {
      const content = randomBytes(size);
      const put = await store.put(`size-${size}`, pieces(content, 70_001));
      expect(put).toMatchObject({ bucket: "payloads", size });
      expect(await store.info(`size-${size}`)).toEqual(put);
      expect(Buffer.compare(await store.bytes(`size-${size}`), content)).toBe(0);
      expect(await store.put(`size-${size}`, content)).toMatchObject({ digest: put.digest });
    }
  });

  test("names are free text; the last content under a name counts", async () => {
    await store.put("a b/ü.>*", Buffer.from("one"));
    await store.put("a b/ü.>*", Buffer.from("two"));
    expect(Buffer.from(await store.bytes("a b/ü.>*")).toString()).toBe("two");
  });

  test("what is not there is not found, deleted or never stored", async () => {
    await store.put("gone", Buffer.from("x"));
    expect(await store.delete("gone")).toBe(true);
    expect(await store.delete("gone")).toBe(false);
    expect(await store.info("gone")).toBeUndefined();
    await expect(store.bytes("gone")).rejects.toMatchObject({ code: "not_found" });
    await expect(store.bytes("never")).rejects.toMatchObject({ code: "not_found" });
  });

  test("O1: a wrong digest is data loss", async () => {
    const { digest } = await store.put("broken", Buffer.from("right"));
    const other = await store.put("broken", Buffer.from("wrong"));
    // The record of the object now claims the digest of another content.
    const meta = await bus.jsm.streams.getMessage("OBJ_payloads", {
      last_by_subj: `$O.payloads.M.${Buffer.from("broken").toString("base64url")}`,
    });
    const record = { ...meta?.json<Record<string, unknown>>(), digest };
    expect(other.digest).not.toBe(digest);
    await bus.js.publish(meta?.subject ?? "", JSON.stringify(record));
    await expect(store.bytes("broken")).rejects.toMatchObject({ code: "data_loss" });
  });

  test("O2: a read whose chunks are gone ends", async () => {
    await store.put("stalled", Buffer.from("x"));
    await bus.jsm.streams.purge("OBJ_payloads", { filter: "$O.payloads.C.>" });
    await expect(store.bytes("stalled", { stallMs: 50 })).rejects.toMatchObject({ code: "unavailable" });
  });

  test("a cancelled upload leaves nothing, a cancelled read ends", async () => {
    const abort = new AbortController();
    const endless = async function* (): AsyncGenerator<Uint8Array> {
      for (let i = 0; ; i++) {
        if (i === 5) abort.abort();
        yield randomBytes(200_000);
      }
    };
    await expect(store.put("cancelled", endless(), { signal: abort.signal })).rejects.toMatchObject({
      code: "cancelled",
    });
    expect(await store.info("cancelled")).toBeUndefined();
    await store.put("readme", Buffer.from("x"));
    await expect(store.bytes("readme", { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "cancelled" });
    await expect(store.bytes("readme", { maxBytes: 0 })).rejects.toMatchObject({ code: "message_too_large" });
  });
});

describe("claim check", () => {
  test("what fits stays, what does not goes to the store and comes back", async () => {
    expect(await checkIn(bus, Buffer.alloc(1_000))).toBeUndefined();
    const large = randomBytes(bus.maxPayload + 1);
    const ref = await checkIn(bus, large);
    if (ref === undefined) throw new Error("nothing was checked in");
    expect(Buffer.compare(await redeem(bus, JSON.parse(JSON.stringify(ref))), large)).toBe(0);
    await release(bus, ref);
    await expect(redeem(bus, ref)).rejects.toMatchObject({ code: "not_found" });
  });

  test("a claim is for the content that was checked in", async () => {
    const options = { limitBytes: 0, name: "same" };
    const ref = await checkIn(bus, Buffer.from("one"), options);
    await checkIn(bus, Buffer.from("two"), options);
    if (ref === undefined) throw new Error("nothing was checked in");
    await expect(redeem(bus, ref)).rejects.toMatchObject({ code: "data_loss" });
    await expect(redeem(bus, { ...ref, bucket: "other" })).rejects.toMatchObject({ code: "not_found" });
  });
});
