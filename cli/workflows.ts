/** `beamline workflows …`: register and list workflows. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { invalidArgument } from "../contracts/errors.ts";
import { isObject, textOr } from "../contracts/openwop/json.ts";
import { stackContext, type CommandContext } from "./exec.context.ts";
import { askRuns } from "./runs.ts";

/** Adds `workflows`. */
export function workflowsCommand(program: Command, context: CommandContext = stackContext): void {
  const workflows = program.command("workflows").description("Register and list workflows.");

  workflows
    .command("apply <files...>")
    .description("Register workflows from JSON files; what is the same already stays as it is.")
    .option("-t, --tenant <id>", "tenant", "default")
    .action(async (files: string[], options: { tenant: string }, command: Command) => {
      await using stack = await context.connect();
      const rows = [];
      for (const file of files) {
        const definition = await read(file);
        const params = { workflowId: textOr(definition["id"], "") };
        rows.push({
          file,
          ...(await askRuns(stack.caller, options.tenant, "apply_workflow", { params, body: definition })),
        });
      }
      context.out(command).table(rows);
    });

  workflows
    .command("list")
    .description("Workflows a tenant can start.")
    .option("-t, --tenant <id>", "tenant", "default")
    .action(async (options: { tenant: string }, command: Command) => {
      await using stack = await context.connect();
      const { workflows: rows } = await askRuns(stack.caller, options.tenant, "list_workflows", {});
      context.out(command).table(Array.isArray(rows) ? rows.filter(isObject) : [], "no workflows");
    });
}

async function read(file: string): Promise<Readonly<Record<string, unknown>>> {
  let definition: unknown;
  try {
    definition = JSON.parse(await readFile(file, "utf8"));
  } catch (cause) {
    throw invalidArgument(file, `cannot be read as JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  if (!isObject(definition)) throw invalidArgument(file, "must hold a JSON object");
  return definition;
}
