/** The command line with the commands of memory alone. */
import { Command } from "commander";
import { memoryCommand, rebuildMemoryCommand } from "../../cli/memory.ts";

const program = new Command("beamline").option("--json");
memoryCommand(program);
rebuildMemoryCommand(program);
await program.parseAsync();
