/** Calls of nodes whose bus goes away while they are answered. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { Caller } from "../../bus/call.ts";
import type { Bus } from "../../bus/connect.ts";
import { fromNats } from "../../bus/headers.ts";
import { header } from "../../contracts/headers.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { asking } from "./asking.ts";

const SUBJECT = "beamline.ext.node.vendor.acme.asked";
const never = new AbortController().signal;
const seen: string[] = [];

let nats: TestNats;
let caller: Caller;
let back: Promise<unknown> | undefined;
beforeAll(async () => {
  nats = await startTestNats();
  caller = new Caller(await nats.connect("worker-runs"));
  const other: Bus = await nats.connect("other", "operator");
  other.subscribe(SUBJECT, (message) => {
    seen.push(fromNats(message)[header.idempotencyKey] ?? "");
    if (seen.length % 2 === 0) return other.send(message.reply ?? "", JSON.stringify({ done: seen.length }));
    // The first one of a call is being worked on when the server dies.
    back = nats.server.kill().then(() => nats.server.restart());
  });
  await other.flush();
}, 60_000);
afterAll(async () => {
  await back;
  await nats?.stop();
});

const asked = (key: string, idempotent: boolean): Promise<unknown> =>
  asking(caller).request(SUBJECT, {}, { [header.idempotencyKey]: key }, 30_000, never, { idempotent });

test("nobody is waited for where the bus was never away", async () => {
  const nobody = asking(caller).request("beamline.ext.node.vendor.acme.none", {}, {}, 60_000, never, {
    idempotent: true,
  });
  await expect(nobody).rejects.toMatchObject({ code: "unavailable", message: expect.stringContaining("nobody") });
});

verifies(
  "effect-once",
  "a call that is idempotent by its key is made again under it when the bus was lost",
  async () => {
    seen.length = 0;
    expect(await asked("one", true)).toEqual({ done: 2 });
    expect(seen).toEqual(["one", "one"]);
  },
);

test("any other is not", async () => {
  seen.length = 0;
  await expect(asked("two", false)).rejects.toMatchObject({ code: "unavailable" });
  expect(seen).toEqual(["two"]);
});
