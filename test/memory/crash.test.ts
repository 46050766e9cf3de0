/** `kill -9` of the memory worker, again and again, while it is written to: whatever was acknowledged is there at the end. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect } from "vitest";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "./world.ts";

const WRITES = 10_000;
const KILL_EVERY = 1_250;
const AT_ONCE = 64;

let world: World;
let child: ChildProcess | undefined;

beforeAll(async () => {
  world = await startWorld();
  await ensureStreams(world.bus, memoryWorker.streams ?? []);
  await ensureBuckets(world.bus, memoryWorker.buckets ?? []);
  await ensureObjects(world.bus, memoryWorker.objects ?? []);
}, 60_000);

afterAll(async () => {
  child?.kill("SIGKILL");
  await world[Symbol.asyncDispose]();
});

async function start(): Promise<void> {
  const { user, password, inboxPrefix } = world.nats.credentials.worker;
  const file = fileURLToPath(new URL("worker.process.ts", import.meta.url));
  const env = {
    ...world.env(),
    NATS_URL: world.nats.server.url,
    NATS_USER: user,
    NATS_PASSWORD: password,
    NATS_INBOX_PREFIX: inboxPrefix,
    BEAMLINE_MEMORY_EVENTS: "100",
  };
  child = spawn(process.execPath, [file], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  await once(child, "message");
}

async function kill(): Promise<void> {
  const gone = child;
  if (gone === undefined) return;
  gone.kill("SIGKILL");
  await once(gone, "exit");
}

async function inParallel<T>(all: Iterable<T>, run: (one: T) => Promise<void>): Promise<void> {
  const waiting = [...all];
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let one = waiting.pop(); one !== undefined; one = waiting.pop()) await run(one);
    }),
  );
}

verifies(
  "crash-safe",
  `memory: ${WRITES} acknowledged writes, the worker killed every ${KILL_EVERY}, none is lost`,
  async () => {
    await start();
    const acked = {
      goals: new Set<string>(),
      events: new Set<string>(),
      agents: new Map<string, string>(),
      calls: new Set<string>(),
      stats: 0,
      knowledge: new Set<string>(),
    };
    await world.call("storePattern", { id: "p", trigger: "crash" });
    let next = 0;
    let done = 0;
    let kills = 0;
    let restarting: Promise<void> = Promise.resolve();

    const write = async (n: number): Promise<void> => {
      const id = `w${n}`;
      const options = { timeoutMs: 3_000, headers: { idempotency_key: id } };
      if (n % 200 === 0) {
        await world.call(
          "addKnowledge",
          { title: id, content: `what was learned in step ${n}`, source: "crash" },
          options,
        );
        acked.knowledge.add(id);
      } else if (n % 5 === 0) {
        await world.call("storeGoal", { id, description: id, status: "pending" }, options);
        acked.goals.add(id);
      } else if (n % 5 === 1) {
        await world.call("pushEvent", { id, category: "crash", critical: true }, options);
        acked.events.add(id);
      } else if (n % 5 === 2) {
        const agent = `agent-${n % 100}`;
        await world.call(
          "storeAgentState",
          { agent_name: `${agent}-${n}`, state_json: Buffer.from(String(n)) },
          options,
        );
        acked.agents.set(`${agent}-${n}`, String(n));
      } else if (n % 50 === 3) {
        await world.call("updatePatternStats", { id: "p", success: true }, options);
        acked.stats++;
      } else {
        await world.call("storeToolCall", { id, tool_name: "crash" }, options);
        acked.calls.add(id);
      }
    };
    const writer = async (): Promise<void> => {
      while (next < WRITES) {
        const n = next++;
        for (;;) {
          await restarting;
          try {
            await write(n);
            break;
          } catch {
            // Unknown outcome: written again with the same key until it is acknowledged.
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
        }
        if (++done % KILL_EVERY === 0 && done < WRITES) {
          kills++;
          restarting = kill().then(start);
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, writer));
    expect(kills).toBe(WRITES / KILL_EVERY - 1);
    await kill();
    await start();

    const { goals } = await world.call("getActiveGoals", {});
    expect(new Set(goals.map(({ id }) => id))).toEqual(acked.goals);
    const { events } = await world.call("getRecentEvents", { count: -1, category: "crash" });
    expect(new Set(events.map(({ id }) => id))).toEqual(acked.events);
    expect(events).toHaveLength(acked.events.size);
    expect((await world.call("findPattern", { trigger: "crash" })).pattern?.uses).toBe(acked.stats);
    await inParallel(acked.agents, async ([agent_name, state]) => {
      expect((await world.call("getAgentState", { agent_name })).state_json.toString()).toBe(state);
    });
    await inParallel(acked.calls, async (id) => {
      await expect(world.call("storeToolCall", { id, tool_name: "crash" })).rejects.toMatchObject({
        code: "already_exists",
      });
    });
    const { results } = await world.call("searchKnowledge", { query: "what was learned", n_results: 1_000 });
    expect(new Set(results.map(({ content }) => /\] (w\d+):/.exec(content)?.[1]))).toEqual(acked.knowledge);
  },
  { timeout: 240_000 },
);
