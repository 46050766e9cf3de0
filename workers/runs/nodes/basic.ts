/** Node types that compute at once: they are batched into the append of whatever comes next. */
import { isObject, numberOr, textOr } from "../../../contracts/openwop/json.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { checkCondition, checkExpression, evaluate, holds } from "../engine/expressions.ts";
import { runScope } from "../engine/plan.ts";
import { completed, failed, type NodeCall, type NodeType } from "../engine/nodetype.ts";
import type { EdgeCondition } from "../../../contracts/openwop/workflow.ts";

const nothing = (typeId: string): NodeType => ({ typeId, mode: "instant", run: ({ inputs }) => completed(inputs) });

const noop: NodeType = { typeId: "core.noop", mode: "instant", run: () => completed() };

/** Copies its inputs to its outputs and to the variables of the same names. */
const identity: NodeType = {
  typeId: "core.identity",
  mode: "instant",
  run({ inputs, config, node, state }) {
    if (config["emitDuplicateMessageId"] === true) {
      const message = {
        messageId: `${state.record.runId}:${node.id}:1`,
        role: "assistant",
        content: "duplicate by design",
      };
      const twice = [message, message].map((value) => ({ channel: "messages", value }));
      return { kind: "completed", outputs: inputs, variables: inputs, writes: twice };
    }
    return { kind: "completed", outputs: inputs, variables: inputs };
  },
};

const fail: NodeType = {
  typeId: "core.fail",
  mode: "instant",
  run: ({ config }) =>
    failed(textOr(config["code"], "node_failed"), textOr(config["message"], "the node fails by design"), {
      retryable: config["retryable"] === true,
    }),
};

const DELAY_NAMES = ["ms", "delayMs", "durationMs"] as const;

/** Suspends until its time: `inputs.delayMs`, else `config.ms` or one of its other names. Milliseconds. */
const delay: NodeType = {
  typeId: "core.delay",
  mode: "parked",
  run({ inputs, config, own, now, state }) {
    const name = DELAY_NAMES.find((one) => config[one] !== undefined) ?? "ms";
    const asked = inputs["delayMs"] ?? undefined;
    const ms = milliseconds(asked ?? config[name] ?? 0, asked === undefined ? `config.${name}` : "inputs.delayMs");
    const until = Date.parse(own.startedAt) + Math.max(0, ms);
    // A replay does not sit through it again: its clock is the log.
    const replayed = state.record.fork?.mode === "replay";
    return replayed || now >= until ? completed({ delayedMs: ms }) : { kind: "waits", until };
  },
  check({ config }, field) {
    for (const name of DELAY_NAMES) {
      const given = config[name] ?? 0;
      if (typeof given === "string" && given.includes("{{")) continue; // filled in later
      milliseconds(given, `${field}.config.${name}`);
    }
  },
};

function milliseconds(value: unknown, field: string): number {
  if (typeof value === "number") return value;
  throw new BeamlineError("validation_error", `${field} must be a number of milliseconds`, { field });
}

/** Refused before it starts: no host provides what it requires. */
const requiresMissing: NodeType = {
  typeId: "conformance.requiresMissing",
  mode: "instant",
  requires: ["conformance.never-provided"],
  run: () => completed(),
};

const setVariable: NodeType = {
  typeId: "core.setVariable",
  mode: "instant",
  run({ inputs, config }) {
    const name = textOr(config["name"] ?? config["variableName"], "");
    const value = inputs["value"] ?? inputs["input"] ?? config["value"];
    return { kind: "completed", outputs: { value }, variables: { [name]: value } };
  },
  check: (node, field) => needsText(node.config, field, "name", "variableName"),
};

const getVariable: NodeType = {
  typeId: "core.getVariable",
  mode: "instant",
  run: ({ config, state }) =>
    completed({ value: state.variables[textOr(config["name"] ?? config["variableName"], "")] ?? null }),
  check: (node, field) => needsText(node.config, field, "name", "variableName"),
};

/** Says which way: its outputs `result` and `branch` (`true` or `false`) are for the conditions of its edges. */
const conditional: NodeType = {
  typeId: "core.conditional",
  mode: "instant",
  run(call) {
    const condition = (isObject(call.config["condition"]) ? call.config["condition"] : call.config) as EdgeCondition;
    const result = holds(condition, scopeOf(call));
    return completed({ result, branch: String(result) });
  },
  check({ config }, field) {
    const [condition, own] = isObject(config["condition"])
      ? [config["condition"], "config.condition"]
      : [config, "config"];
    if (!JSON.stringify(condition).includes("{{")) checkCondition(condition, `${field}.${own}`);
  },
};

/** Evaluates `config.expression` over inputs and variables; the value is its output `result`. */
const transform: NodeType = {
  typeId: "core.transform",
  mode: "instant",
  run: (call) =>
    completed({ result: evaluate(textOr(call.config["expression"], "null"), scopeOf(call), "config.expression") }),
  check({ config }, field) {
    needsText(config, field, "expression");
    checkFilled(config["expression"], `${field}.config.expression`);
  },
};

/** Head of a loop: `continue` in its outputs says whether there is another turn. `config.times`, or `config.while` as an expression. */
const loop: NodeType = {
  typeId: "core.loop",
  mode: "instant",
  run(call) {
    const { config, own } = call;
    const turn = own.iterations;
    const again =
      typeof config["while"] === "string"
        ? evaluate(config["while"], { ...scopeOf(call), turn }, "config.while") === true
        : turn <= numberOr(config["times"], 1);
    return completed({ iteration: turn - 1, continue: again });
  },
  check: ({ config }, field) => checkFilled(config["while"], `${field}.config.while`),
};

/**
 * Writes `config.value` (or its input `value`) to a channel; with a template in it, what the run holds at that moment. `config.schemaVersion`
 * says for which version of the channel's schema the value was made.
 */
const channelWrite: NodeType = {
  typeId: "core.channelWrite",
  mode: "instant",
  run({ config, inputs }) {
    const channel = textOr(config["channelName"], "");
    const value = inputs["value"] ?? inputs["input"] ?? config["value"] ?? null;
    const { schemaVersion } = config;
    const write = { channel, value, ...(typeof schemaVersion === "number" && { schemaVersion }) };
    return { kind: "completed", outputs: { channel, value }, writes: [write] };
  },
  check: (node, field) => needsText(node.config, field, "channelName"),
};

/** Pins a version of a change for the life of the run (OpenWOP, version axes). */
const getVersion: NodeType = {
  typeId: "core.getVersion",
  mode: "instant",
  run({ config, state, node }) {
    const changeId = textOr(config["changeId"], "");
    const [min, max] = [numberOr(config["min"], -1), numberOr(config["max"], 1)];
    const pinned = state.pins[changeId];
    if (pinned === undefined) {
      return {
        kind: "completed",
        outputs: { version: max },
        events: [{ type: "version.pinned", payload: { changeId, version: max, nodeId: node.id }, nodeId: node.id }],
      };
    }
    return pinned < min
      ? failed("version_out_of_range", `change ${changeId} is pinned at ${pinned}, at least ${min} is needed`, {
          retryable: false,
        })
      : completed({ version: pinned });
  },
  check: (node, field) => needsText(node.config, field, "changeId"),
};

function scopeOf(call: NodeCall): Record<string, unknown> {
  return { ...runScope(call.state), input: call.inputs };
}

/** An expression in a configuration; what its templates make of it is known when it is computed. */
function checkFilled(expression: unknown, field: string): void {
  if (typeof expression === "string" && !expression.includes("{{")) checkExpression(expression, field);
}

export function needsText(config: Readonly<Record<string, unknown>>, field: string, ...names: readonly string[]): void {
  if (names.some((name) => textOr(config[name], "") !== "")) return;
  throw new BeamlineError("validation_error", `${field}.config.${names[0] ?? ""} must be a text`, {
    field: `${field}.config.${names[0] ?? ""}`,
  });
}

export const basicNodes: readonly NodeType[] = [
  noop,
  identity,
  fail,
  delay,
  requiresMissing,
  setVariable,
  getVariable,
  conditional,
  transform,
  loop,
  channelWrite,
  getVersion,
  nothing("core.start"),
  nothing("core.end"),
  nothing("core.parallel"),
  nothing("core.merge"),
];
