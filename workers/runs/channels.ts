/** Rules for writing to channels (OpenWOP, channels and reducers). */
import type { ErrorData, NodeState, RunState } from "../../contracts/openwop/state.ts";
import type { Channel } from "../../contracts/openwop/workflow.ts";

/** Why a write is refused; undefined when it is not. */
export function checkWrite(state: RunState, own: NodeState, name: string, value: unknown): ErrorData | undefined {
  const channel = state.record.channels[name];
  if (channel === undefined) return undefined;
  if (!mayWrite(channel, own)) {
    return {
      code: "channel_access_denied",
      message: `node ${own.nodeId} may not write to channel ${name}`,
      retryable: false,
      details: { channel: name },
    };
  }
  const size = Array.isArray(value) ? value.length : 0;
  if (channel.maxSize !== undefined && channel.reducer === "replace" && size > channel.maxSize) {
    return {
      code: "validation_error",
      message: `channel ${name} holds at most ${channel.maxSize} entries`,
      retryable: false,
      details: { channel: name },
    };
  }
  return undefined;
}

export function mayRead(channel: Channel, own: Pick<NodeState, "nodeId" | "typeId">): boolean {
  return allowed(channel, own, "readers");
}

function mayWrite(channel: Channel, own: NodeState): boolean {
  return allowed(channel, own, "writers");
}

function allowed({ access }: Channel, own: Pick<NodeState, "nodeId" | "typeId">, side: "readers" | "writers"): boolean {
  if (access === undefined || access === "public") return true;
  if (access === "private") return false;
  const list = access[side];
  return (
    list === undefined ||
    list.some(
      (entry) =>
        entry === "*" ||
        entry === own.nodeId ||
        (entry.endsWith("*") ? own.typeId.startsWith(entry.slice(0, -1)) : entry === own.typeId),
    )
  );
}
