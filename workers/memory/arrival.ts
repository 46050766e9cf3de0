/**
 * An event on its way through memory: its JSON is made once, and the same text goes to hot state and to the log.
 */
import { hash } from "node:crypto";
import type { JsonObject } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { tenantOf } from "./record.ts";

export interface Arrival {
  readonly tenant: string;
  /** The same event pushed twice has the same identity, and is kept once. */
  readonly identity: string;
  /** Arrival, microseconds since 1970: the order of the ring. */
  readonly at: number;
  readonly category: string;
  readonly source: string;
  readonly critical: boolean;
  /** The event as JSON. */
  readonly text: string;
}

/** The arrival of an event; `text` when its JSON has been made already. */
export function arrivalOf(
  tenant: string,
  identity: string,
  at: number,
  event: JsonObject,
  text = JSON.stringify(event),
): Arrival {
  const { category, source, critical } = event;
  return {
    tenant,
    identity,
    at,
    category: typeof category === "string" ? category : "",
    source: typeof source === "string" ? source : "",
    critical: critical === true,
    text,
  };
}

/** Who an event is: its id, and its content for events of one id that differ. */
export function identityOf(id: string, text: string): string {
  return `${id}\u0000${hash("sha1", text, "base64url")}`;
}

/** A message of the log. */
export function writeArrivals(arrivals: readonly Arrival[]): string {
  const events = arrivals.map(({ identity, at, text }) => `{"i":${JSON.stringify(identity)},"at":${at},"e":${text}}`);
  return `{"v":1,"events":[${events.join(",")}]}`;
}

/** The events of a message of the log. Throws `data_loss` for what is not one. */
export function readArrivals(subject: string, message: string): Arrival[] {
  const tenant = tenantOf(subject);
  try {
    const { events } = JSON.parse(message) as { events: { i: string; at: number; e: JsonObject }[] };
    return events.map(({ i, at, e }) => arrivalOf(tenant, i, at, e));
  } catch (cause) {
    throw new BeamlineError("data_loss", `the events on ${subject} cannot be read`, { cause });
  }
}
