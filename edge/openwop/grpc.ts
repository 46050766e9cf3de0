/** `StreamRunEvents`: the same events as SSE, one message each. */
import type { Bus } from "../../bus/connect.ts";
import { codecOf, opaque } from "../../contracts/codec.ts";
import { RunEventEnvelope, StreamRunEventsRequest } from "../../contracts/gen/openwop/v1/openwop.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { header, type Headers } from "../../contracts/headers.ts";
import { isObject } from "../../contracts/openwop/json.ts";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { parseBufferMs, parseModes } from "../../contracts/openwop/modes.ts";
import type { EventSource } from "../forward.ts";
import { eventsOf } from "./events.ts";

export const STREAM_PATH = "/openwop.v1.Engine/StreamRunEvents";

/** `last_sequence` 0 leaves out the first event, as it does in REST; -1 asks for all (OpenWOP, gRPC specifics). */
export function streamRunEvents(bus: Bus): EventSource {
  const asked = codecOf(opaque(StreamRunEventsRequest));
  const told = codecOf(opaque(RunEventEnvelope));
  return async function* source(request: string, headers: Headers, signal: AbortSignal) {
    const { run_id, last_sequence, stream_modes, buffer_ms } = asked.fromJson(
      JSON.parse(request),
    ) as StreamRunEventsRequest;
    permitRead(headers);
    const modes = parseModes(stream_modes);
    parseBufferMs(buffer_ms);
    const wanted = {
      tenant: headers[header.tenantId] ?? "default",
      runId: run_id,
      after: Number(last_sequence),
      modes,
    };
    for await (const event of eventsOf(bus, wanted, signal)) yield JSON.stringify(told.toJson(envelopeOf(event)));
  };
}

/** Throws `forbidden` for a caller without `runs:read`. */
export function permitRead(headers: Headers): void {
  const scopes = headers[header.scopes]?.split(" ") ?? [];
  if (scopes.includes("runs:read") || scopes.includes("*")) return;
  throw new BeamlineError("forbidden", "the credential lacks the scope runs:read", {
    details: { scopeRequired: "runs:read" },
  });
}

/** A payload that is no object travels as the member `value`: a Struct holds nothing else. */
export function envelopeOf({
  eventId,
  sequence,
  runId,
  type,
  nodeId,
  payload,
  timestamp,
  causationId,
}: RunEvent): RunEventEnvelope {
  return RunEventEnvelope.fromPartial({
    event_id: eventId,
    seq: BigInt(sequence),
    run_id: runId,
    type,
    node_id: nodeId ?? "",
    payload: isObject(payload) ? payload : { value: payload },
    timestamp: new Date(timestamp),
    causation_id: causationId ?? "",
  });
}
