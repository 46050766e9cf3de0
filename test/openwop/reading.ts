/** A run's events as a client of either surface reads them, in one shape. */
import type { Metadata } from "@grpc/grpc-js";
import { isObject } from "../../contracts/openwop/json.ts";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { bearer, type Surfaces } from "./host.ts";
import { envelopeOf } from "./surface.ts";

export interface Asked {
  /** Default `updates`, as with the contract. */
  readonly modes?: readonly string[];
  /** Only events with a greater sequence. Default all. */
  readonly after?: number;
  readonly bufferMs?: number;
}

/** One event, without the versions, which gRPC does not carry. */
export interface Seen {
  readonly sequence: number;
  readonly type: string;
  readonly eventId: string;
  readonly runId: string;
  readonly nodeId: string;
  readonly payload: unknown;
  readonly timestamp: string;
  readonly causationId: string;
}

export interface Read {
  /** HTTP status, or the gRPC status number. */
  readonly status: number;
  /** The envelope of a refusal. */
  readonly error?: { readonly error: string; readonly details?: Readonly<Record<string, unknown>> };
  readonly events: readonly Seen[];
}

/** Reads to the end of the stream. */
export type Reader = (runId: string, asked?: Asked) => Promise<Read>;

/** Server-sent events; batches are taken apart. */
export function overSse({ base }: Pick<Surfaces, "base">): Reader {
  return async (runId, { modes = [], after = -1, bufferMs } = {}) => {
    const query = new URLSearchParams();
    if (modes.length > 0) query.set("streamMode", modes.join(","));
    if (bufferMs !== undefined) query.set("bufferMs", String(bufferMs));
    const response = await fetch(`${base}/v1/runs/${runId}/events?${query.toString()}`, {
      headers: { ...bearer().metadata, ...(after >= 0 && { "last-event-id": String(after) }) },
    });
    const text = await response.text();
    if (response.status !== 200) return { status: response.status, error: JSON.parse(text), events: [] };
    const data = [...text.matchAll(/^data: (.*)$/gm)].flatMap(
      ([, one = ""]) => JSON.parse(one) as RunEvent | RunEvent[],
    );
    return { status: 200, events: data.map(seen) };
  };
}

export function overGrpc({ grpc }: Pick<Surfaces, "grpc">): Reader {
  return async (runId, { modes = [], after = -1, bufferMs = 0 } = {}) => {
    const events: Seen[] = [];
    const request = { run_id: runId, last_sequence: BigInt(after), stream_modes: [...modes], buffer_ms: bufferMs };
    try {
      for await (const one of grpc.stream("streamRunEvents", request, bearer()))
        events.push({
          sequence: Number(one.seq),
          type: one.type,
          eventId: one.event_id,
          runId: one.run_id,
          nodeId: one.node_id,
          payload: one.payload,
          timestamp: one.timestamp?.toISOString() ?? "",
          causationId: one.causation_id,
        });
    } catch (thrown) {
      const { code, metadata } = thrown as { code: number; metadata: Metadata };
      return { status: code, error: envelopeOf(metadata), events: [] };
    }
    return { status: 0, events };
  };
}

/** An event of REST in the same shape; a payload that is no object travels as `value` over gRPC. */
export function seen({
  sequence,
  type,
  eventId,
  runId,
  nodeId = "",
  payload,
  timestamp,
  causationId = "",
}: RunEvent): Seen {
  const shown = isObject(payload) ? payload : { value: payload };
  return { sequence, type, eventId, runId, nodeId, payload: shown, timestamp, causationId };
}
