/** A node that takes time, while the worker holds its run. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { withSpan, type Attributes } from "../../../runtime/trace.ts";
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

/** A node execution and its attempt as spans; `run` is given the call as the attempt sees it. */
export function spanned<T>(call: NodeCall, attributes: () => Attributes, run: (call: NodeCall) => T): T {
  const name = `openwop.node.${call.node.typeId}`;
  return withSpan(name, call.traceparent, attributes, (execution) =>
    withSpan(`${name}.attempt`, execution, attributes, (traceparent) => run({ ...call, traceparent })),
  );
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
    const running = spanned(call, attributes, async (spannedCall) => type.run(spannedCall));
    task.result = await within(running, nodeTimeout(node.settings), abort);
  } catch (thrown) {
    if (thrown instanceof BeamlineError && thrown.code === "cancelled" && abort.signal.aborted) return;
    task.result = thrownResult(thrown);
  }
}
