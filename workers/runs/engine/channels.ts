/** Rules for writing to channels (OpenWOP, channels and reducers). */
import { isObject } from "../../../contracts/openwop/json.ts";
import { reduce, REDUCERS, valuesOf } from "../../../contracts/openwop/reducers.ts";
import type { ErrorData, NodeState } from "../../../contracts/openwop/state.ts";
import type { Channel, WorkflowDefinition } from "../../../contracts/openwop/workflow.ts";
import { invalid } from "../body.ts";
import { faultIn, schemaOf } from "./schemas.ts";

/** One write, as a node makes it. */
export interface Write {
  readonly channel: string;
  readonly value: unknown;
  /** Version of the channel's schema the value was made for. Default: the current one. */
  readonly schemaVersion?: number;
}

/** What a write comes to: the channel's state after it, or why it is refused. */
export type Outcome = { readonly after: unknown } | { readonly refused: ErrorData };

/** Reducers that let go of the oldest when the channel is full; with the others a write that does not fit is refused. */
const BOUNDED = new Set(["append", "feedback"]);

/** Looks at a write to a declared channel. `before` is its state, `writtenAt` ISO 8601. */
export function checkWrite(
  channel: Channel,
  own: NodeState,
  before: unknown,
  { channel: name, value, schemaVersion }: Write,
  writtenAt: string,
): Outcome {
  const refuse = (code: string, message: string): Outcome => ({
    refused: { code, message, retryable: false, details: { channel: name } },
  });
  if (!mayWrite(channel, own))
    return refuse("channel_access_denied", `node ${own.nodeId} may not write to channel ${name}`);
  const wanted = shapeOf(channel.reducer, value);
  if (wanted !== undefined) return refuse("validation_error", `channel ${name} takes ${wanted}`);
  const current = channel.schemaVersion ?? 1;
  const written = schemaVersion ?? current;
  const breaking = (why: string): Outcome =>
    refuse("channel_schema_breaking_change", `a write of version ${written} to channel ${name} ${why}`);
  if (written < current && !(channel.compatibleWith ?? []).includes(written))
    return breaking(`cannot be read by version ${current}`);
  const after = reduce(channel, before, value, writtenAt);
  // What a newer schema says is not known here: such writes are taken as they are.
  if (channel.schema !== undefined && written <= current) {
    const fault = faultIn(channel.schema, valuesOf(after), `channels.${name}.schema`);
    if (fault !== undefined) {
      const why = fault.message ?? "does not conform";
      if (written < current) return breaking(`does not conform to version ${current}: ${why}`);
      return refuse("validation_error", `channel ${name} ${why}`);
    }
  }
  if (channel.maxSize !== undefined && !BOUNDED.has(channel.reducer) && sizeOf(after) > channel.maxSize)
    return refuse("validation_error", `channel ${name} holds at most ${channel.maxSize} entries`);
  return { after };
}

/** What the reducer can only take, when the value is something else. */
function shapeOf(reducer: string, value: unknown): string | undefined {
  if (reducer === "merge") return isObject(value) ? undefined : "objects";
  if (reducer === "counter") return typeof value === "number" && Number.isFinite(value) ? undefined : "numbers";
  if (reducer !== "votes") return undefined;
  return isObject(value) && typeof value["userId"] === "string" ? undefined : "votes with a userId";
}

function sizeOf(state: unknown): number {
  if (Array.isArray(state)) return state.length;
  return isObject(state) ? Object.keys(state).length : 0;
}

/** Checks the channels a workflow declares or writes to. Throws `validation_error`: a reducer nobody knows is never replaced by another. */
export function checkChannels({ channels = {}, nodes }: WorkflowDefinition): void {
  const known: readonly string[] = REDUCERS;
  const check = (reducer: unknown, field: string): void => {
    if (typeof reducer !== "string" || !known.includes(reducer))
      throw invalid(field, `must be one of ${REDUCERS.join(", ")}`);
  };
  for (const [name, { reducer, schema, default: initial }] of Object.entries(channels)) {
    check(reducer, `channels.${name}.reducer`);
    if (schema === undefined) continue;
    schemaOf(schema, `channels.${name}.schema`);
    const fault = initial === undefined ? undefined : faultIn(schema, initial, `channels.${name}.schema`);
    if (fault !== undefined)
      throw invalid(`channels.${name}.default`, fault.message ?? "does not conform to the schema");
  }
  nodes.forEach(({ typeId, config }, at) => {
    if (typeId === "core.channelWrite" && config["reducer"] !== undefined)
      check(config["reducer"], `nodes[${at}].config.reducer`);
  });
}

export function mayRead(channel: Channel, own: Pick<NodeState, "nodeId" | "typeId">): boolean {
  return allowed(channel, own, "readers");
}

function mayWrite(channel: Channel, own: NodeState): boolean {
  return allowed(channel, own, "writers");
}

/** A side that is not there is open; one that is there is the whole list. `private` is both sides empty. */
function allowed({ access }: Channel, own: Pick<NodeState, "nodeId" | "typeId">, side: "readers" | "writers"): boolean {
  if (access === undefined || access === "public") return true;
  if (access === "private") return false;
  const list = access[side];
  return (
    list === undefined ||
    list.some((entry) =>
      entry.endsWith(".*") ? own.typeId.startsWith(entry.slice(0, -1)) : entry === own.nodeId || entry === own.typeId,
    )
  );
}
