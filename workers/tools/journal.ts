/**
 * Reading logs of JetStream: the last word on a subject, everything from some point on. What others put there, and is none of ours, has no value:
 * it must not stop what comes after it.
 */
import type { Bus } from "../../bus/connect.ts";
import { apiCode, apiCodeOf, fromJetStream } from "../../bus/apierror.ts";
import { firstSince, readStream } from "../../bus/read.ts";

export interface Logged<T> {
  readonly subject: string;
  readonly seq: number;
  /** When the server stored it, epoch milliseconds. */
  readonly at: number;
  /** Undefined when it was deleted, or is something else. */
  readonly value: T | undefined;
}

/** Whether a value as it stands in a log or a bucket is what is looked for. */
export type Is<T> = (value: unknown) => value is T;

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

interface Raw {
  readonly subject: string;
  readonly seq: number;
  readonly timestamp: string;
  string(): string;
}

/**
 * The last message on a subject, wildcards allowed, as the stream's leader knows it; undefined when there is none. Throws `unavailable`.
 */
export async function lastOf<T>(bus: Bus, stream: string, subject: string, is: Is<T>): Promise<Logged<T> | undefined> {
  try {
    const found = await bus.jsm.streams.getMessage(stream, { last_by_subj: subject });
    return found === null ? undefined : logged(found, is);
  } catch (thrown) {
    if (apiCodeOf(thrown) === apiCode.messageNotFound) return undefined;
    throw fromJetStream(thrown, `read the last message of ${subject}`);
  }
}

/** Every message on a subject from a stream sequence on, in order, up to the end as it is then. */
export async function* readFrom<T>(
  bus: Bus,
  stream: string,
  subject: string,
  is: Is<T>,
  from = 1,
): AsyncGenerator<Logged<T>> {
  for await (const message of readStream(bus, stream, { subject, from })) yield logged(message, is);
}

/** Messages stored since a moment, in order. */
export async function* readSince<T>(bus: Bus, stream: string, since: Date, is: Is<T>): AsyncGenerator<Logged<T>> {
  const from = await firstSince(bus, stream, since);
  if (from !== undefined) yield* readFrom(bus, stream, ">", is, from);
}

function logged<T>(message: Raw, is: Is<T>): Logged<T> {
  return {
    subject: message.subject,
    seq: message.seq,
    at: Date.parse(message.timestamp),
    value: parsed(message.string(), is),
  };
}

function parsed<T>(text: string, is: Is<T>): T | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return is(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
