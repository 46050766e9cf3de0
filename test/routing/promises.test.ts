/** A router killed at every point around a reply that promises an assignment. Every part is a process of its own. */
import { afterAll, beforeAll, expect } from "vitest";
import { about, all, usageFor } from "../execution/kit.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { openGap } from "./gap.ts";
import { ask, type Json } from "./kit.ts";

const ASSIGN = "caf.exec.assign.v1";

let world: World;
beforeAll(async () => {
  // As shipped: what is promised is on the disk.
  world = await startWorld({ workers: ["execution", "usage"], processes: true });
}, 90_000);
afterAll(async () => {
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

const PURGE = "$JS.API.STREAM.PURGE.ROUTING_PROMISES";
const TIMER = "sched.routing_promises";
const KEY = "log.routing.keys";
const REPLY = "_INBOX.";

interface Point {
  readonly what: string;
  /** What is not said any more, and what was said before it. */
  readonly mark: string;
  readonly after?: string;
  readonly keyed: boolean;
  /** Whether the caller had its reply. */
  readonly answered: boolean;
}

const points: readonly Point[] = [
  { what: "the promise is stored and nobody was told", mark: PURGE, after: TIMER, keyed: false, answered: false },
  { what: "the promise is stored and the key is not", mark: KEY, after: TIMER, keyed: true, answered: false },
  { what: "the key is stored and the reply not sent", mark: REPLY, after: KEY, keyed: true, answered: false },
  { what: "the reply is sent and nothing published", mark: ASSIGN, keyed: false, answered: true },
  { what: "the reply to a key is sent and nothing published", mark: ASSIGN, keyed: true, answered: true },
  { what: "it is published and the promise not taken out", mark: PURGE, after: ASSIGN, keyed: false, answered: true },
];

for (const [n, { what, mark, after, keyed, answered }] of points.entries())
  verifies(
    answered ? "crash-safe" : "effect-once",
    `killed when ${what}: one assignment, one usage event`,
    async () => {
      await using gap = await openGap(world.servers.nats.url);
      const doomed = await world.startWorker("routing", { NATS_URL: gap.url });
      const warm = `warm-${n}`;
      await until(async () => (await ask(world, extended(warm)))["ok"] === true, "a decision", 30_000);
      await until(
        async () => (await assignmentsOf(warm)).length > 0 && (await promises()) === 0,
        "the first to be kept",
      );
      const request = `killed-${n}`;
      const body = extended(request, keyed ? { idempotency_key: request } : {});
      const reached = gap.before(mark, after);
      const asked = ask(world, body).catch(() => undefined);
      await reached;
      const reply = answered ? await asked : undefined;
      if (answered) expect(reply).toMatchObject({ ok: true, context: { request_id: request } });
      await doomed.kill();
      expect(await promises()).toBe(1);
      expect(await assignmentsOf(request)).toHaveLength(after === ASSIGN ? 1 : 0);

      const next = await world.startWorker("routing");
      await asked;
      const again = async (): Promise<Json> => {
        const one = await until(
          async () => {
            const found = await ask(world, body).catch(() => undefined);
            return found?.["ok"] === true && found;
          },
          "the key to be free",
          30_000,
        );
        return one["decision"] as Json;
      };
      // Whoever has a key asks again: told the same as before, and no second assignment.
      const decision = keyed ? await again() : undefined;
      if (keyed && answered) expect(decision).toEqual(reply?.["decision"]);
      await until(async () => (await promises()) === 0, "the promise to be kept", 30_000);
      if (keyed) expect(await again()).toEqual(decision);
      const found = await assignmentsOf(request);
      expect(found).toHaveLength(1);
      expect(found[0]).toMatchObject({ tenant_id: "acme", job: { type: "echo", payload: { text: "hello there" } } });
      const chosen = reply?.["decision"] ?? decision;
      if (chosen !== undefined)
        expect(found[0]).toMatchObject({ executor: { provider_id: (chosen as Json)["provider_id"] } });
      const id = String(found[0]?.["assignment_id"]);
      await usageFor(world.bus, id, 30_000);
      expect(await about(world.bus, "USAGE", "beamline.usage.v1.metered", id)).toHaveLength(1);
      await next.kill();
    },
    { timeout: 120_000 },
  );
