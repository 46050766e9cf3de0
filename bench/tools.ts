/** Execute of a small tool, whole way and with its audit, beside Decide; and what one slow tool does to the others. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExecuteRequest, ToolRegistryDefinition } from "../contracts/gen/aios/tools.ts";
import { routesOf } from "../contracts/routes.ts";
import type { BenchCase, BenchContext, Load, Peer, Row, Side, Stack } from "./case.ts";
import { decideBytes, decideRoute } from "./kit/decide.ts";
import type { GrpcLoad } from "./peers/grpcload.ts";

const route = routesOf(ToolRegistryDefinition).execute;
const IN_FLIGHT = 64;
const STATS = 8_000;
const DECIDES = 12_000;
/** Calls beside the slow one: about the two seconds it takes. */
const BESIDE = 4_000;

/** As an agent calls it; a task and a reason as agents give them. */
function execute(tool: string, input: object): Uint8Array {
  const request = ExecuteRequest.fromPartial({
    tool_name: tool,
    agent_id: "task-agent",
    task_id: "0193a7c2-5b1e-7c3a-9f00-000000000000",
    input_json: Buffer.from(JSON.stringify(input)),
    reason: "looking at a file before it is read",
  });
  return ExecuteRequest.encode(request).finish();
}

/** Rates are off: what is measured is what a call costs, not how it is refused. One file stands for all. */
async function prepared(
  ctx: BenchContext,
  workers: readonly string[],
): Promise<{ stack: Stack; client: Peer; file: string }> {
  const root = await mkdtemp(join(tmpdir(), "beamline-bench-tools-"));
  ctx.defer(() => rm(root, { recursive: true, force: true }));
  const file = join(root, "file.txt");
  await writeFile(file, "what is looked at");
  const stack = await ctx.stack({
    workers,
    workerEnv: {
      BEAMLINE_TOOLS_ROOTS: root,
      BEAMLINE_TOOLS_AGENT_RATE: "0.5",
      BEAMLINE_TOOLS_AGENT_BURST: "100000000",
      BEAMLINE_TOOLS_TOOL_RATE: "0.5",
      BEAMLINE_TOOLS_TOOL_BURST: "100000000",
    },
  });
  return { stack, client: await ctx.peer("grpcload.ts"), file };
}

function side(stack: Stack, client: Peer, label: string, load: Omit<GrpcLoad, "address" | "connections">): Side {
  const { edge, nats, redis, workers: worker } = stack.processes;
  const asked: GrpcLoad = { ...load, address: stack.grpc };
  return { label, processes: { client: client.pid, edge, nats, redis, worker }, load: () => client.ask<Load>(asked) };
}

async function stat(ctx: BenchContext): Promise<Row[]> {
  const { stack, client, file } = await prepared(ctx, ["routing", "tools"]);
  const bodies = [execute("fs.stat", { path: file })];
  return [
    await ctx.compare({
      measure: `Execute fs.stat, audited ÷ Decide, through the edge, ${IN_FLIGHT} in flight`,
      over: side(stack, client, "Execute fs.stat", { path: route.path, bodies, inFlight: IN_FLIGHT, count: STATS }),
      under: side(stack, client, "Decide", {
        path: decideRoute.path,
        bodies: decideBytes,
        inFlight: IN_FLIGHT,
        count: DECIDES,
      }),
    }),
  ];
}

async function slow(ctx: BenchContext): Promise<Row[]> {
  const { stack, client, file } = await prepared(ctx, ["tools"]);
  const other = await ctx.peer("grpcload.ts");
  const load = { path: route.path, bodies: [execute("fs.stat", { path: file })], inFlight: IN_FLIGHT, count: BESIDE };
  const alone = side(stack, client, "alone", load);
  const lingering: GrpcLoad = {
    address: stack.grpc,
    path: route.path,
    bodies: [execute("monitor.ebpf_trace", { duration_secs: 2, trace_type: "network_connections" })],
    inFlight: 1,
    count: 1,
    connections: 1,
  };
  const beside: Side = {
    ...alone,
    label: "beside a tool of 2 s",
    async load() {
      const [measured] = await Promise.all([
        client.ask<Load>({ ...load, address: stack.grpc }),
        other.ask<Load>(lingering),
      ]);
      return measured;
    },
  };
  return [
    await ctx.compare({
      measure: "p99 of fs.stat beside a tool that takes 2 s ÷ alone",
      over: beside,
      under: alone,
      figure: ({ p99Ms }) => p99Ms ?? Number.NaN,
      better: "lower",
    }),
  ];
}

export const cases: readonly BenchCase[] = [
  { name: "tools-stat", title: "Execute of fs.stat, audited, beside Decide", target: 0.5, run: stat },
  { name: "tools-slow", title: "One slow tool beside the others", target: 1.1, better: "lower", run: slow },
];
