/** Decisions that need shared state beside plain ones, assignments beside durable publishes, and what ten thousand policies cost. */
import { keyOf } from "../bus/keys.ts";
import { publish } from "../bus/publish.ts";
import { RouteRequest } from "../contracts/gen/beamline/flow/v1/flow.ts";
import { until } from "../test/kit/until.ts";
import type { BenchCase, BenchContext, Load, Peer, Row, Side, Stack } from "./case.ts";
import type { AssignLoad } from "./peers/assignload.ts";
import { decideRoute } from "./kit/decide.ts";
import type { DecideLoad } from "./peers/decideload.ts";
import type { GrpcLoad } from "./peers/grpcload.ts";

const IN_FLIGHT = 128;
const COUNT = { plain: 30_000, shared: 15_000 } as const;
const SESSIONS = 2_000;
const POLICIES = 10_000;

const providers = [
  { name: "openai", weight: 70 },
  { name: "anthropic", weight: 30 },
];
const policies = {
  plain: { version: "1.0", providers },
  sticky: { version: "1.0", providers, sticky: { enabled: true, session_key: "session_id", ttl: "10m" } },
} as const;

/** Stores policies as administrators would, and waits until the worker decides by the last one. */
async function store(stack: Stack, stored: readonly (readonly [string, string, object])[]): Promise<void> {
  const bus = await stack.connect();
  const put = ([tenant, id, document]: readonly [string, string, object]): Promise<unknown> =>
    publish(
      bus,
      `$KV.policies.${keyOf(tenant, id)}`,
      JSON.stringify({ policy_id: id, tenant_id: tenant, ...document }),
    );
  for (let at = 0; at < stored.length; at += 200) await Promise.all(stored.slice(at, at + 200).map(put));
  const [tenant = "", policy_id = ""] = stored.at(-1) ?? [];
  const request = { message: { tenant_id: tenant, message_type: "chat", payload: "x" }, policy_id };
  await until(async () => {
    const reply = await bus.nc.request("beamline.router.v1.decide", JSON.stringify(request), { timeout: 5_000 });
    return reply.json<{ provider_id?: string }>().provider_id;
  }, "the policies");
}

const own = Object.entries(policies).map(([id, document]) => ["acme", id, document] as const);

type Kind = "plain" | "sticky" | "keyed";

function sideOf(stack: Stack, client: Peer, kind: Kind, label: string = kind): Side {
  const { nats, workers, redis } = stack.processes;
  return {
    label,
    processes: { client: client.pid, nats, worker: workers, ...(kind !== "plain" && { redis }) },
    load: () =>
      client.ask<Load>({
        policy: kind === "sticky" ? "sticky" : "plain",
        keyed: kind === "keyed",
        sessions: SESSIONS,
        inFlight: IN_FLIGHT,
        count: kind === "plain" ? COUNT.plain : COUNT.shared,
      } satisfies DecideLoad),
  };
}

const names = {
  sticky: "a sticky policy",
  keyed: "an idempotency key, its answer on the disk before it is given",
} as const;

let runs = 0;
/** Requests as the gRPC client sends them, each with a message id of its own, and its session or its key. */
function bodiesOf(kind: Kind, count: number): Uint8Array[] {
  const run = ++runs;
  return Array.from({ length: count }, (_, index) => {
    const id = `${run}-${index}`;
    const message = { message_id: id, tenant_id: "acme", message_type: "chat", payload };
    return RouteRequest.encode(
      RouteRequest.fromPartial({
        message,
        policy_id: kind === "sticky" ? "sticky" : "plain",
        context: { session_id: `session-${index % SESSIONS}`, priority: "normal" },
        idempotency_key: kind === "keyed" ? id : "",
      }),
    ).finish();
  });
}

const payload = Buffer.from(JSON.stringify({ prompt: "Summarise the quarterly report in three sentences." }));
const EDGE_COUNT = 10_000;

function edgeSideOf(stack: Stack, client: Peer, kind: Kind, label: string = kind): Side {
  const { edge, nats, workers, redis } = stack.processes;
  return {
    label,
    processes: { client: client.pid, edge, nats, worker: workers, ...(kind !== "plain" && { redis }) },
    load: () =>
      client.ask<Load>({
        address: stack.grpc,
        path: decideRoute.path,
        bodies: bodiesOf(kind, EDGE_COUNT),
        inFlight: IN_FLIGHT,
        count: EDGE_COUNT,
      } satisfies GrpcLoad),
  };
}

async function shared(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["routing"] });
  await store(stack, own);
  const grpc = await ctx.peer("grpcload.ts");
  const nats = await ctx.peer("decideload.ts", { env: stack.login("edge") });
  const rows: Row[] = [];
  for (const kind of ["sticky", "keyed"] as const) {
    rows.push(
      await ctx.compare({
        measure: `Decide with ${names[kind]} ÷ stateless Decide`,
        over: edgeSideOf(stack, grpc, kind),
        under: edgeSideOf(stack, grpc, "plain", "stateless"),
      }),
      await ctx.compare({
        measure: `the same over NATS, without the edge (${kind})`,
        over: sideOf(stack, nats, kind),
        under: sideOf(stack, nats, "plain", "stateless"),
        target: null,
        note: "the edge's share of a call, which both have alike, is missing: told for comparison",
      }),
    );
  }
  return rows;
}

async function many(ctx: BenchContext): Promise<Row[]> {
  const few = await ctx.stack({ workers: ["routing"] });
  await store(few, own);
  const crowded = await ctx.stack({ workers: ["routing"] });
  const others = Array.from({ length: POLICIES }, (_, i) => [`t${i % 1_000}`, `p${i}`, policies.plain] as const);
  await store(crowded, [...others, ...own]);
  const clients = [
    await ctx.peer("decideload.ts", { env: crowded.login("edge") }),
    await ctx.peer("decideload.ts", { env: few.login("edge") }),
  ] as const;
  const rows: Row[] = [];
  for (const kind of ["plain", "sticky", "keyed"] as const) {
    rows.push(
      await ctx.compare({
        measure: `Decide (${kind}) with ${POLICIES} policies in memory ÷ with two`,
        over: sideOf(crowded, clients[0], kind, `${POLICIES} policies`),
        under: sideOf(few, clients[1], kind, "two policies"),
      }),
    );
  }
  return rows;
}

async function assigned(ctx: BenchContext): Promise<Row[]> {
  const stack = await ctx.stack({ workers: ["routing", "execution", "usage"], each: true });
  const bus = await stack.connect();
  const subject = "log.bench.publish";
  await bus.jsm.streams.add({ name: "BENCH", subjects: [subject], storage: "file", max_msgs: 100_000, discard: "old" });
  const client = await ctx.peer("assignload.ts", { env: stack.login("worker") });
  const side = (label: string, what: AssignLoad["what"], count: number): Side => ({
    label,
    processes: { client: client.pid, nats: stack.processes.nats },
    load: () => client.ask<Load>({ what, subject, inFlight: 1, count } satisfies AssignLoad),
  });
  return [
    await ctx.compare({
      measure: "p50 from an assignment's publish to its result in a consumer's hands ÷ p50 of one durable publish",
      over: side("assignment to result", "assignment", 150),
      under: side("durable publish", "publish", 400),
      figure: ({ p50Ms = Number.NaN }) => p50Ms,
      note: "one at a time, everything on the disk before it is acknowledged; the assignment is stored, executed, and its result stored",
    }),
  ];
}

export const cases: readonly BenchCase[] = [
  {
    name: "routing-shared",
    title: `Decide that needs shared state ÷ stateless Decide, over gRPC, requests/s at ${IN_FLIGHT} in flight`,
    target: 0.5,
    aim: 0.6,
    run: shared,
  },
  {
    name: "routing-assigned",
    title: "From an assignment's publication to its result, in durable publishes",
    target: 4,
    aim: 3,
    better: "lower",
    run: assigned,
  },
  {
    name: "routing-policies",
    title: `What ${POLICIES} policies in memory change`,
    target: 0.9,
    aim: 0.97,
    run: many,
  },
];
