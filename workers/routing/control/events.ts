/** Events of the control surface: sent to the inbox of each subscription of the tenant, kept by nobody (BeamLine, control API). */
import type { Bus } from "../../../bus/connect.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { header } from "../../../contracts/headers.ts";
import type { Records } from "./records.nats.ts";

export const eventTypes = [
  "project.opened",
  "project.closed",
  "index.progress",
  "index.finished",
  "task.submitted",
  "task.finished",
  "chat.answered",
] as const;
export type EventType = (typeof eventTypes)[number];

export interface EventOptions {
  readonly newId: () => string;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly onTrouble: (error: unknown) => void;
}

/** Tells a tenant's subscribers. Not waited for; never throws: whoever must be exact asks for the status. */
export type Tell = (tenant: string, type: EventType, data: object, traceId?: string) => void;

export function busEvents(bus: Bus, records: Records, { newId, now, onTrouble }: EventOptions): Tell {
  const send = async (tenant: string, type: EventType, data: object, traceId: string): Promise<void> => {
    const event: JsonObject = {
      version: "1",
      event_id: newId(),
      type,
      tenant_id: tenant,
      ...(traceId !== "" && { trace_id: traceId }),
      timestamp_ms: now(),
      data,
    };
    for (const { subject, types, subscription_id, expires_at_ms } of await records.list("subscription", tenant)) {
      if (expires_at_ms <= now() || (types.length > 0 && !types.includes(type))) continue;
      bus.send(subject, JSON.stringify({ ...event, subscription_id }), { [header.tenantId]: tenant });
    }
  };
  return (tenant, type, data, traceId = "") => void send(tenant, type, data, traceId).catch(onTrouble);
}
