/** What a worker says about an assignment, on a real server. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { ObjectStore } from "../../bus/objects.ts";
import { ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { readResult, type Result } from "../../contracts/execution/result.ts";
import { objects, streams } from "../../contracts/streams.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { unheardDuring } from "../../test/kit/unheard.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { about } from "../../test/execution/kit.ts";
import { busReports } from "./reports.ts";

let nats: TestNats;
beforeAll(async () => {
  nats = await startTestNats();
  const bus = await nats.connect();
  await ensureStreams(bus, [streams.exec]);
  await ensureObjects(bus, Object.values(objects));
}, 60_000);
afterAll(() => nats?.stop());

/** A result whose output does not fit a message. */
function large(bus: Bus): Result {
  const said = {
    ...ids,
    status: "success",
    provider_id: "p",
    job: { type: "echo" },
    latency_ms: 1,
    cost: 0,
    payload: "x".repeat(bus.maxPayload),
  };
  return readResult(Buffer.from(JSON.stringify(said)), {}, 1).result;
}

const ids = { assignment_id: "a1", request_id: "r1", tenant_id: "acme", trace_id: "t1", publication: 1 };

verifies(
  "crash-safe",
  "an acknowledgement that is refused while a large output is put away is heard, and ends no worker",
  async () => {
    const unheard = await unheardDuring(async () => {
      const bus = await nats.connect();
      const tooLong = { ...ids, request_id: "x".repeat(bus.maxPayload) };
      await expect(busReports(bus, () => 1).acceptedWithResult(tooLong, large(bus), "")).rejects.toMatchObject({
        code: "message_too_large",
      });
    });
    expect(unheard).toEqual([]);
  },
);

verifies("effect-once", "an output too large for a message is put away and reported once the bus is back", async () => {
  const bus = await nats.connect();
  const result = { ...large(bus), assignment_id: "a2" };
  await nats.server.kill();
  await Promise.all([busReports(bus, () => 1).result(result, ""), nats.server.restart()]);
  const [stored] = await about(bus, "EXEC", "caf.exec.result.v1", "a2");
  const { payload_ref } = (stored?.body["metadata"] ?? {}) as { payload_ref: string };
  const store = await ObjectStore.open(bus, objects.payloads);
  expect(await store.bytes(payload_ref.slice(payload_ref.lastIndexOf("/") + 1))).toHaveLength(bus.maxPayload + 2);
});
