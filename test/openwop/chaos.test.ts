/**
 * Workers, the edge and the bus are killed again and again while runs make effects outside: no run is lost, no event is missing or doubled,
 * every effect happens exactly once. BEAMLINE_CHAOS_RUNS sets how many runs (500 is the full measure), BEAMLINE_CHAOS_SEED repeats an order.
 */
import { expect } from "vitest";
import { TERMINAL_EVENTS, type RunEvent } from "../../contracts/openwop/log.ts";
import { createSeededRandom } from "../../runtime/ids.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startChaos, type Target } from "./chaos.kit.ts";

const RUNS = Number(process.env["BEAMLINE_CHAOS_RUNS"] ?? 100);
const seed = Number(process.env["BEAMLINE_CHAOS_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
/** One strike for so many runs, each kind at least once. */
const RUNS_PER_STRIKE = 20;
const KINDS: readonly Target[] = ["worker", "edge", "nats"];
const CREATORS = 4;
/** Every so-manieth run is followed live over gRPC, across the edges that die. */
const FOLLOWED = 10;

verifies(
  "crash-safe",
  `killed workers, edges and buses lose no run and repeat no effect (seed ${seed}, ${RUNS} runs)`,
  async () => {
    process.stdout.write(`BEAMLINE_CHAOS_SEED=${seed} BEAMLINE_CHAOS_RUNS=${RUNS}\n`);
    const random = createSeededRandom(seed);
    await using chaos = await startChaos(random, 2);
    await chaos.rest("PUT", "/v1/workflows/chaos", workflow);
    const ids: string[] = [];
    const follows: Promise<{ runId: string; streamed: unknown[] }>[] = [];
    let next = 0;
    const creator = async (): Promise<void> => {
      while (next < RUNS) {
        const at = next++;
        const runId =
          at % 2 === 0
            ? String((await chaos.rest("POST", "/v1/runs", { workflowId: "chaos" }))["runId"])
            : await chaos.create("chaos");
        ids.push(runId);
        if (at % FOLLOWED !== 0) continue;
        const follow = chaos.follow(runId).then((events) => ({ runId, streamed: events.map((one) => one.event_id) }));
        follow.catch(() => undefined);
        follows.push(follow);
      }
    };
    const creating = Promise.all(Array.from({ length: CREATORS }, creator));
    const strikes = Math.max(KINDS.length, Math.floor(RUNS / RUNS_PER_STRIKE));
    const order = Array.from({ length: strikes }, (_, at) => KINDS[at % KINDS.length] ?? "worker").toSorted(
      () => random.float() - 0.5,
    );
    for (const [at, target] of order.entries()) {
      await until(() => ids.length >= ((at + 1) * RUNS) / (strikes + 2), "runs to be under way", 60_000);
      await chaos.strike(target);
    }
    await creating;
    expect(new Set(ids).size).toBe(RUNS);
    const logs = new Map<string, RunEvent[]>();
    for (const runId of ids) logs.set(runId, await ended(chaos.rest, runId));
    const keys = [...logs.values()].map(effectOf);
    expect(new Set(keys).size).toBe(RUNS);
    expect(new Set(chaos.effects.keys())).toEqual(new Set(keys));
    for (const { runId, streamed } of await Promise.all(follows))
      expect(streamed).toEqual(logs.get(runId)?.map(({ eventId }) => eventId));
  },
  { timeout: 60_000 + RUNS * 600 },
);

/** The whole log of a run, once it has ended as it should. */
async function ended(
  rest: (method: string, path: string) => Promise<Record<string, unknown>>,
  runId: string,
): Promise<RunEvent[]> {
  const events = await until(
    async () => {
      const path = `/v1/runs/${runId}/events/poll?lastSequence=-1&timeout=1`;
      const { events: told, isComplete } = await rest("GET", path);
      if (isComplete !== true) throw new Error(`so far: ${JSON.stringify((told as RunEvent[]).slice(-4))}`);
      return told as RunEvent[];
    },
    `run ${runId} to end`,
    40_000,
  );
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index));
  expect(events.filter(({ type }) => TERMINAL_EVENTS.has(type)).map(({ type }) => type)).toEqual(["run.completed"]);
  expect(events.at(-1)?.type).toBe("run.completed");
  return events;
}

/** The idempotency key of the one effect, as the receiver told it and as the run recorded it. */
function effectOf(events: readonly RunEvent[]): string {
  const begun = events.filter(
    ({ type, nodeId, payload }) => type === "node.started" && nodeId === "effect" && isFirst(payload),
  );
  expect(begun, JSON.stringify(events)).toHaveLength(1);
  const done = events.filter(({ type, nodeId }) => type === "node.completed" && nodeId === "effect");
  expect(done).toHaveLength(1);
  const { outputs } = (done[0]?.payload ?? {}) as { outputs?: { body: { key: string } } };
  return outputs?.body.key ?? "";
}

/** A start that is no retry: a second one would be another turn, with another effect. */
function isFirst(payload: unknown): boolean {
  return (payload as { attempt?: number }).attempt === 0;
}

const step = (id: string, typeId: string, config: object): object => ({
  id,
  typeId,
  name: id,
  position: { x: 0, y: 0 },
  config,
  inputs: {},
});

const workflow = {
  id: "chaos",
  name: "chaos",
  version: "1",
  nodes: [
    step("before", "core.noop", {}),
    step("effect", "core.http", {
      url: "http://127.0.0.1:receiver/effect",
      method: "POST",
      body: { n: 1 },
      idempotent: true,
    }),
    step("after", "core.noop", {}),
  ],
  edges: [
    { id: "1", sourceNodeId: "before", targetNodeId: "effect" },
    { id: "2", sourceNodeId: "effect", targetNodeId: "after" },
  ],
  triggers: [],
  variables: [],
  metadata: {},
  settings: { maxRetries: 5 },
};
