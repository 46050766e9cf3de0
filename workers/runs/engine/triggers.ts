/** Nodes that start when somebody writes to a channel (OpenWOP, channels: the `channel-write` trigger). Pure. */
import { numberOr, objectOr, textOr } from "../../../contracts/openwop/json.ts";
import type { ChannelTrigger } from "../../../contracts/openwop/log.ts";
import type { Fire, RunState } from "../../../contracts/openwop/state.ts";
import type { WorkflowDefinition, WorkflowTrigger } from "../../../contracts/openwop/workflow.ts";
import { invalid } from "../body.ts";

export const MAX_DEBOUNCE_MS = 60_000;

/** The triggers of a workflow that are switched on, as its runs keep them. */
export function channelTriggers({ triggers }: Pick<WorkflowDefinition, "triggers">): ChannelTrigger[] {
  return triggers.filter(isOn).map(({ nodeId, config }) => ({
    nodeId: textOr(nodeId, ""),
    channel: textOr(objectOr(config)["channel"], ""),
    debounceMs: numberOr(objectOr(config)["debounceMs"], 0),
  }));
}

function isOn({ type, enabled }: WorkflowTrigger): boolean {
  return type === "channel-write" && enabled !== false;
}

/**
 * Checks a trigger. Throws `validation_error` naming its member. `onlyFrom` may be `any` alone: no other run writes to a channel of this
 * host, so that a trigger for those would never fire.
 */
export function checkTrigger(definition: WorkflowDefinition, trigger: WorkflowTrigger, field: string): void {
  if (!isOn(trigger)) return;
  const { channel, onlyFrom = "any", debounceMs = 0 } = objectOr(trigger.config);
  if (!definition.nodes.some(({ id }) => id === trigger.nodeId))
    throw invalid(`${field}.nodeId`, "must be the node to start");
  const declared = typeof channel === "string" && definition.channels?.[channel] !== undefined;
  const written = definition.nodes.some(({ config }) => config["channelName"] === channel);
  if (typeof channel !== "string" || !(declared || written))
    throw invalid(`${field}.config.channel`, "must be a channel of the workflow");
  if (onlyFrom !== "any") throw invalid(`${field}.config.onlyFrom`, "must be any: no other run writes to this channel");
  const whole = typeof debounceMs === "number" && Number.isInteger(debounceMs);
  if (!whole || debounceMs < 0 || debounceMs > MAX_DEBOUNCE_MS)
    throw invalid(`${field}.config.debounceMs`, `must be a whole number from 0 to ${MAX_DEBOUNCE_MS}`);
}

export function isTriggered({ record }: RunState, nodeId: string): boolean {
  return (record.triggers ?? []).some((trigger) => trigger.nodeId === nodeId);
}

/**
 * The write that starts the node now: each one by itself, oldest first, or with a debounce the last one, once the channel has been quiet for
 * that long.
 */
export function firing(state: RunState, nodeId: string, now: number): Fire | undefined {
  const ready = pending(state, nodeId).flatMap(({ trigger, fires }) => {
    const [first] = fires;
    const last = fires.at(-1);
    if (trigger.debounceMs === 0) return first ?? [];
    return last !== undefined && last.at + trigger.debounceMs <= now ? [last] : [];
  });
  return ready.toSorted((a, b) => a.sequence - b.sequence)[0];
}

/** When the node is to start, as far as it is known; Infinity when nobody has written. */
export function firesAt(state: RunState, nodeId: string): number {
  const times = pending(state, nodeId).map(({ trigger, fires }) => (fires.at(-1)?.at ?? Infinity) + trigger.debounceMs);
  return Math.min(Infinity, ...times);
}

function pending(state: RunState, nodeId: string): { trigger: ChannelTrigger; fires: readonly Fire[] }[] {
  const written = state.fires.get(nodeId);
  if (written === undefined) return [];
  return (state.record.triggers ?? [])
    .filter((trigger) => trigger.nodeId === nodeId)
    .map((trigger) => ({ trigger, fires: written.filter(({ channel }) => channel === trigger.channel) }));
}
