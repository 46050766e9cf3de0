import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import type { Bus } from "./connect.ts";
import { followStream, type FollowOptions } from "./follow.ts";
import { publishRetrying } from "./retrying.ts";

let nats: TestNats;
let bus: Bus;
const stream = "FOLLOW_TEST";

beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect("follow", "operator");
  await bus.jsm.streams.add({ name: stream, subjects: ["log.followtest.>"] });
}, 60_000);
afterAll(() => nats.stop());

const send = async (kind: string, ...texts: string[]): Promise<void> => {
  for (const text of texts)
    await publishRetrying(bus, `log.followtest.${kind}`, text, { msgId: `${kind}-${text}`, timeoutMs: 10_000 });
};

/** What a reader has seen, and how it ended. */
function reading(options: Omit<FollowOptions, "signal">): { seen: string[]; stop: () => void; ended: Promise<void> } {
  const seen: string[] = [];
  const left = new AbortController();
  const ended = (async () => {
    for await (const message of followStream(bus, stream, { ...options, signal: left.signal }))
      seen.push(message.string());
  })();
  return { seen, stop: () => left.abort(), ended };
}

test("what is there, then what comes, of the subjects asked for, until told to stop", async () => {
  await send("a", "1", "2");
  await send("b", "other");
  const { seen, stop, ended } = reading({ subjects: ["log.followtest.a"], from: 2 });
  await until(() => seen.length === 1, "what is there");
  await send("a", "3");
  await until(() => seen.length === 2, "what comes");
  expect(seen).toEqual(["2", "3"]);
  stop();
  await ended;
});

test("from a moment on", async () => {
  const { seen, stop, ended } = reading({ from: new Date(Date.now() + 3_600_000) });
  const all = reading({ from: new Date(0) });
  await until(() => all.seen.length === 4, "everything");
  expect(seen).toEqual([]);
  for (const one of [{ stop, ended }, all]) {
    one.stop();
    await one.ended;
  }
});

verifies(
  "acked-is-durable",
  "F1: after a restart of the server reading goes on at once, with nothing twice and nothing lost",
  async () => {
    // Beats are so far apart that silence would tell nothing in the time of this test.
    const { seen, stop, ended } = reading({ subjects: ["log.followtest.c"], from: 1, beatMs: 60_000 });
    const texts = Array.from({ length: 30 }, (_, index) => String(index));
    await send("c", ...texts.slice(0, 10));
    await until(() => seen.length === 10, "the first ten");
    for (const from of [10, 20]) {
      await nats.server.kill();
      await nats.server.restart();
      await send("c", ...texts.slice(from, from + 10));
      await until(() => seen.length === from + 10, "ten more");
    }
    expect(seen).toEqual(texts);
    stop();
    await ended;
  },
);

test("F2: a stream that is gone ends the reading with an error, and one that is not there begins none", async () => {
  await expect(
    followStream(bus, "NO_SUCH_STREAM", { from: 1, signal: AbortSignal.timeout(30_000) }).next(),
  ).rejects.toMatchObject({
    code: "not_found",
  });
  const { seen, ended } = reading({ from: 1 });
  await until(() => seen.length > 0, "the first message");
  // The reading may end before the server has said that the stream is deleted.
  const refused = expect(ended).rejects.toMatchObject({ code: "not_found" });
  await bus.jsm.streams.delete(stream);
  await refused;
});
