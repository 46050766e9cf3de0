/** Memory over NATS, each call beside the bare thing it is made of. */
import { MemoryServiceDefinition } from "../contracts/gen/aios/memory.ts";
import { routesOf } from "../contracts/routes.ts";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Caller } from "../bus/call.ts";
import { streams } from "../contracts/streams.ts";
import { until } from "../test/kit/until.ts";
import type { BenchCase, BenchContext, Load, Peer, Row, Side, Stack } from "./case.ts";
import { memories, questions } from "./kit/memories.ts";
import { column, median, othersIn, summary } from "./kit/rounds.ts";
import type { IndexLoad } from "./peers/memoryindex.ts";
import type { NatsLoad } from "./peers/natsload.ts";
import type { PublishLoad } from "./peers/publisher.ts";
import type { ReadLoad } from "./peers/redisread.ts";

const routes = routesOf(MemoryServiceDefinition);
const IN_FLIGHT = 128;
const PUSHES = 40_000;
const DURABLE_IN_FLIGHT = 64;
const DURABLE = 3_000;
const READS = 3_000;
const MEMORIES = 10_000;
const SEARCHES = 150;
/** Candidates the archive asks the index for when ten hits are wanted. */
const CANDIDATES = 50;

/** Events of about 400 bytes with ids of their own: nothing is refused or dropped as a repetition. */
function eventTexts(run: string, count: number, critical: boolean): string[] {
  return Array.from({ length: count }, (_, n) =>
    JSON.stringify({
      id: `0193a7c2-5b1e-7c3a-9f00-${run}${n.toString(16).padStart(8, "0")}`,
      timestamp: 1_735_689_600,
      category: "tool_result",
      source: "agent-network-0042",
      data_json: JSON.stringify({
        tool: "net.ping",
        host: "10.0.0.17",
        ok: true,
        rtt_ms: 12.25,
        note: "reachable after one retry, within the budget of the task",
      }),
      ...(critical && { critical }),
    }),
  );
}

function natsSide(
  stack: Stack,
  load: Peer,
  label: string,
  server: Readonly<Record<string, number>>,
  ask: () => NatsLoad,
): Side {
  const { nats, redis } = stack.processes;
  return { label, processes: { client: load.pid, nats, redis, ...server }, load: () => load.ask<Load>(ask()) };
}

async function push(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["memory"] });
  const echo = await ctx.peer("natsecho.ts", { env: stack.login("worker") });
  const load = await ctx.peer("natsload.ts", { env: stack.login("edge") });
  const { subject } = echo.ready as { subject: string };
  const bodies = eventTexts("0000", 1_000, false);
  let run = 0;
  // The ids of a round are new to the service, so that every event is stored; the echo gets bodies as long.
  const fresh = (): string[] => eventTexts((++run).toString(16).padStart(4, "0"), PUSHES, false);
  const rows: Row[] = [];
  for (const [how, by] of [
    ["library", "the library's request()"],
    ["muxed", "our caller"],
  ] as const) {
    const ask = { how, inFlight: IN_FLIGHT, count: PUSHES };
    const row = await ctx.compare({
      measure: `PushEvent ÷ bare NATS echo, by ${by}, ${IN_FLIGHT} in flight`,
      over: natsSide(stack, load, "PushEvent", { worker: stack.processes.workers }, () => ({
        ...ask,
        subject: routes.pushEvent.subject,
        bodies: fresh(),
      })),
      under: natsSide(stack, load, "echo", { echo: echo.pid }, () => ({ ...ask, subject, bodies })),
    });
    rows.push(row);
  }
  return rows;
}

async function critical(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["memory"] });
  const bus = await stack.connect("operator");
  await bus.jsm.streams.add({
    name: "BENCH",
    subjects: ["log.bench.publish"],
    storage: "file",
    max_msgs: 100_000,
    discard: "old",
  });
  const load = await ctx.peer("natsload.ts", { env: stack.login("edge") });
  const publisher = await ctx.peer("publisher.ts", { env: stack.login("worker") });
  const [payload = ""] = eventTexts("0000", 1, true);
  let run = 0;
  const fresh = (count: number): string[] => eventTexts((++run).toString(16).padStart(4, "0"), count, true);
  const rows: Row[] = [];
  for (const [inFlight, count] of [
    [DURABLE_IN_FLIGHT, DURABLE],
    [1, DURABLE / 5],
  ] as const) {
    const row = await ctx.compare({
      measure: `critical PushEvent ÷ bare durable publishes, ${inFlight} in flight`,
      over: natsSide(stack, load, "critical PushEvent", { worker: stack.processes.workers }, () => ({
        how: "muxed",
        subject: routes.pushEvent.subject,
        bodies: fresh(count),
        inFlight,
        count,
      })),
      under: {
        label: "publish",
        processes: { publisher: publisher.pid, nats: stack.processes.nats },
        load: () =>
          publisher.ask<Load>({
            how: "ours",
            subject: "log.bench.publish",
            payload,
            inFlight,
            count,
          } satisfies PublishLoad),
      },
      ...(inFlight === 1 && { target: null, note: "one after the other nothing can share a write to the disk" }),
    });
    rows.push(row);
  }
  rows.push(await criticalAlone(ctx, stack, load, publisher, payload, fresh));
  return rows;
}

/** One call at a time beside what it cannot be faster than: a round trip over the bus, and in it one durable publish. */
async function criticalAlone(
  ctx: BenchContext,
  stack: Stack,
  load: Peer,
  publisher: Peer,
  payload: string,
  fresh: (count: number) => string[],
): Promise<Row> {
  const echo = await ctx.peer("natsecho.ts", { env: stack.login("worker") });
  const { subject } = echo.ready as { subject: string };
  const count = DURABLE / 5;
  const ask = { how: "muxed", inFlight: 1, count } as const;
  const publish: PublishLoad = { how: "ours", subject: "log.bench.publish", payload, inFlight: 1, count };
  const rounds = await ctx.alternate("critical PushEvent, one at a time", [
    natsSide(stack, load, "critical PushEvent", { worker: stack.processes.workers }, () => ({
      ...ask,
      subject: routes.pushEvent.subject,
      bodies: fresh(count),
    })),
    natsSide(stack, load, "NATS round trip", { echo: echo.pid }, () => ({ ...ask, subject, bodies: [payload] })),
    {
      label: "durable publish",
      processes: { publisher: publisher.pid, nats: stack.processes.nats },
      load: () => publisher.ask<Load>(publish),
    },
  ]);
  const p50 = (side: number): number => median(column(rounds, side).map((sample) => sample.p50Ms ?? Number.NaN));
  return {
    measure: "critical PushEvent p50 ÷ (NATS round trip + durable publish) p50, 1 in flight",
    value: p50(0) / (p50(1) + p50(2)),
    pairs: rounds.length,
    target: null,
    note: `${p50(0).toFixed(3)} ms beside ${p50(1).toFixed(3)} + ${p50(2).toFixed(3)} ms; the rest is Redis, which is written before the answer`,
    raw: rounds,
  };
}

async function recent(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["memory"], syncInterval: "10s" });
  const load = await ctx.peer("natsload.ts", { env: stack.login("edge") });
  const reader = await ctx.peer("redisread.ts", { env: stack.login("worker") });
  const echo = await ctx.peer("natsecho.ts", { env: stack.login("worker") });
  const { sized } = echo.ready as { sized: string };
  const bodies = eventTexts("0000", 1_000, false);
  await load.ask<Load>({
    how: "muxed",
    subject: routes.pushEvent.subject,
    bodies,
    inFlight: 64,
    count: 1_000,
  } satisfies NatsLoad);
  const ask: NatsLoad = {
    how: "muxed",
    subject: routes.getRecentEvents.subject,
    bodies: ['{"count":20}'],
    inFlight: 1,
    count: READS,
  };
  const bytes = bodies[0]?.length ?? 400;
  const read: ReadLoad = { bytes, inFlight: 1, count: READS };
  const sides: Side[] = [
    natsSide(stack, load, "GetRecentEvents(20)", { worker: stack.processes.workers }, () => ask),
    {
      label: "one Redis read",
      processes: { client: reader.pid, redis: stack.processes.redis },
      load: () => reader.ask<Load>(read),
    },
    natsSide(stack, load, "NATS round trip", { echo: echo.pid }, () => ({
      ...ask,
      subject: sized,
      bodies: [String(20 * bytes)],
    })),
  ];
  const rounds = await ctx.alternate("one call at a time", sides);
  const p50 = (side: number): number => median(column(rounds, side).map((sample) => sample.p50Ms ?? Number.NaN));
  const [whole, redis, trip] = [p50(0), p50(1), p50(2)];
  return [
    {
      measure: "GetRecentEvents(20) p50 beyond the NATS round trip ÷ p50 of one Redis read",
      value: (whole - trip) / redis,
      pairs: rounds.length,
      others: othersIn(rounds),
      sides: sides.map((side, i) => summary(side.label, column(rounds, i))),
      note: "all three carry the same twenty events' bytes: the read, the reply of the round trip, and what is measured",
      raw: rounds,
    },
    {
      measure: "GetRecentEvents(20) p50 over NATS ÷ p50 of one Redis read",
      value: whole / redis,
      pairs: rounds.length,
      target: null,
      note: `the round trip over the bus alone is ${(trip / redis).toFixed(2)} Redis reads`,
    },
    { measure: "GetRecentEvents(20) p50 over NATS", value: whole, unit: "ms", target: null },
    { measure: "one Redis read p50", value: redis, unit: "ms", target: null },
    { measure: "bare NATS round trip p50", value: trip, unit: "ms", target: null },
  ];
}

/** A stack with the memories in it and an embedding endpoint that costs nothing. */
async function filled(ctx: BenchContext): Promise<Stack> {
  const stub = await ctx.peer("embedstub.ts");
  const { url } = stub.ready as { url: string };
  const stack = await ctx.stack({
    workers: ["memory"],
    syncInterval: "10s",
    workerEnv: { EMBEDDINGS_URL: url, EMBEDDINGS_MODEL: "stub" },
  });
  const load = await ctx.peer("natsload.ts", { env: stack.login("edge") });
  const bodies = memories(MEMORIES).map((memory) => JSON.stringify(memory));
  ctx.say(`storing ${MEMORIES} memories`);
  await load.ask<Load>(
    { how: "muxed", subject: routes.addKnowledge.subject, bodies, inFlight: 64, count: MEMORIES } satisfies NatsLoad,
    300_000,
  );
  await load.stop();
  const bus = await stack.connect("operator");
  const caller = new Caller(bus);
  ctx.defer(() => caller.stop());
  await until(async () => (await bus.jsm.streams.info(streams.memory.name)).state.messages >= MEMORIES);
  return stack;
}

async function search(ctx: BenchContext): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), "beamline-bench-index-"));
  ctx.defer(() => rm(folder, { recursive: true, force: true }));
  const stack = await filled(ctx);
  const load = await ctx.peer("natsload.ts", { env: stack.login("edge") });
  const bare = await ctx.peer("memoryindex.ts", {
    env: { BENCH_INDEX: join(folder, "bare.sqlite"), BENCH_MEMORIES: String(MEMORIES) },
  });
  const echo = await ctx.peer("natsecho.ts", { env: stack.login("worker") });
  const bodies = questions.map((query) => JSON.stringify({ query, collections: ["knowledge"], n_results: 10 }));
  const ask: NatsLoad = { how: "muxed", subject: routes.semanticSearch.subject, bodies, inFlight: 1, count: SEARCHES };
  const query: IndexLoad = { limit: CANDIDATES, inFlight: 1, count: SEARCHES };
  const { subject } = echo.ready as { subject: string };
  const row = await ctx.compare({
    measure: `SemanticSearch over NATS, embedding known, ÷ bare index query, p50, ${MEMORIES} memories`,
    over: natsSide(stack, load, "SemanticSearch", { worker: stack.processes.workers }, () => ask),
    under: { label: "index query", processes: { client: bare.pid }, load: () => bare.ask<Load>(query) },
    figure: ({ p50Ms = Number.NaN }) => p50Ms,
  });
  const context: NatsLoad = {
    ...ask,
    subject: routes.assembleContext.subject,
    bodies: questions.map((task_description) => JSON.stringify({ task_description, max_tokens: 2_000 })),
  };
  const rounds = await ctx.alternate("AssembleContext", [
    natsSide(stack, load, "AssembleContext", { worker: stack.processes.workers }, () => context),
    natsSide(stack, load, "NATS round trip", { echo: echo.pid }, () => ({ ...context, subject })),
  ]);
  const p50 = median(column(rounds, 0).map((sample) => sample.p50Ms ?? Number.NaN));
  return [
    row,
    {
      measure: `AssembleContext over ${MEMORIES} memories, p50`,
      value: p50,
      unit: "ms",
      target: null,
      pairs: rounds.length,
      raw: rounds,
    },
  ];
}

export const cases: readonly BenchCase[] = [
  { name: "memory-push", title: "PushEvent over NATS ÷ bare NATS echo", target: 0.7, run: push },
  {
    name: "memory-critical",
    title: "Critical PushEvent over NATS ÷ bare durable publishes",
    target: 0.7,
    run: critical,
  },
  { name: "memory-recent", title: "GetRecentEvents(20) ÷ one Redis read", target: 2, better: "lower", run: recent },
  {
    name: "memory-search",
    title: "SemanticSearch without its embedding call ÷ the bare index query; AssembleContext",
    target: 1.2,
    better: "lower",
    run: search,
  },
];
