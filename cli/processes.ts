/** `beamline edge` and `beamline worker <names>`: the processes of production, and of the local stack. */
import type { Command } from "commander";
import { run } from "../runtime/run.ts";
import { workerNames } from "../workers/modules.ts";

export function edgeCommand(program: Command): void {
  program
    .command("edge")
    .description("Serve gRPC and HTTP, forwarding to the bus.")
    .action(() => {
      stopWithParent();
      return run("edge", async (scope) => {
        const { openEdge } = await import("../edge/edge.ts");
        const ports = await openEdge(scope, process.env);
        process.send?.(ports);
      });
    });
}

export function workerCommand(program: Command): void {
  program
    .command("worker")
    .description(`Run the named workers in this process: ${workerNames.join(", ")}.`)
    .argument("<names...>")
    .action((names: string[]) => {
      stopWithParent();
      return run(names.length === 1 ? `worker-${names[0]}` : "workers", async (scope) => {
        const { openWorkers } = await import("../workers/main.ts");
        await openWorkers(scope, names, process.env);
      });
    });
}

/** Started by the local stack, a process drains when that is gone, however it went. */
function stopWithParent(): void {
  if (process.channel === undefined) return;
  process.channel?.unref();
  process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
}
