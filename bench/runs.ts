/** Workflow runs: what they cost beside the durable publishes they are made of. */
import type { BenchCase, BenchContext, Load, Row, Side } from "./case.ts";
import type { RunsLoad } from "./peers/runsload.ts";

const WORKFLOW = "conformance-multi-node";
/** A run of three steps is compared with so many guarded publishes in a row. */
const CHAIN = 5;
const IN_FLIGHT = 32;

async function sides(ctx: BenchContext): Promise<(how: RunsLoad["how"], inFlight: number, count: number) => Side> {
  const stack = await ctx.stack({ workers: ["runs"], workerEnv: { OPENWOP_FIXTURES: "true" } });
  const load = await ctx.peer("runsload.ts", { env: stack.login("operator") });
  return (how, inFlight, count) => ({
    label: how,
    processes: { client: load.pid, worker: stack.processes.workers, nats: stack.processes.nats },
    load: () => load.ask<Load>({ how, workflowId: WORKFLOW, chain: CHAIN, inFlight, count } satisfies RunsLoad),
  });
}

async function latency(ctx: BenchContext): Promise<Row[]> {
  const side = await sides(ctx);
  const row = await ctx.compare({
    measure: `a 3-step run, create to end, p50 at 1 in flight ÷ ${CHAIN} guarded durable publishes`,
    over: side("runs", 1, 150),
    under: side("guarded", 1, 150),
    figure: ({ p50Ms = 0 }) => p50Ms,
    target: 1.3,
    better: "lower",
  });
  return [row];
}

async function throughput(ctx: BenchContext): Promise<Row[]> {
  const side = await sides(ctx);
  const row = await ctx.compare({
    measure: `3-step runs completed per second ÷ durable publishes per second, ${IN_FLIGHT} in flight`,
    over: side("runs", IN_FLIGHT, 500),
    under: side("publishes", IN_FLIGHT, 2_500),
    target: 0.2,
    better: "higher",
  });
  return [row];
}

export const cases: readonly BenchCase[] = [
  { name: "runs-latency", title: "A run from its creation to its end", target: 1.3, better: "lower", run: latency },
  { name: "runs-throughput", title: "Runs per second", target: 0.2, better: "higher", run: throughput },
];
