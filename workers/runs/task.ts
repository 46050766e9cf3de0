/** A node that takes time, while the worker holds its run. */
import { BeamlineError } from "../../contracts/errors.ts";
import { withSpan, type Attributes } from "../../runtime/trace.ts";
import { nodeTimeout } from "./due.ts";
import type { GraphNode } from "./graph.ts";
import type { NodeCall, NodeResult, NodeType } from "./nodetype.ts";
import { thrownResult, within } from "./outcome.ts";

export interface Task {
  readonly nodeId: string;
  readonly executions: number;
  readonly abort: AbortController;
  result: NodeResult | undefined;
}

/** Runs it to its result, in its time; a task that was cut off has none. */
export async function perform(
  task: Task,
  { node }: GraphNode,
  type: NodeType,
  call: NodeCall,
  attributes: () => Attributes,
): Promise<void> {
  const { abort } = task;
  try {
    const running = withSpan(`openwop.node.${node.typeId}`, call.traceparent, attributes, async (traceparent) =>
      type.run({ ...call, traceparent }),
    );
    task.result = await within(running, nodeTimeout(node.settings), abort);
  } catch (thrown) {
    if (thrown instanceof BeamlineError && thrown.code === "cancelled" && abort.signal.aborted) return;
    task.result = thrownResult(thrown);
  }
}
