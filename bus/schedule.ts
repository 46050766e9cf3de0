/**
 * Durable timers: the server keeps the message and delivers it when it is due, whoever dies until then.
 *
 * E1 One timer per key: setting it again replaces it, with a new time and payload. Every setting has a subject of its own, so that an old timer
 *    firing at that moment cannot take the new one with it (a schedule that fires deletes its subject; seen on server 2.15).
 * E2 A timer that is being sent at the very moment it is cancelled or replaced may still arrive, and one that fires while the server is killed may
 *    arrive twice. The message carries the id its setting returned, so whoever must be exact keeps that id and compares.
 * E3 The schedule is part of the target's stream, but not subject to its age limit.
 * E4 It never fires early, and the server fires what is due every quarter of a second.
 */
import { createHash } from "node:crypto";
import { nuid } from "@nats-io/transport-node";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";
import type { StreamSpec } from "../contracts/streams.ts";
import { asking } from "./apierror.ts";
import type { Bus } from "./connect.ts";
import { keyOf } from "./keys.ts";
import { publish } from "./publish.ts";
import { withoutControl } from "./retry.ts";

/** Header of a fired message: the id of the setting it comes from. */
export const TIMER_HEADER = "Beamline-Timer";

/** When a timer fires; exactly one of the four. The clock that counts is the server's. */
export type When =
  /** Once, at a time in epoch milliseconds; at once when that has passed. */
  | { readonly at: number }
  /** Once, after this many milliseconds. */
  | { readonly delayMs: number }
  /** Again and again, every so many milliseconds; at least 1000. */
  | { readonly everyMs: number }
  /** Again and again: six fields from seconds to weekday, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, in UTC or the IANA time zone. */
  | { readonly cron: string; readonly timeZone?: string };

export interface TimerOptions {
  /** Names the timer inside its stream (E1). */
  readonly key: readonly string[];
  readonly when: When;
  /** Subject the message goes to; the same stream must take it. */
  readonly target: string;
  readonly payload: string | Uint8Array;
  readonly headers?: Headers;
  /** Setting a timer again with the same id changes nothing, also after it has fired (inside the stream's duplicate window). */
  readonly msgId?: string;
  /** How long setting it may take, milliseconds. Default 5000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Timer {
  /** Of this setting; the fired message has it under `TIMER_HEADER`. */
  readonly id: string;
  /** False when `msgId` named a setting that was made before. */
  readonly fresh: boolean;
}

/**
 * Sets a timer. Throws `invalid_argument` for a time or cron expression the server does not understand and for a target outside the stream,
 * `failed_precondition` when the stream has no schedules, else as `publish`.
 */
export async function schedule(bus: Bus, stream: StreamSpec, options: TimerOptions): Promise<Timer> {
  const { key, target, payload, msgId, timeoutMs, signal } = options;
  if (!stream.schedules) throw new BeamlineError("failed_precondition", `stream ${stream.name} has no schedules`);
  const id = msgId === undefined ? nuid.next() : createHash("sha256").update(msgId).digest("hex").slice(0, 32);
  const headers = {
    ...withoutControl(options.headers ?? {}),
    ...whenHeaders(options.when),
    [TIMER_HEADER]: id,
    "Nats-Schedule-Target": target,
    "Nats-TTL": "never",
  };
  const { seq, duplicate } = await publish(bus, `${timerPrefix(stream, key)}.${id}`, payload, {
    headers,
    ...(msgId !== undefined && { msgId }),
    ...(timeoutMs !== undefined && { timeoutMs }),
    signal,
  });
  // E1: of several settings at once, the one stored last remains.
  if (!duplicate) await purge(bus, stream, key, seq);
  return { id, fresh: !duplicate };
}

/** Removes a timer. True when there was one to remove; see E2. Throws `unavailable`. */
export async function cancel(bus: Bus, stream: StreamSpec, key: readonly string[]): Promise<boolean> {
  return (await purge(bus, stream, key)) > 0;
}

/** Id of the timer that is set for the key, undefined when there is none, or it has fired for the last time. */
export async function scheduled(bus: Bus, stream: StreamSpec, key: readonly string[]): Promise<string | undefined> {
  const filter = `${timerPrefix(stream, key)}.*`;
  const found = await asking(`look for a timer of ${stream.name}`, () =>
    bus.jsm.streams.getMessage(stream.name, { last_by_subj: filter }),
  );
  return found?.subject.slice(filter.length - 1);
}

/** Removes the settings of a key that were stored before a sequence, or all. */
async function purge(bus: Bus, stream: StreamSpec, key: readonly string[], before?: number): Promise<number> {
  const filter = `${timerPrefix(stream, key)}.*`;
  const options = before === undefined ? { filter } : { filter, seq: before };
  const { purged } = await asking(`remove a timer of ${stream.name}`, () =>
    bus.jsm.streams.purge(stream.name, options),
  );
  return purged;
}

function timerPrefix(stream: StreamSpec, key: readonly string[]): string {
  return `sched.${stream.name.toLowerCase()}.timer.${keyOf(...key)}`;
}

function whenHeaders(when: When): Record<string, string> {
  if ("at" in when) return { "Nats-Schedule": `@at ${isoTime(when.at)}` };
  if ("delayMs" in when) return { "Nats-Schedule": `@at ${isoTime(Date.now() + when.delayMs)}` };
  if ("everyMs" in when) {
    if (!(when.everyMs >= 1_000)) throw invalidArgument("everyMs", "must be at least 1000");
    return { "Nats-Schedule": `@every ${Math.round(when.everyMs)}ms` };
  }
  return {
    "Nats-Schedule": when.cron,
    ...(when.timeZone !== undefined && { "Nats-Schedule-Time-Zone": when.timeZone }),
  };
}

function isoTime(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) throw invalidArgument("when", "is not a time");
  return date.toISOString();
}
