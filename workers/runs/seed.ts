/** Workflows from files at start. They belong to every tenant; loading the same again changes nothing. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { BeamlineError } from "../../contracts/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import { SHARED_TENANT, type Definitions } from "./definitions.ts";
import type { NodeType } from "./engine/nodetype.ts";
import { checkWorkflow } from "./operations/workflows.ts";

/** Throws `validation_error` naming the file and the path inside it. */
export async function loadWorkflowFiles(
  paths: readonly string[],
  definitions: Definitions,
  nodeTypes: ReadonlyMap<string, NodeType>,
  clock: Clock,
): Promise<void> {
  for (const path of paths) {
    for (const file of await filesOf(path)) {
      let definition: unknown;
      try {
        definition = JSON.parse(await readFile(file, "utf8"));
      } catch (cause) {
        throw new BeamlineError("validation_error", `${file} cannot be read as JSON`, { cause });
      }
      try {
        await definitions.register(
          SHARED_TENANT,
          checkWorkflow(definition, nodeTypes),
          new Date(clock.now()).toISOString(),
        );
      } catch (thrown) {
        const { code, message, field, details } = BeamlineError.from(thrown);
        throw new BeamlineError(code, `${file}: ${message}`, {
          details,
          ...(field !== undefined && { field }),
          cause: thrown,
        });
      }
    }
  }
}

async function filesOf(path: string): Promise<string[]> {
  if (!(await stat(path)).isDirectory()) return [path];
  const names = await readdir(path);
  return names
    .filter((name) => name.endsWith(".json"))
    .sort()
    .map((name) => join(path, name));
}
