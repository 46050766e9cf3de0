/** `beamline config`: every setting with its type, default, value and where that comes from. Secrets are never shown. */
import type { Command } from "commander";
import { describeConfig, formatConfig, unknownSettings, type Table } from "../runtime/config.ts";
import { restSettings } from "../edge/beamline/settings.ts";
import { sharedSettings } from "../runtime/settings.ts";
import { loadModules, workerNames } from "../workers/modules.ts";
import { outputOf } from "./output.ts";

/** The settings of every process there is. Loads all workers. */
export async function everySetting(): Promise<Table> {
  const modules = await loadModules(workerNames);
  return Object.assign({ ...sharedSettings, ...restSettings }, ...modules.map((module) => module.settings)) as Table;
}

export function configCommand(program: Command): void {
  program
    .command("config")
    .description("Show every setting, its value and where it comes from.")
    .action(async (_options: unknown, command: Command) => {
      const out = outputOf(command);
      const table = await everySetting();
      const rows = describeConfig(table, process.env);
      if (out.json) out.table(rows.map((row) => ({ ...row })));
      else out.line(formatConfig(rows));
      for (const unknown of unknownSettings(table, process.env)) {
        process.stderr.write(
          `${unknown.name} is not a setting${unknown.nearest === undefined ? "" : `; is it ${unknown.nearest}?`}\n`,
        );
      }
    });
}
