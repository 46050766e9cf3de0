/** Workflow runs: how fast an event reaches a client, and what thousands of runs cost that only wait. */
import type { BenchCase, BenchContext, Load, Row, Side, Stack } from "./case.ts";
import { residentBytes } from "./kit/proc.ts";
import type { FoldLoad } from "./peers/runsfold.ts";
import type { StreamLoad } from "./peers/runstream.ts";
import type { SuspendedLoad } from "./peers/suspended.ts";

const WAITING = 5_000;
const WAVES = 3;
const CREATORS = 32;
const WITHIN_MS = 150_000;

const stackOf = (ctx: BenchContext): Promise<Stack> =>
  ctx.stack({ workers: ["runs"], workerEnv: { OPENWOP_FIXTURES: "true" } });
const peerEnv = (stack: Stack): Record<string, string> => ({
  ...stack.login("operator"),
  BENCH_GRPC: stack.grpc,
  BENCH_KEY: stack.key,
});

async function delivery(ctx: BenchContext): Promise<Row[]> {
  const stack = await stackOf(ctx);
  const load = await ctx.peer("runstream.ts", { env: peerEnv(stack) });
  const side = (how: StreamLoad["how"], inFlight: number, count: number): Side => ({
    label: how === "stream" ? "append to gRPC stream" : "publish to consumer",
    processes: { client: load.pid, edge: stack.processes.edge, nats: stack.processes.nats },
    load: () => load.ask<Load>({ how, inFlight, count } satisfies StreamLoad),
  });
  const rows: Row[] = [];
  for (const [inFlight, count] of [
    [1, 400],
    [8, 1_600],
  ] as const) {
    rows.push(
      await ctx.compare({
        measure: `event append → delivered to a gRPC stream, p99, ${inFlight} in flight ÷ guarded publish → consumer`,
        over: side("stream", inFlight, count),
        under: side("bare", inFlight, count),
        figure: ({ p99Ms = 0 }) => p99Ms,
      }),
    );
  }
  return rows;
}

/** What a worker pays that has never seen a run: its whole log. Beside it what a snapshot in Redis would cost. */
async function cold(ctx: BenchContext): Promise<Row[]> {
  const stack = await stackOf(ctx);
  const { servers } = stack;
  const load = await ctx.peer("runsfold.ts", {
    env: { ...stack.login("operator"), REDIS_URL: servers.redis.url },
  });
  const rows: Row[] = [];
  for (const [events, count] of [
    [20, 100],
    [5_000, 8],
  ] as const) {
    const side = (how: FoldLoad["how"]): Side => ({
      label: how === "log" ? "fold of the log" : "snapshot in Redis",
      processes: { client: load.pid, nats: servers.nats.pid ?? 0, redis: servers.redis.pid ?? 0 },
      load: () => load.ask<Load>({ how, events, count } satisfies FoldLoad),
    });
    const row = await ctx.compare({
      measure: `a run of ${events} events read by a worker that has not seen it, p50 ÷ a snapshot in Redis`,
      over: side("log"),
      under: side("snapshot"),
      figure: ({ p50Ms = 0 }) => p50Ms,
      target: null,
    });
    rows.push(row);
  }
  return rows;
}

/** Resident memory of the processes that know of runs, bytes. */
function memory({ processes: { workers, edge, nats } }: Stack): { worker: number; edge: number; nats: number } {
  return { worker: residentBytes(workers), edge: residentBytes(edge), nats: residentBytes(nats) };
}

/** Waves of runs that all wait at once and then all end. The first wave warms everything up. */
async function suspended(ctx: BenchContext): Promise<Row[]> {
  const stack = await stackOf(ctx);
  const load = await ctx.peer("suspended.ts", { env: peerEnv(stack) });
  const ask = (how: SuspendedLoad["how"]): Promise<Load> =>
    load.ask<Load>({ how, inFlight: CREATORS, count: WAITING } satisfies SuspendedLoad, WITHIN_MS);
  const waves: { create: Load; answer: Load; idle: Memory; held: Memory; after: Memory }[] = [];
  for (let wave = 0; wave < WAVES; wave++) {
    const idle = memory(stack);
    const create = await ask("create");
    const held = memory(stack);
    const answer = await ask("answer");
    const after = memory(stack);
    waves.push({ create, answer, idle, held, after });
    ctx.say(
      `  wave ${wave + 1}: create p99 ${create.p99Ms?.toFixed(1)} ms, ${brief(idle)} → ${brief(held)} → ${brief(after)}`,
    );
  }
  const [last, before] = [waves[WAVES - 1], waves[WAVES - 2]];
  if (last === undefined || before === undefined) throw new Error("too few waves");
  const perRun = (process: keyof Memory): number =>
    Math.max(0, ...waves.map(({ idle, held }) => held[process] - idle[process])) / WAITING / 1024;
  const flat = Math.max(last.after.worker / before.after.worker, last.after.edge / before.after.edge);
  return [
    {
      measure: `create with up to ${WAITING} runs suspended, p99, ${CREATORS} in flight`,
      value: Math.max(...waves.map(({ create }) => create.p99Ms ?? 0)),
      unit: "ms",
      target: null,
      note: "the worst wave; of the high-throughput tier: 500 ms",
    },
    {
      measure: `create with up to ${WAITING} runs suspended, p50, ${CREATORS} in flight`,
      value: Math.max(...waves.map(({ create }) => create.p50Ms ?? 0)),
      unit: "ms",
      target: null,
      note: "the worst wave; of the high-throughput tier: 100 ms",
    },
    ...(["worker", "edge", "nats"] as const).map((process) => ({
      measure: `resident memory of ${process} per suspended run`,
      value: perRun(process),
      unit: "KiB",
      target: null,
      note: "the wave in which it grew most",
    })),
    {
      measure: `memory of worker and edge after wave ${WAVES} ÷ after wave ${WAVES - 1}, the higher of both`,
      value: flat,
      target: 1.1,
      better: "lower",
      raw: waves,
    },
  ];
}

type Memory = ReturnType<typeof memory>;

function brief({ worker, edge, nats }: Memory): string {
  return [worker, edge, nats].map((bytes) => `${Math.round(bytes / 1024 / 1024)}`).join("/") + " MiB";
}

export const cases: readonly BenchCase[] = [
  {
    name: "runs-delivery",
    title: "An event from its append to a client's gRPC stream",
    target: 3,
    better: "lower",
    run: delivery,
  },
  { name: "runs-cold", title: "A run read by a worker that has not seen it", run: cold },
  { name: "runs-suspended", title: `${WAITING} runs suspended at once`, run: suspended },
];
