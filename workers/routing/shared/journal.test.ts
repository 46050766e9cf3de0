/** The journal of idempotency keys when the bus is away, on a real server. */
import { expect } from "vitest";
import { publish } from "../../../bus/publish.ts";
import { ensureStreams } from "../../../bus/streams.ts";
import { streams } from "../../../contracts/streams.ts";
import { startTestNats } from "../../../test/kit/servers.ts";
import { until } from "../../../test/kit/until.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { Journal, type KeyRecord } from "./journal.nats.ts";

verifies(
  "effect-once",
  "J4: a key that was answered while the bus was away is in the journal once it is back",
  async () => {
    await using nats = await startTestNats({ syncInterval: "1m" });
    const bus = await nats.connect("worker");
    await ensureStreams(bus, [streams.routingKeys]);
    const journal = new Journal(bus);
    const record: KeyRecord = { name: "k", digest: "d", words: { bare: "{}", enveloped: "{}" }, at: Date.now() };
    const back = bus.nc.reconnect();
    await until(() => !bus.connected, "the connection to be lost");
    await expect(journal.append(record)).rejects.toMatchObject({ code: "unavailable" });
    await back;
    await until(() => bus.connected, "the connection to be back");
    const kept = await until(async () => (await Array.fromAsync(journal.read())).flat()[0], "the record");
    expect(kept).toEqual(record);
  },
);

verifies("effect-once", "J5: a message of the journal that cannot be read hides none of the others", async () => {
  await using nats = await startTestNats({ syncInterval: "1m" });
  const bus = await nats.connect("worker");
  await ensureStreams(bus, [streams.routingKeys]);
  const journal = new Journal(bus);
  const record: KeyRecord = { name: "k", digest: "d", words: { bare: "{}", enveloped: "{}" }, at: Date.now() };
  for (const rubbish of ["", "null", "[]", "{", '{"words":null,"keys":null}', '{"words":[[]],"keys":[[1,2,3,4],null]}'])
    await publish(bus, "log.routing.keys", rubbish);
  await publish(bus, "log.routing.keys", '{"words":[["{}","{}"]],"keys":[["lame","d",7,1],["late","d",0,"now"]]}');
  await journal.append(record);
  expect((await Array.fromAsync(journal.read())).flat()).toEqual([record]);
});
