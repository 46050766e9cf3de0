/** One decision through the edge, beside a bare grpc-js server and a bare NATS round trip. */
import type { BenchCase, BenchContext, Load, Peer, Round, Row, Side, Stack } from "./case.ts";
import { decideBytes, decideRoute, decideTexts, decided } from "./kit/decide.ts";
import { h2load, hasH2load, howToGetH2load } from "./kit/h2load.ts";
import { column, median, othersIn, quantile, rowOf, summary } from "./kit/rounds.ts";
import type { GrpcLoad } from "./peers/grpcload.ts";
import type { NatsLoad } from "./peers/natsload.ts";

/** In flight: connections × streams. */
const CONNECTIONS = 4;
const STREAMS = 32;
const IN_FLIGHT = CONNECTIONS * STREAMS;
/** Calls of one sample: about a second, so that the kernel's hundredths of CPU time are fine enough. */
const COUNT = 15_000;
const SINGLE_COUNT = 1_500;
const NATS_COUNT = { muxed: 60_000, library: 30_000 } as const;

type Generator = (address: string) => Promise<Load>;

function byH2load(address: string): Promise<Load> {
  const [body] = decideBytes;
  if (body === undefined) throw new Error("nothing to send");
  return h2load({ address, path: decideRoute.path, body, count: COUNT, connections: CONNECTIONS, streams: STREAMS });
}

function byClient(client: Peer, inFlight: number, count: number): Generator {
  return (address) => {
    const load: GrpcLoad = {
      address,
      path: decideRoute.path,
      bodies: decideBytes,
      inFlight,
      count,
      connections: CONNECTIONS,
    };
    return client.ask<Load>(load);
  };
}

/** The whole way. Fails unless the edge answered every call well. */
function edgeSide(stack: Stack, label: string, processes: Side["processes"], generate: Generator): Side {
  const { edge, nats, workers } = stack.processes;
  return {
    label,
    processes: { ...processes, edge, nats, worker: workers },
    async load() {
      const before = await decided(stack);
      const load = await generate(stack.grpc);
      const good = (await decided(stack)) - before;
      if (good !== load.count) throw new Error(`${label}: ${good} of ${load.count} decisions were made`);
      return load;
    },
  };
}

function echoSide(echo: Peer, label: string, processes: Side["processes"], generate: Generator): Side {
  const { port } = echo.ready as { port: number };
  return { label, processes: { ...processes, echo: echo.pid }, load: () => generate(`127.0.0.1:${port}`) };
}

/** The ways to make load: h2load where there is one, and a grpc-js client. */
async function generators(
  ctx: BenchContext,
): Promise<{ name: string; processes: Side["processes"]; generate: Generator }[]> {
  const client = await ctx.peer("grpcload.ts");
  const all = [
    { name: "grpc-js client", processes: { client: client.pid }, generate: byClient(client, IN_FLIGHT, COUNT) },
  ];
  if (hasH2load()) return [{ name: "h2load", processes: {}, generate: byH2load }, ...all];
  ctx.say(howToGetH2load);
  return all;
}

const pick = (rounds: readonly Round[], ...sides: number[]): Round[] =>
  rounds.map((round) => sides.flatMap((side) => round[side] ?? []));

async function throughEdge(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["routing"] });
  const echo = await ctx.peer("grpcecho.ts");
  const plain = await ctx.peer("grpcecho.ts", { flags: [] });
  const rows: Row[] = [];
  for (const { name, processes, generate } of await generators(ctx)) {
    const over = edgeSide(stack, "edge", processes, generate);
    const under = echoSide(echo, "echo", processes, generate);
    const other = echoSide(plain, "echo, plain flags", processes, generate);
    const rounds = await ctx.alternate(`Decide by ${name}, ${IN_FLIGHT} in flight`, [over, under, other]);
    const measure = `Decide ÷ grpc-js echo, by ${name}`;
    rows.push(rowOf({ measure, over, under }, pick(rounds, 0, 1)));
    rows.push(
      rowOf({ measure: `${measure}, echo with plain flags`, over, under: other, target: null }, pick(rounds, 0, 2)),
    );
  }
  return rows;
}

async function traced(ctx: BenchContext): Promise<Row[]> {
  const sink = await ctx.peer("otlpsink.ts", { flags: [] });
  const { url } = sink.ready as { url: string };
  const none = await ctx.stack({ workers: ["routing"] });
  const some = await ctx.stack({
    workers: ["routing"],
    env: {
      OTEL_EXPORTER_OTLP_ENDPOINT: url,
      OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
      OTEL_TRACES_SAMPLER_ARG: "0.01",
      OTEL_BSP_SCHEDULE_DELAY: "1000", // exports within every sample, where the default of five seconds would miss most
    },
  });
  const rows: Row[] = [];
  for (const { name, processes, generate } of await generators(ctx)) {
    const over = edgeSide(some, "1 % sampled", { ...processes, collector: sink.pid }, generate);
    const row = await ctx.compare({
      measure: `Decide, 1 % of traces sampled ÷ none, by ${name}`,
      over,
      under: edgeSide(none, "none sampled", processes, generate),
    });
    rows.push(row);
  }
  const spans = await sink.ask<number>({});
  if (spans === 0) throw new Error("no span reached the collector: nothing was compared");
  const note = `${spans} spans reached the collector, a process of its own on this machine`;
  return rows.map((row) => Object.assign(row, { note }));
}

/** (p50 through the edge − p50 of the echo) ÷ p50 of a bare NATS round trip. */
async function added(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["routing"] });
  const echo = await ctx.peer("grpcecho.ts");
  const responder = await ctx.peer("natsecho.ts", { env: stack.login("worker") });
  const client = await ctx.peer("grpcload.ts");
  const asker = await ctx.peer("natsload.ts", { env: stack.login("edge") });
  const { subject } = responder.ready as { subject: string };
  const generate = byClient(client, 1, SINGLE_COUNT);
  const ask: NatsLoad = { how: "library", subject, bodies: decideTexts, inFlight: 1, count: SINGLE_COUNT };
  const sides: Side[] = [
    edgeSide(stack, "edge", { client: client.pid }, generate),
    echoSide(echo, "echo", { client: client.pid }, generate),
    {
      label: "bare NATS",
      processes: { client: asker.pid, nats: stack.processes.nats, responder: responder.pid },
      load: () => asker.ask<Load>(ask),
    },
  ];
  const rounds = await ctx.alternate("one call at a time", sides);
  const figures = rounds.map((round) => {
    const [edge = Number.NaN, bare = Number.NaN, nats = Number.NaN] = round.map((sample) => sample.p50Ms ?? Number.NaN);
    return (edge - bare) / nats;
  });
  return [
    {
      measure: "added p50 ÷ bare NATS round trip",
      value: median(figures),
      spread: [quantile(figures, 0.25), quantile(figures, 0.75)],
      pairs: rounds.length,
      others: othersIn(rounds),
      sides: sides.map((side, i) => summary(side.label, column(rounds, i))),
      note: "(p50 of Decide through the edge − p50 of the grpc-js echo) ÷ p50 of a bare NATS request and reply, each one call at a time",
      raw: rounds,
    },
  ];
}

async function overNats(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["routing"] });
  const responder = await ctx.peer("natsecho.ts", { env: stack.login("worker") });
  const client = await ctx.peer("natsload.ts", { env: stack.login("edge") });
  const { subject } = responder.ready as { subject: string };
  const { nats, workers } = stack.processes;
  const side = (label: string, how: NatsLoad["how"], to: string, server: Side["processes"]): Side => ({
    label,
    processes: { client: client.pid, nats, ...server },
    load: () =>
      client.ask<Load>({
        how,
        subject: to,
        bodies: decideTexts,
        inFlight: IN_FLIGHT,
        count: NATS_COUNT[how],
      } satisfies NatsLoad),
  });
  const rows: Row[] = [];
  for (const [how, name] of [
    ["muxed", "our caller"],
    ["library", "the library's request()"],
  ] as const) {
    const row = await ctx.compare({
      measure: `Decide over NATS ÷ bare NATS echo, by ${name}`,
      over: side("decide", how, decideRoute.subject, { worker: workers }),
      under: side("echo", how, subject, { responder: responder.pid }),
    });
    rows.push(row);
  }
  return rows;
}

export const cases: readonly BenchCase[] = [
  {
    name: "decide-edge",
    title: `Decide through edge, NATS, worker and back ÷ bare grpc-js echo, requests/s at ${IN_FLIGHT} in flight`,
    target: 0.7,
    aim: 0.85,
    run: throughEdge,
  },
  { name: "decide-traced", title: "The same with 1 % of traces sampled ÷ none", target: 0.93, aim: 0.97, run: traced },
  {
    name: "decide-latency",
    title: "What the edge adds to a call, in bare NATS round trips",
    target: 2,
    aim: 1.3,
    better: "lower",
    run: added,
  },
  {
    name: "decide-nats",
    title: `Decide over NATS ÷ bare NATS echo in Node, requests/s at ${IN_FLIGHT} in flight`,
    target: 0.8,
    aim: 0.9,
    run: overNats,
  },
];
