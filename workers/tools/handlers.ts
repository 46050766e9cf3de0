/** The six RPCs of ToolRegistry (aiOS tools, 1.1 and 1.2). */
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";
import type { ToolRegistryDefinition } from "../../contracts/gen/aios/tools.ts";
import type { Handlers } from "../../contracts/handlers.ts";
import type { Pipeline } from "./pipeline.ts";
import type { Registry } from "./registry.ts";
import type { Rollbacks } from "./rollback.ts";

export interface RegistryPorts {
  readonly registry: Registry;
  readonly pipeline: Pipeline;
  readonly rollbacks: Rollbacks;
}

export function toolHandlers({
  registry,
  pipeline,
  rollbacks,
}: RegistryPorts): Handlers<typeof ToolRegistryDefinition> {
  return {
    /** Ordered by name; an unknown namespace has none. */
    async listTools({ namespace }, { tenant }) {
      return { tools: await registry.list(tenant, namespace) };
    },

    async getTool({ name }, { tenant }) {
      const found = await registry.find(tenant, name);
      if (found === undefined) throw new BeamlineError("not_found", `Tool not found: ${name}`, { field: "name" });
      return found.definition;
    },

    /** Only an unknown tool is an error of the RPC. */
    async execute(request, context) {
      const { success, output, error, executionId, durationMs, backupId } = await pipeline.execute(request, context);
      return {
        success,
        output_json: Buffer.from(output),
        error,
        execution_id: executionId,
        duration_ms: BigInt(durationMs),
        backup_id: backupId,
      };
    },

    rollback: ({ execution_id, reason }, context) => rollbacks.rollback(execution_id, reason, context),

    /** A refusal is an answer, not an error. */
    async register({ tool, handler_address }, { tenant, principal }) {
      if (tool === undefined) throw invalidArgument("tool", "is missing: Missing tool definition");
      return answering<{ accepted: boolean; error: string }>(
        async () => {
          await registry.register(tenant, tool, handler_address, principal);
          return { accepted: true, error: "" };
        },
        (error) => ({ accepted: false, error }),
      );
    },

    async deregister({ tool_name }, { tenant }) {
      return answering<{ success: boolean; message: string }>(
        async () => {
          const gone = await registry.deregister(tenant, tool_name);
          return gone
            ? { success: true, message: `Tool ${tool_name} deregistered` }
            : { success: false, message: `Tool not found: ${tool_name}` };
        },
        (message) => ({ success: false, message }),
      );
    },
  };
}

/** Refusals of the caller's making travel in the answer; what may pass is an error. */
async function answering<T>(work: () => Promise<T>, refused: (text: string) => NoInfer<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (
      thrown instanceof BeamlineError &&
      ["invalid_argument", "permission_denied", "failed_precondition"].includes(thrown.code)
    )
      return refused(thrown.message);
    throw thrown;
  }
}
