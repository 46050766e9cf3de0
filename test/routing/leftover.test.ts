/** Promises that nobody kept for so long that the stream has forgotten message ids. */
import { afterAll, beforeAll, expect } from "vitest";
import { findDuplicate, publish } from "../../bus/publish.ts";
import { schedule } from "../../bus/schedule.ts";
import { ensureStreams } from "../../bus/streams.ts";
import type { Bus } from "../../bus/connect.ts";
import type { OutgoingAssignment } from "../../contracts/execution/assignment.ts";
import { streams } from "../../contracts/streams.ts";
import { silentLogger } from "../../runtime/log.ts";
import { keepPromises } from "../../workers/routing/assignments/promises.nats.ts";
import { startTestNats, type TestNats } from "../kit/servers.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  bus = await nats.connect();
  await ensureStreams(bus, [{ ...streams.exec, duplicateWindowMs: 200 }, streams.routingPromises]);
}, 60_000);
afterAll(() => nats.stop());

const assignment = (id: string): OutgoingAssignment => ({
  assignmentId: id,
  subject: "caf.exec.assign.v1",
  msgId: id,
  headers: { tenant_id: "acme" },
  body: JSON.stringify({ assignment_id: id }),
});

verifies(
  "effect-once",
  "P3: what was published and is promised still is not published again, what was not is",
  async () => {
    const [kept, lost] = [assignment("kept"), assignment("lost")];
    const elsewhere = { ...assignment("elsewhere"), subject: "caf.exec.elsewhere" }; // no stream takes it
    const at = Date.now();
    await publish(bus, kept.subject, kept.body, { msgId: kept.msgId });
    await until(
      async () => (await findDuplicate(bus, "retry.exec.probe", kept.msgId)) === undefined,
      "its id to be forgotten",
    );
    await schedule(bus, streams.routingPromises, {
      key: ["late"],
      when: { at },
      target: "retry.routing_promises.due",
      payload: JSON.stringify({ at, assignments: [kept, lost, elsewhere] }),
    });
    const published: string[] = [];
    // Two hours later, as the router that finds it sees it.
    const keep = async ({ assignmentId }: OutgoingAssignment): Promise<void> => void published.push(assignmentId);
    const keeping = await keepPromises(bus, keep, silentLogger, () => at + 2 * 3_600_000);
    await until(
      async () => (await bus.jsm.streams.info(streams.routingPromises.name)).state.messages === 0,
      "the promise to be kept",
    );
    expect(published).toEqual(["lost", "elsewhere"]);
    await keeping.stop(Date.now() + 5_000);
  },
);
