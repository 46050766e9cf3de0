/** What a node is given, from the state of its run. */
import { at, type Json } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import type { NodeState, RunState } from "../../../contracts/openwop/state.ts";
import type { PortValue, WorkflowNode } from "../../../contracts/openwop/workflow.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { evaluate } from "./expressions.ts";
import type { NodeCall } from "./nodetype.ts";
import { runScope } from "./plan.ts";
import { mayRead } from "./channels.ts";

/** Resolves inputs and templates. Throws `validation_error` for what cannot be resolved, `channel_access_denied`. */
export function callOf(
  state: RunState,
  node: WorkflowNode,
  own: NodeState,
  now: number,
  signal: AbortSignal,
  fill: (value: unknown, scope: Json) => unknown,
  tell: (event: NewEvent) => void,
  effect: NodeCall["effect"],
): NodeCall {
  let scope: Json | undefined;
  const lazily = (): Json => (scope ??= runScope(state));
  const inputs: Record<string, unknown> = {};
  for (const [port, value] of Object.entries(node.inputs)) {
    const resolved = resolve(state, own, port, value, lazily);
    if (resolved !== undefined) inputs[port] = resolved;
  }
  const templated = hasTemplate(node.config);
  const config = templated ? (fill(node.config, { ...lazily(), input: inputs }) as Json) : node.config;
  return { state, node, own, inputs, config, now, signal, traceparent: state.record.traceparent, tell, effect };
}

const templates = new WeakMap<object, boolean>();

function hasTemplate(config: object): boolean {
  let has = templates.get(config);
  if (has === undefined) templates.set(config, (has = JSON.stringify(config).includes("{{")));
  return has;
}

function resolve(state: RunState, own: NodeState, port: string, value: PortValue, scope: () => Json): unknown {
  switch (value.type) {
    case "static":
      return value.value;
    case "expression":
      return evaluate(value.expression, scope(), `inputs.${port}.expression`);
    case "variable": {
      const channel = state.record.channels[value.variableName];
      if (channel !== undefined && !mayRead(channel, own)) {
        throw new BeamlineError(
          "channel_access_denied",
          `node ${own.nodeId} may not read channel ${value.variableName}`,
          { details: { channel: value.variableName } },
        );
      }
      return state.variables[value.variableName] ?? state.channels[value.variableName];
    }
    case "connection": {
      const outputs = state.nodes.get(value.nodeId)?.outputs;
      const found = at(outputs, value.outputKey) ?? (value.outputKey === "output" ? outputs : undefined);
      if (found !== undefined || value.optional === true || outputs !== undefined) return found;
      throw new BeamlineError("validation_error", `inputs.${port}: node ${value.nodeId} has no output`, {
        field: `inputs.${port}`,
      });
    }
  }
}
