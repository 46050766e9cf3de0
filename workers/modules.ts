/** Every worker there is. A new one is named here, and nowhere else; it is loaded when it is asked for. */
import { BeamlineError } from "../contracts/errors.ts";
import type { WorkerModule } from "./module.ts";

const loaders: Readonly<Record<string, () => Promise<WorkerModule>>> = {
  routing: async () => (await import("./routing/worker.ts")).routingWorker,
  execution: async () => (await import("./execution/worker.ts")).executionWorker,
  inference: async () => (await import("./inference/worker.ts")).inferenceWorker,
  usage: async () => (await import("./usage/worker.ts")).usageWorker,
  tools: async () => (await import("./tools/worker.ts")).toolsWorker,
  runs: async () => (await import("./runs/worker.ts")).runsWorker,
  memory: async () => (await import("./memory/worker.ts")).memoryWorker,
};

export const workerNames: readonly string[] = Object.keys(loaders);

/** The modules of the given names. Throws `invalid_argument` naming the unknown one. */
export function loadModules(names: readonly string[]): Promise<WorkerModule[]> {
  return Promise.all(
    names.map((name) => {
      const load = loaders[name];
      if (load === undefined)
        throw new BeamlineError("invalid_argument", `worker ${name} is not one of ${workerNames.join(", ")}`, {
          field: "worker",
        });
      return load();
    }),
  );
}
