/** A router killed at exactly the worst points around a reply that promises an assignment. Every part is a process of its own. */
import { afterAll, beforeAll, expect } from "vitest";
import { about, all, usageFor } from "../execution/kit.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { openGap, type Gap } from "./gap.ts";
import { ask, type Json } from "./kit.ts";

const ASSIGN = "caf.exec.assign.v1";

let world: World;
let gap: Gap;
beforeAll(async () => {
  // As shipped: what is promised is on the disk.
  world = await startWorld({ workers: ["execution", "usage"], processes: true });
  gap = await openGap(world.servers.nats.url);
}, 90_000);
afterAll(async () => {
  await gap?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

function extended(request_id: string, more: Json = {}): Json {
  return {
    version: "1",
    request_id,
    tenant_id: "acme",
    task: { type: "echo", payload: { text: "hello there" } },
    push_assignment: true,
    ...more,
  };
}

const assignmentsOf = async (requestId: string): Promise<Json[]> =>
  (await all(world.bus, "EXEC", ASSIGN)).map(({ body }) => body).filter((body) => body["request_id"] === requestId);

const promises = async (): Promise<number> => (await world.bus.jsm.streams.info("ROUTING_PROMISES")).state.messages;

verifies(
  "crash-safe",
  "killed between the reply and the publication: the assignment is published by another router, once",
  async () => {
    const doomed = await world.startWorker("routing", { NATS_URL: gap.url });
    await until(async () => (await ask(world, extended("warm"))) !== undefined, "a decision", 30_000);
    await until(
      async () => (await assignmentsOf("warm")).length === 1 && (await promises()) === 0,
      "the first to be kept",
    );
    const reached = gap.before(ASSIGN);
    const reply = await ask(world, extended("between"));
    expect(reply).toMatchObject({ ok: true, context: { request_id: "between" } });
    await reached;
    await doomed.kill();
    expect(await assignmentsOf("between")).toEqual([]);
    expect(await promises()).toBe(1);

    const next = await world.startWorker("routing");
    const [assignment] = await until(
      async () => {
        const found = await assignmentsOf("between");
        return found.length > 0 && found;
      },
      "the assignment",
      30_000,
    );
    expect(assignment).toMatchObject({
      tenant_id: "acme",
      executor: { provider_id: (reply["decision"] as Json)["provider_id"] },
      job: { type: "echo", payload: { text: "hello there" } },
    });
    const id = String(assignment?.["assignment_id"]);
    await usageFor(world.bus, id, 30_000);
    await until(async () => (await promises()) === 0, "the promise to be gone");
    expect(await assignmentsOf("between")).toHaveLength(1);
    expect(await about(world.bus, "USAGE", "beamline.usage.v1.metered", id)).toHaveLength(1);
    await next.kill();
  },
  { timeout: 120_000 },
);

verifies(
  "effect-once",
  "killed before the reply: whoever asks again with the key gets one assignment, not two",
  async () => {
    await using second = await openGap(world.servers.nats.url);
    const doomed = await world.startWorker("routing", { NATS_URL: second.url });
    await until(async () => (await ask(world, extended("warm-2"))) !== undefined, "a decision", 30_000);
    await until(async () => (await promises()) === 0, "the first to be kept");
    // The promise is stored, the answer to the key is not.
    const reached = second.before("log.routing.keys");
    const lost = ask(world, extended("before", { idempotency_key: "before" })).catch(() => undefined);
    await reached;
    await doomed.kill();
    expect(await promises()).toBe(1);

    await world.startWorker("routing");
    await lost;
    const again = async (): Promise<Json> => ask(world, extended("before", { idempotency_key: "before" }));
    const reply = await until(
      async () => {
        const one = await again().catch(() => undefined);
        return one?.["ok"] === true && one;
      },
      "the key to be free",
      30_000,
    );
    await until(async () => (await promises()) === 0, "the promises to be kept", 30_000);
    expect((await again())["decision"]).toEqual(reply["decision"]);
    const found = await assignmentsOf("before");
    expect(found).toHaveLength(1);
    const id = String(found[0]?.["assignment_id"]);
    await usageFor(world.bus, id, 30_000);
    expect(await about(world.bus, "USAGE", "beamline.usage.v1.metered", id)).toHaveLength(1);
  },
  { timeout: 120_000 },
);
