/**
 * Trace context on the hot path. A call always carries a W3C `traceparent`; spans are made only for sampled ones, so
 * an unsampled call costs a look at one character.
 *
 * T1 every call leaves with a traceparent: its own when it brought a valid one, a fresh one otherwise.
 * T2 an unsampled call, and any call in a process without a collector, makes no span and switches no context.
 * T3 a sampled call's onward traceparent names the span made here; the trace id never changes.
 * T4 whether a trace is sampled is decided once, where it enters (a sampler told not to follow its callers decides by
 *    trace id, so that every process comes to the same answer).
 *
 * Whether there is anything to record with is known to the process (`telemetry.ts`), like OpenTelemetry's own globals.
 */
import { randomFillSync } from "node:crypto";
import { context, SpanKind, SpanStatusCode, trace, TraceFlags } from "@opentelemetry/api";
import type { Attributes, Span, SpanContext, SpanOptions, Tracer } from "@opentelemetry/api";
import { errorType, redactErrorText } from "./redact.ts";

export { SpanKind };
export type { Attributes, Span };

/** How traces are recorded in this process. */
export interface Recording {
  readonly tracer: Tracer;
  /** Whether a caller's own decision is followed. */
  readonly parentBased: boolean;
  /** Fraction of the traces decided here that are recorded, 0 to 1. */
  readonly ratio: number;
}

let recording: Recording | undefined;
let bound = 0;

/** Starts recording in this process, or stops it. Called by `telemetry.ts` and tests. */
export function recordWith(how: Recording | undefined): void {
  recording = how;
  bound = how ? (how.ratio === 1 ? 2 ** 32 : Math.floor(how.ratio * 0xffff_ffff)) : 0;
}

const VALID = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}/;
const LENGTH = 55;

/** Whether it is a traceparent as W3C Trace Context defines it; a later version may be longer. */
export function isTraceparent(value: string): boolean {
  return value.length >= LENGTH && VALID.test(value) && (value.length === LENGTH || later(value));
}

function later(value: string): boolean {
  return !value.startsWith("00") && value.charCodeAt(LENGTH) === 0x2d;
}

/**
 * The traceparent of a call that enters here: the one it brought when that is valid, else a fresh one with this
 * process's sampling decision. For the edge and for the first receiver of a bus message.
 */
export function acceptTraceparent(incoming: string | undefined): string {
  if (incoming === undefined || !isTraceparent(incoming)) return newTraceparent();
  const own = incoming.length === LENGTH ? incoming : `00-${incoming.slice(3, LENGTH)}`;
  if (!recording || recording.parentBased) return own;
  return own.slice(0, 53) + (draws(Number.parseInt(own.slice(3, 11), 16), own) ? "01" : "00");
}

/** The SDK's rule for a ratio: the four words of the trace id folded into one, compared with the ratio's share. */
function draws(first: number, traceparent: string): boolean {
  let folded = first;
  for (let at = 11; at < 35; at += 8) folded ^= Number.parseInt(traceparent.slice(at, at + 8), 16);
  return folded >>> 0 < bound;
}

const POOL_BYTES = 8_184; // a multiple of the 24 bytes one traceparent takes
const pool = Buffer.allocUnsafeSlow(POOL_BYTES);
let used = POOL_BYTES;

/** A fresh trace. Without an argument, sampled as often as this process is told to. */
export function newTraceparent(sampled?: boolean): string {
  if (used === POOL_BYTES) {
    randomFillSync(pool);
    used = 0;
  }
  const at = used;
  used += 24;
  const record = sampled ?? (bound > 0 && drawsBytes(at));
  const hex = pool.toString("hex", at, used);
  return `00-${hex.slice(0, 32)}-${hex.slice(32)}-${record ? "01" : "00"}`;
}

function drawsBytes(at: number): boolean {
  const folded = pool.readInt32BE(at) ^ pool.readInt32BE(at + 4) ^ pool.readInt32BE(at + 8) ^ pool.readInt32BE(at + 12);
  return folded >>> 0 < bound;
}

/** Whether the traceparent asks for its call to be recorded. Looks at the flags alone. */
export function sampledParent(traceparent: string | undefined): boolean {
  if (traceparent === undefined || traceparent.length < LENGTH) return false;
  const digit = traceparent.charCodeAt(54);
  return (digit & 1) === (digit < 0x3a ? 1 : 0);
}

/** The 32 hex digits of the trace id. */
export function traceIdOf(traceparent: string): string {
  return traceparent.slice(3, 35);
}

/** The 16 hex digits of the calling span's id. */
export function spanIdOf(traceparent: string): string {
  return traceparent.slice(36, 52);
}

/** What a span may have besides. */
export interface SpanMore {
  /** Traceparents of recorded spans it belongs with and does not hang below. */
  readonly links?: readonly string[];
  /** When it began, epoch milliseconds: for what is only known to have been one thing when it is over. Now when absent. */
  readonly since?: number;
}

/**
 * Runs `fn` inside a span when the call is sampled, and just runs it otherwise. `fn` gets the traceparent to send on
 * and the span, if there is one. The span ends when `fn` returns, or when the promise it returned settles; what it
 * throws is passed on, and noted on the span without its secrets.
 *
 * `attributes` may be a function, called for sampled calls alone.
 */
export function withSpan<T>(
  name: string,
  traceparent: string | undefined,
  attributes: Attributes | (() => Attributes) | undefined,
  fn: (traceparent: string, span: Span | undefined) => T,
  kind: SpanKind = SpanKind.INTERNAL,
  { links, since }: SpanMore = {},
): T {
  if (traceparent === undefined) traceparent = newTraceparent();
  if (recording === undefined || !sampledParent(traceparent)) return fn(traceparent, undefined);
  const options: SpanOptions = {
    kind,
    attributes: (typeof attributes === "function" ? attributes() : attributes) ?? {},
    ...(links !== undefined && { links: links.map((link) => ({ context: contextOf(link) })) }),
    ...(since !== undefined && { startTime: since }),
  };
  return recorded(recording.tracer, name, traceparent, options, fn);
}

function recorded<T>(
  tracer: Tracer,
  name: string,
  traceparent: string,
  options: SpanOptions,
  fn: (traceparent: string, span: Span) => T,
): T {
  const caller = contextOf(traceparent);
  const parent = trace.setSpanContext(context.active(), caller);
  const span = tracer.startSpan(name, options, parent);
  const onward = `00-${caller.traceId}-${span.spanContext().spanId}-01`;
  try {
    const result = context.with(trace.setSpan(parent, span), fn, undefined, onward, span);
    if (result instanceof Promise)
      void result.then(
        () => span.end(),
        (error: unknown) => failed(span, error),
      );
    else span.end();
    return result;
  } catch (error) {
    failed(span, error);
    throw error;
  }
}

/** A sampled span elsewhere. */
function contextOf(traceparent: string): SpanContext {
  return {
    traceId: traceIdOf(traceparent),
    spanId: spanIdOf(traceparent),
    traceFlags: TraceFlags.SAMPLED,
    isRemote: true,
  };
}

function failed(span: Span, error: unknown): void {
  span.setAttribute("error.type", errorType(error));
  const message = error instanceof Error ? redactErrorText(error.message) : "";
  span.setStatus({ code: SpanStatusCode.ERROR, message });
  span.end();
}
