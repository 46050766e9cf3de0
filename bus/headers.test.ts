import { headers as libraryHeaders, type Msg } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import type { Bus } from "./connect.ts";
import { encodeHeaders, fromNats, textOf, toNats } from "./headers.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "1m" });
  bus = await nats.connect("headers", "operator");
});
afterAll(() => nats.stop());

function next(subject: string): Promise<Msg> {
  return new Promise((resolve) =>
    bus.nc.subscribe(subject, { max: 1, callback: (_error, message) => resolve(message) }),
  );
}

test("what is written here, the library reads", async () => {
  const arrived = next("h.1");
  bus.nc.publish("h.1", "x", { headers: toNats({ traceparent: "00-a-b-00", tenant_id: "äöü 日本", empty: "" }) });
  const { headers } = await arrived;
  expect(headers?.get("traceparent")).toBe("00-a-b-00");
  expect(headers?.get("tenant_id")).toBe("äöü 日本");
  expect(headers?.has("empty")).toBe(false);
});

test("what the library writes, is read here", async () => {
  const arrived = next("h.2");
  const written = libraryHeaders();
  written.append("a", "1");
  written.append("a", "2");
  written.append("Beamline-X", "spaced  value");
  bus.nc.publish("h.2", "payload", { headers: written });
  const message = await arrived;
  expect(fromNats(message)).toEqual({ a: "1", "Beamline-X": "spaced  value" });
  expect(textOf(message)).toBe("payload");
});

test("a message without headers has none", async () => {
  const arrived = next("h.3");
  bus.nc.publish("h.3", "x");
  expect(fromNats(await arrived)).toEqual({});
});

test("a line break in a value cannot add a header", () => {
  expect(Buffer.from(encodeHeaders({ a: "1\r\nb: 2" })).toString()).toBe("NATS/1.0\r\na: 1 b: 2\r\n\r\n");
});
