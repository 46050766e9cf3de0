/** Child runs as the nodes that start them see them. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { isTerminal } from "../../../contracts/openwop/snapshot.ts";
import type { Children } from "../nodes/children.ts";
import { change } from "../operations/control.ts";
import { begin, checkRunnable, recordOf } from "../operations/start.ts";
import type { RunsPorts } from "../ports.ts";

/** How deep runs may nest. */
const MAX_DEPTH = 16;

export function childPorts(ports: () => RunsPorts): Children {
  return {
    async exists(tenant, workflowId) {
      return (await ports().definitions.current(tenant, workflowId)) !== undefined;
    },
    async look(tenant, runId) {
      return (await ports().log.find(tenant, runId))?.state;
    },
    async watch({ state: { record } }, runId) {
      const { state } = await change(ports(), record.owner.tenant, runId, (now) =>
        isTerminal(now) || now.watchers.has(record.runId) ? undefined : { events: [], watcher: record.runId },
      );
      return state;
    },
    async start(parent, { runId, workflowId, inputs, propagateCancellation }) {
      const all = ports();
      const { record } = parent.state;
      const { tenant, principal = "" } = record.owner;
      if (record.fork?.mode === "replay") {
        throw new BeamlineError(
          "replay_source_missing",
          `run ${record.fork.sourceRunId} has no recorded child of node ${parent.node.id}`,
        );
      }
      const current = await all.definitions.current(tenant, workflowId);
      if (current === undefined)
        throw new BeamlineError("unknown_child_workflow", `there is no workflow ${workflowId}`);
      const { definition } = await all.definitions.graph(current.digest);
      checkRunnable(definition);
      await checkDepth(all, tenant, record.parent?.runId);
      const child = recordOf(all, current, definition, {
        runId,
        tenant,
        principal,
        inputs,
        configurable: record.configurable,
        tags: record.tags,
        metadata: record.metadata,
        traceparent: parent.traceparent,
        test: record.test === true,
        parent: { runId: record.runId, nodeId: parent.node.id, workflowId: record.workflowId, propagateCancellation },
      });
      try {
        await begin(all, child, "child");
      } catch (thrown) {
        // It is there already: an earlier attempt got that far.
        if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted") throw thrown;
      }
    },
  };
}

async function checkDepth({ log }: RunsPorts, tenant: string, parentRunId: string | undefined): Promise<void> {
  let above = parentRunId;
  for (let depth = 1; above !== undefined; depth++) {
    if (depth >= MAX_DEPTH)
      throw new BeamlineError("recursion_limit_exceeded", `sub-workflows nest deeper than ${MAX_DEPTH}`);
    above = (await log.find(tenant, above))?.state.record.parent?.runId;
  }
}
