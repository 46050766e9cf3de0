/** How writes fold into a channel's state (OpenWOP, channels and reducers). Pure, and in log order: a replay ends in the same state. */
import { isObject, objectOr } from "./json.ts";
import type { Channel } from "./workflow.ts";

export const REDUCERS = ["replace", "append", "merge", "counter", "votes", "feedback", "message"] as const;

/** Reducers of our own and of users, by name `vendor.<org>.<name>`. Both sides must know them; unknown ones append. */
export type Reducer = (state: unknown, value: unknown, write: { readonly writtenAt: string }) => unknown;

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
      const voter = isObject(value) ? value["userId"] : undefined;
      return bounded(
        [...fresh(list, channel, writtenAt).filter((vote) => !isObject(vote) || vote["userId"] !== voter), value],
        channel,
      );
    }
    case "message": {
      const id = isObject(value) ? value["messageId"] : undefined;
      const known = id !== undefined && list.some((message) => isObject(message) && message["messageId"] === id);
      return known ? list : bounded([...list, value], channel);
    }
    case "feedback":
      return bounded(
        [
          ...list,
          isObject(value)
            ? { timestamp: writtenAt, iteration: list.length, ...value }
            : { feedback: value, timestamp: writtenAt, iteration: list.length },
        ],
        channel,
      );
    default:
      return bounded([...fresh(list, channel, writtenAt), timed(value, channel, writtenAt)], channel);
  }
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
  return list.filter((entry) => !isObject(entry) || typeof entry["_ts"] !== "number" || entry["_ts"] >= oldest);
}

function bounded(list: unknown[], { maxSize }: Channel): unknown[] {
  return maxSize === undefined || list.length <= maxSize ? list : list.slice(list.length - maxSize);
}
