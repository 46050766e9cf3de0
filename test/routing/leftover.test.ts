/** Promises that were not kept at once: for so long that the stream has forgotten message ids, and because the bus was away. */
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect } from "vitest";
import { findDuplicate, publish } from "../../bus/publish.ts";
import { schedule } from "../../bus/schedule.ts";
import { ensureStreams } from "../../bus/streams.ts";
import type { Bus } from "../../bus/connect.ts";
import type { OutgoingAssignment } from "../../contracts/execution/assignment.ts";
import { streams } from "../../contracts/streams.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { BusAssignments } from "../../workers/routing/assignments/assignments.ts";
import type { Handover } from "../../workers/routing/ports.ts";
import { keepPromises } from "../../workers/routing/assignments/promises.nats.ts";
import { readRequest } from "../../workers/routing/intake/forms.ts";
import { forms } from "../../workers/routing/testkit.ts";
import { startTestNats, type TestNats } from "../kit/servers.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "10s" });
  bus = await nats.connect();
  await ensureStreams(bus, [{ ...streams.exec, duplicateWindowMs: 200 }, streams.routingPromises, streams.deadLetters]);
}, 60_000);
afterAll(() => nats.stop());

const assignment = (id: string): OutgoingAssignment => ({
  assignmentId: id,
  subject: "caf.exec.assign.v1",
  msgId: id,
  headers: { tenant_id: "acme" },
  body: JSON.stringify({ assignment_id: id }),
});

function router(of: Bus, id: string, onGivenUp: () => void = () => undefined): BusAssignments {
  return new BusAssignments(of, {
    enabled: true,
    tenants: undefined,
    newId: () => id,
    random: () => 0,
    now: () => Date.now(),
    log: { ...silentLogger, error: onGivenUp },
    registry: createRegistry(),
  });
}

const body = { ...forms.extended, push_assignment: true };
const handover: Handover = {
  request: readRequest(JSON.stringify(body), body, {}),
  decision: {
    provider_id: "p",
    reason: "weighted",
    priority: 50,
    expected_latency_ms: 10,
    expected_cost: 0,
    metadata: {},
    sticky_key: "",
    policy_id: "default",
    expires_at_ms: 0,
  },
  payload: undefined,
  traceparent: "",
};

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

verifies(
  "crash-safe",
  "an assignment that was promised before the bus went is published once it is back, and no dead letter",
  async () => {
    const made = await nats.connect("worker-routing");
    const givenUp = Promise.withResolvers<void>();
    const assignments = router(made, "promised-1", () => givenUp.resolve());
    const promised = await assignments.promise(handover);
    await nats.server.kill();
    await until(() => !made.connected, "the bus to be away");
    promised?.keep();
    await givenUp.promise;
    await nats.server.restart();
    await assignments.drain();
    await until(() => made.connected && bus.connected, "the bus to be back", 30_000);
    const stored = async (name: string): Promise<number> => (await bus.jsm.streams.info(name)).state.messages;
    expect(await stored(streams.routingPromises.name)).toBe(1);
    const before = await stored(streams.exec.name);
    const keeping = await keepPromises(made, assignments.keepLeftOver, silentLogger, () => Date.now());
    await until(async () => (await stored(streams.exec.name)) > before, "the assignment", 30_000);
    expect(await stored(streams.deadLetters.name)).toBe(0);
    await keeping.stop(Date.now() + 5_000);
  },
);

const promises = async () => (await bus.jsm.streams.info(streams.routingPromises.name)).state;

verifies(
  "crash-safe",
  "P4: a connection that is lost while an assignment is promised and back at once refuses nobody",
  async () => {
    const made = await nats.connect("worker-routing");
    const assignments = router(made, "promised-2");
    const promising = assignments.promise(handover);
    await Promise.all([promising, made.nc.reconnect()]);
    expect((await promises()).messages).toBe(1);
    (await promising)?.keep();
    await assignments.drain();
    expect((await promises()).messages).toBe(0);
  },
);

verifies("clear-failure", "P4: a promise that was refused and stored all the same is taken out", async () => {
  const made = await nats.connect("worker-routing");
  const { last_seq: before } = await promises();
  const { pid = 0 } = nats.server;
  process.kill(pid, "SIGSTOP");
  try {
    const state = (): string => execFileSync("ps", ["-o", "state=", "-p", String(pid)], { encoding: "utf8" });
    await until(() => state().trim().startsWith("T"), "the server to stand still");
    await expect(router(made, "promised-3").promise(handover)).rejects.toMatchObject({ code: "unavailable" });
  } finally {
    process.kill(pid, "SIGCONT");
  }
  // Stored, since it was on its way, and gone before it fires.
  await until(async () => (await promises()).last_seq > before, "the promise to be stored");
  await until(async () => (await promises()).messages === 0, "the promise to be taken out");
});
