import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import type { Bus } from "./connect.ts";
import { publish } from "./publish.ts";
import { firstSince, readStream } from "./read.ts";

let nats: TestNats;
let bus: Bus;
const stream = "READ_TEST";

beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  bus = await nats.connect("read", "operator");
  await bus.jsm.streams.add({ name: stream, subjects: ["log.readtest.>"], allow_direct: true });
}, 60_000);
afterAll(() => nats.stop());

const seqs = async (options?: Parameters<typeof readStream>[2]): Promise<number[]> =>
  (await Array.fromAsync(readStream(bus, stream, options))).map(({ seq }) => seq);

test("nothing is no error, a stream that is not there is one", async () => {
  expect(await seqs()).toEqual([]);
  expect(await firstSince(bus, stream, new Date(0))).toBeUndefined();
  await expect(Array.fromAsync(readStream(bus, "NO_SUCH_STREAM"))).rejects.toMatchObject({ code: "unavailable" });
});

test("more than a page, of one subject among others, from somewhere on", async () => {
  for (let n = 0; n < 1_100; n += 100)
    await Promise.all(
      Array.from({ length: 100 }, (_, i) => publish(bus, `log.readtest.${(n + i) % 2 ? "odd" : "even"}`, String(n))),
    );
  expect(await seqs()).toEqual(Array.from({ length: 1_100 }, (_, n) => n + 1));
  expect((await seqs({ subject: "log.readtest.odd" })).length).toBe(550);
  expect(await seqs({ from: 1_099 })).toEqual([1_099, 1_100]);
  expect(await seqs({ from: 1_101 })).toEqual([]);
  expect(await seqs({ subject: "log.readtest.none" })).toEqual([]);
  expect(await firstSince(bus, stream, new Date(0))).toBe(1);
  expect(await firstSince(bus, stream, new Date(Date.now() + 60_000))).toBeUndefined();
});

test("a page that the server cuts by its bytes is not the end", async () => {
  const large = Buffer.alloc(900_000, "x");
  for (let n = 0; n < 90; n++) await publish(bus, "log.readtest.large", large);
  expect((await seqs({ subject: "log.readtest.large" })).length).toBe(90);
}, 60_000);
