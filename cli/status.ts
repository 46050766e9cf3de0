/** `beamline status`: which workers serve, and what they have done. */
import type { Command } from "commander";
import { presentIn, type Present } from "../bus/discovery.ts";
import type { Caller } from "../bus/call.ts";
import { connectStack, findStack } from "./stack.ts";
import { outputOf } from "./output.ts";

/** How long answers to a discovery request are gathered. */
const GATHER_MS = 400;

export function statusCommand(program: Command): void {
  program
    .command("status")
    .description("Show the running workers with their calls, errors and mean times.")
    .action(async (_options: unknown, command: Command) => {
      const out = outputOf(command);
      await using stack = await connectStack();
      const rows = (await discover(stack.caller)).map((worker) => {
        const { endpoints = [] } = worker;
        const calls = sum(endpoints.map((endpoint) => endpoint.num_requests));
        const time = sum(endpoints.map((endpoint) => endpoint.num_requests * endpoint.average_processing_time));
        return {
          worker: worker.name,
          process: worker.metadata.process,
          version: worker.version,
          started: worker.started ?? "",
          endpoints: endpoints.length,
          calls,
          errors: sum(endpoints.map((endpoint) => endpoint.num_errors)),
          mean_us: calls === 0 ? 0 : Math.round(time / calls / 1000),
        };
      });
      const local = findStack();
      if (local !== undefined) out.line(`gRPC ${local.grpc}   HTTP http://${local.http}`);
      out.table(rows, "no worker answers");
    });
}

/** Statistics of every worker that answers service discovery, by name and id. */
export async function discover(caller: Caller): Promise<Present[]> {
  const found: Present[] = [];
  const inbox = caller.inbox.openForEver((message) => {
    const worker = presentIn(message);
    if (worker !== undefined) found.push(worker);
  });
  caller.bus.send("$SRV.STATS", "", undefined, inbox);
  await new Promise((done) => setTimeout(done, GATHER_MS));
  caller.inbox.close(inbox);
  return found.sort((a, b) => `${a.name} ${a.id}`.localeCompare(`${b.name} ${b.id}`));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
