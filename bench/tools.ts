/** Execute of a small tool, whole way and with its audit, beside Decide; and what one slow tool does to the others. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Caller } from "../bus/call.ts";
import { ExecuteRequest, ToolRegistryDefinition } from "../contracts/gen/aios/tools.ts";
import { routesOf } from "../contracts/routes.ts";
import type { BenchCase, BenchContext, Comparison, Load, Peer, Row, Side, Stack } from "./case.ts";
import { decideBytes, decideRoute } from "./kit/decide.ts";
import type { GrpcLoad } from "./peers/grpcload.ts";

const route = routesOf(ToolRegistryDefinition).execute;
const IN_FLIGHT = 64;
const STATS = 8_000;
const DECIDES = 12_000;
/**
 * Calls beside the slow one: about the two seconds it takes. Few in flight: with many, the processes of the measurement wait for one another
 * and for a processor, and one pause of any of them (garbage, another program's turn) delays more than one call in a hundred. Then the p99 is
 * that pause, with or without a slow tool.
 */
const BESIDE = 3_000;
const BESIDE_IN_FLIGHT = 4;
const WAIT_MS = 2_000;
const WAITING_SUBJECT = "beamline.ext.tools.waits";

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

/** Tools that take two seconds and do nothing: served on the bus by this process, and by a script in a process of its own. */
async function waiting(ctx: BenchContext, stack: Stack): Promise<readonly { name: string; label: string }[]> {
  const outside = await stack.connect("publisher");
  outside.nc.subscribe(WAITING_SUBJECT, {
    callback: (_error, message) => void setTimeout(() => message.respond('{"success":true}'), WAIT_MS),
  });
  await outside.flush();
  const caller = new Caller(await stack.connect());
  ctx.defer(() => caller.stop());
  const ask = (method: string, request: object): Promise<unknown> =>
    caller.request(`aios.tools.v1.${method}`, request, { timeoutMs: 10_000 });
  const tool = {
    name: "bench.waits",
    description: "Waits.",
    required_capabilities: ["monitor_read"],
    idempotent: true,
    timeout_ms: 10_000,
  };
  const accepted = await ask("register", { tool, handler_address: `nats:${WAITING_SUBJECT}` });
  const script = `import time\ndef main(data):\n    time.sleep(${WAIT_MS / 1000})\n    return {}\n`;
  const input = { name: "sleeps", description: "Sleeps.", code: script };
  const made = await ask("execute", {
    tool_name: "plugin.create",
    agent_id: "task-agent",
    input_json: JSON.stringify(input),
  });
  for (const answer of [accepted, made] as { accepted?: boolean; success?: boolean }[]) {
    if (answer.accepted !== true && answer.success !== true) throw new Error(`refused: ${JSON.stringify(answer)}`);
  }
  return [
    { name: "bench.waits", label: "beside a tool served elsewhere, 2 s" },
    { name: "plugin.sleeps", label: "beside a script, 2 s" },
  ];
}

/** The first row is what the measurement itself does: everything as in the others, but the tool beside it is over at once. */
async function slow(ctx: BenchContext): Promise<Row[]> {
  const { stack, client, file } = await prepared(ctx, ["tools"]);
  const other = await ctx.peer("grpcload.ts");
  const quick = execute("fs.stat", { path: file });
  const load = { path: route.path, bodies: [quick], inFlight: BESIDE_IN_FLIGHT, count: BESIDE };
  const alone = side(stack, client, "alone", load);
  const compare = (label: string, body: Uint8Array, more: Partial<Comparison> = {}): Promise<Row> => {
    const one: GrpcLoad = {
      address: stack.grpc,
      path: route.path,
      bodies: [body],
      inFlight: 1,
      count: 1,
      connections: 1,
    };
    const beside: Side = {
      ...alone,
      label,
      async load() {
        const [measured] = await Promise.all([
          client.ask<Load>({ ...load, address: stack.grpc }),
          other.ask<Load>(one),
        ]);
        return measured;
      },
    };
    return ctx.compare({
      measure: `p99 of fs.stat ${label} ÷ alone`,
      over: beside,
      under: alone,
      figure: ({ p99Ms }) => p99Ms ?? Number.NaN,
      better: "lower",
      ...more,
    });
  };
  const rows = [await compare("beside one call more, over at once", quick, { target: null })];
  for (const { name, label } of await waiting(ctx, stack)) rows.push(await compare(label, execute(name, {})));
  return rows;
}

export const cases: readonly BenchCase[] = [
  { name: "tools-stat", title: "Execute of fs.stat, audited, beside Decide", target: 0.5, run: stat },
  { name: "tools-slow", title: "One slow tool beside the others", target: 1.1, better: "lower", run: slow },
];
