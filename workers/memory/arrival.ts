/**
 * An event on its way through memory: its JSON is made once, and the same text is what hot state keeps, what the log keeps, and what a reader gets.
 *
 * E1 The text is canonical: the fields of the contract in their order, as `JSON.stringify` writes them, unset ones left out. Equal events have
 *    equal texts, so that the text is the event's identity; and a filter may look for a field as it is written.
 * E2 An event that came with an id and without a timestamp is kept without one, or it would be another event each time it is pushed. Its
 *    arrival is its timestamp, put in where it is read. Its text begins with a line break, which no other has: whoever reads sees it at once.
 */
import type { JsonObject } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { tenantOf } from "./record.ts";

export interface Arrival {
  readonly tenant: string;
  /** Arrival, microseconds since 1970: the order of the ring. */
  readonly at: number;
  readonly critical: boolean;
  /** The event as it is kept (E1, E2). */
  readonly entry: string;
}

/** The text that an event, canonical JSON, is kept as (E1, E2). */
export function entryOf(event: JsonObject): string {
  const text = JSON.stringify(event);
  return event["timestamp"] === undefined ? `\n${text}` : text;
}

/** An event as JSON, as it is shown: with a timestamp in any case (E2). */
export function shownText({ at, entry }: Pick<Arrival, "at" | "entry">): string {
  return entry.startsWith("\n") ? `${entry.slice(1, -1)},"timestamp":${Math.floor(at / 1_000_000)}}` : entry;
}

/** Characters of one message of the log at most, unless one event alone has more: so that a batch of events is never too large for a message. */
const MOST_CHARS = 256 * 1024;

/** How many of the first events make a message of the log: at least one, at most `most`. */
export function fitting(arrivals: readonly Pick<Arrival, "entry">[], most: number): number {
  let chars = 0;
  let count = 0;
  for (const { entry } of arrivals) {
    chars += entry.length;
    if (count === most || (count > 0 && chars > MOST_CHARS)) break;
    count++;
  }
  return count;
}

/** A message of the log. */
export function writeArrivals(arrivals: readonly Arrival[]): string {
  let events = "";
  for (const { at, entry } of arrivals) events += `${events === "" ? "" : ","}{"at":${at},"e":${entry}}`;
  return `{"v":1,"events":[${events}]}`;
}

/** The events of a message of the log. Throws `data_loss` for what is not one. */
export function readArrivals(subject: string, message: string): (Arrival & { readonly text: string })[] {
  try {
    const tenant = tenantOf(subject);
    const { events } = JSON.parse(message) as { events: { at: number; e: JsonObject }[] };
    return events.map(({ at, e }) => {
      if (!Number.isFinite(at) || typeof e !== "object" || e === null) throw new TypeError("not an event");
      const entry = entryOf(e);
      return { tenant, at, critical: e["critical"] === true, entry, text: shownText({ at, entry }) };
    });
  } catch (cause) {
    throw new BeamlineError("data_loss", `the events on ${subject} cannot be read`, { cause });
  }
}
