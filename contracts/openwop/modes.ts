/** Stream modes: which events a listener gets (OpenWOP, streaming). Shared by SSE, poll and gRPC. */
import { BeamlineError } from "../errors.ts";
import { objectOr, textOr } from "./json.ts";
import { TERMINAL_EVENTS, TERMINAL_STATUS, type RunEvent } from "./log.ts";

export const STREAM_MODES = ["updates", "values", "messages", "debug"] as const;
export type StreamMode = (typeof STREAM_MODES)[number];

export const MAX_BUFFER_MS = 5_000;

/** The modes asked for; none is `updates`. Throws `unsupported_stream_mode` with `details.supported`. */
export function parseModes(names: readonly string[]): ReadonlySet<StreamMode> {
  const asked = names.map((name) => name.trim()).filter((name) => name !== "");
  const modes = new Set<StreamMode>();
  for (const name of asked) {
    const mode = STREAM_MODES.find((one) => one === name);
    if (mode === undefined) throw unsupported(`stream mode ${name} is not one of ${STREAM_MODES.join(", ")}`);
    modes.add(mode);
  }
  if (modes.size === 0) modes.add("updates");
  if (modes.has("values") && modes.size > 1) throw unsupported("stream mode values cannot be combined with others");
  return modes;
}

function unsupported(message: string): BeamlineError {
  return new BeamlineError("unsupported_stream_mode", message, {
    field: "streamMode",
    details: { supported: [...STREAM_MODES] },
  });
}

/** How long events may wait to be sent together. Throws `validation_error`: an impossible value is refused, not clamped. */
export function parseBufferMs(value: unknown): number {
  if (value === undefined || value === "") return 0;
  const ms =
    typeof value === "number" ? value : typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isInteger(ms) && ms >= 0 && ms <= MAX_BUFFER_MS) return ms;
  throw new BeamlineError("validation_error", `bufferMs must be a whole number from 0 to ${MAX_BUFFER_MS}`, {
    field: "bufferMs",
  });
}

/** A cursor: the last sequence a client has. Absent means none, as -1 does. Throws `validation_error`. */
export function parseCursor(value: unknown, field: string): number {
  if (value === undefined || value === "") return -1;
  if (typeof value === "string" && /^-?\d{1,15}$/.test(value)) return Math.max(-1, Number(value));
  throw new BeamlineError("validation_error", `${field} must be a whole number`, { field });
}

const updates = new Set([
  "run.started",
  "run.completed",
  "run.failed",
  "run.cancelled",
  "run.paused",
  "run.resumed",
  "run.resuming",
  "run.dead_lettered",
  "node.completed",
  "node.failed",
  "node.skipped",
  "node.suspended",
  "node.resumed",
  "node.cancelled",
  "node.dispatched",
  "artifact.created",
  "cap.breached",
  "runOrchestrator.decided",
]);
const updatePrefixes = ["approval.", "clarification.", "interrupt.", "replay.", "agent.", "conversation."];

function isUpdate(type: string): boolean {
  return updates.has(type) || updatePrefixes.some((prefix) => type.startsWith(prefix));
}

/** The event as a listener of these modes gets it; undefined when it does not. `values` is not decided here. */
export function seenIn(modes: ReadonlySet<StreamMode>, event: RunEvent): RunEvent | undefined {
  if (event.type === "output.chunk") {
    if (modes.has("messages") || modes.has("debug")) return { ...event, type: "ai.message.chunk" };
    return undefined;
  }
  return modes.has("debug") || (modes.has("updates") && isUpdate(event.type)) ? event : undefined;
}

const urgent = new Set([
  ...TERMINAL_EVENTS,
  "node.suspended",
  // What a suspended node asks comes right behind it, and somebody is to answer.
  "interrupt.requested",
  "approval.requested",
  "clarification.requested",
]);

/** Events after which a buffer is sent at once: ends, questions, and states in which a run ended or waits. */
export function flushesBuffer({ type, payload }: RunEvent): boolean {
  if (type !== "state.snapshot") return urgent.has(type);
  const status = textOr(objectOr(payload)["status"], "");
  return TERMINAL_STATUS.has(status) || status.startsWith("waiting-");
}
