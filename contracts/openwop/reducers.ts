/** How writes fold into a channel's state (OpenWOP, channels and reducers). Pure, and in log order: a replay ends in the same state. */
import { isObject, objectOr, type Json } from "./json.ts";
import type { Channel } from "./workflow.ts";

export const REDUCERS = ["replace", "append", "merge", "counter", "votes", "feedback", "message"] as const;

interface Timed {
  readonly value: unknown;
  readonly _ts: number;
}

/** State after a write. `writtenAt` is the time of the event, so that time-to-live is the same on every fold. */
export function reduce(channel: Channel, state: unknown, value: unknown, writtenAt: string): unknown {
  const list = Array.isArray(state) ? (state as unknown[]) : [];
  switch (channel.reducer) {
    case "replace":
      return value;
    case "merge":
      return { ...(isObject(state) ? state : {}), ...(isObject(value) ? value : {}) };
    case "counter":
      return (typeof state === "number" ? state : 0) + increment(value);
    case "votes": {
      const voter = objectOr(value)["userId"];
      const others = fresh(list, channel, writtenAt).filter((vote) => objectOr(untimed(vote))["userId"] !== voter);
      return [...others, timed(value, channel, writtenAt)];
    }
    case "message": {
      const id = isObject(value) ? value["messageId"] : undefined;
      const known = id !== undefined && list.some((message) => isObject(message) && message["messageId"] === id);
      return known ? list : [...list, value];
    }
    case "feedback":
      return bounded(
        [
          ...fresh(list, channel, writtenAt),
          isObject(value)
            ? { timestamp: writtenAt, iteration: nextIteration(list), ...value }
            : { feedback: value, timestamp: writtenAt, iteration: nextIteration(list) },
        ],
        channel,
      );
    default:
      return bounded([...fresh(list, channel, writtenAt), timed(value, channel, writtenAt)], channel);
  }
}

/** A channel's state without the times its entries carry for their own ends: what its schema is about. */
export function valuesOf(state: unknown): unknown {
  return Array.isArray(state) ? state.map(untimed) : state;
}

function untimed(entry: unknown): unknown {
  return isObject(entry) && typeof entry["_ts"] === "number" && "value" in entry ? entry["value"] : entry;
}

/** One more than the newest entry's, whatever has gone meanwhile. */
function nextIteration(list: readonly unknown[]): number {
  const last = objectOr(list.at(-1))["iteration"];
  return typeof last === "number" ? last + 1 : list.length;
}

function increment(value: unknown): number {
  if (typeof value === "number") return value;
  const { by } = objectOr(value);
  return typeof by === "number" ? by : 1;
}

/** Entries of a channel with a time to live carry the time they were written; those that are older go when the next one comes. */
function timed(value: unknown, channel: Channel, writtenAt: string): unknown {
  return channel.ttlMs === undefined ? value : ({ value, _ts: Date.parse(writtenAt) } satisfies Timed);
}

function fresh(list: readonly unknown[], { ttlMs }: Channel, writtenAt: string): unknown[] {
  if (ttlMs === undefined) return [...list];
  const oldest = Date.parse(writtenAt) - ttlMs;
  return list.filter((entry) => !isObject(entry) || writtenMs(entry) >= oldest);
}

/** Feedback carries its time as text. */
function writtenMs({ _ts, timestamp }: Json): number {
  if (typeof _ts === "number") return _ts;
  const at = typeof timestamp === "string" ? Date.parse(timestamp) : Number.NaN;
  return Number.isNaN(at) ? Infinity : at;
}

function bounded(list: unknown[], { maxSize }: Channel): unknown[] {
  return maxSize === undefined || list.length <= maxSize ? list : list.slice(list.length - maxSize);
}
