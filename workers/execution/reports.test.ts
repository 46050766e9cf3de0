/** What a worker says about an assignment, on a real server. */
import { afterAll, beforeAll, expect } from "vitest";
import { ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { readResult } from "../../contracts/execution/result.ts";
import { objects, streams } from "../../contracts/streams.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { busReports } from "./reports.ts";

let nats: TestNats;
beforeAll(async () => {
  nats = await startTestNats();
  const bus = await nats.connect();
  await ensureStreams(bus, [streams.exec]);
  await ensureObjects(bus, Object.values(objects));
}, 60_000);
afterAll(() => nats?.stop());

const ids = { assignment_id: "a1", request_id: "r1", tenant_id: "acme", trace_id: "t1", publication: 1 };

verifies(
  "crash-safe",
  "an acknowledgement that is refused while a large output is put away is heard, and ends no worker",
  async () => {
    const uncaught: unknown[] = [];
    const note = (thrown: unknown): void => void uncaught.push(thrown);
    process.on("unhandledRejection", note);
    try {
      const bus = await nats.connect();
      const payload = "x".repeat(bus.maxPayload);
      const said = {
        ...ids,
        status: "success",
        provider_id: "p",
        job: { type: "echo" },
        latency_ms: 1,
        cost: 0,
        payload,
      };
      const { result } = readResult(Buffer.from(JSON.stringify(said)), {}, 1);
      const tooLong = { ...ids, request_id: "x".repeat(bus.maxPayload) };
      await expect(busReports(bus, () => 1).acceptedWithResult(tooLong, result, "")).rejects.toMatchObject({
        code: "message_too_large",
      });
    } finally {
      process.off("unhandledRejection", note);
    }
    expect(uncaught).toEqual([]);
  },
);
