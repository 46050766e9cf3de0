/**
 * Logs: one JSON object per line, with the fields of the BeamLine reference (observability, logs): `timestamp` (ISO,
 * microseconds), `level` (DEBUG, INFO, WARN, ERROR), `component`, `message`, `context`, and beside them the ids that
 * are known: `trace_id`, `tenant_id`, `run_id`, `flow_id`, `step_id`. Secrets are taken out (`redact.ts`).
 *
 *     log.warn("message dead-lettered", { subject, reason, trace_id, error });
 *
 * Ids found in the context move to the top of the line, so that every line of a trace or a tenant is found the same way.
 */
import { trace } from "@opentelemetry/api";
import { pino } from "pino";
import { isoMicros, systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { redactFields, redactText } from "./redact.ts";

/** Severities, least first. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Anything worth knowing about the moment; errors may be put in as they are. */
export type LogContext = Readonly<Record<string, unknown>>;

/** The ids that stand at the top of a line. */
export interface LogIds {
  readonly trace_id?: string | undefined;
  readonly tenant_id?: string | undefined;
  readonly run_id?: string | undefined;
  readonly flow_id?: string | undefined;
  readonly step_id?: string | undefined;
}

/** Writes log lines. A level that is off costs a comparison; build costly context only when `enabled` says so. */
export interface Logger {
  debug(message: string, context?: LogContext): void;
  info(message: string, context?: LogContext): void;
  warn(message: string, context?: LogContext): void;
  error(message: string, context?: LogContext): void;
  enabled(level: LogLevel): boolean;
  /** The same log with ids on every line, or for another component. */
  child(fixed: LogIds & { readonly component?: string }): Logger;
}

export interface LogOptions {
  /** The part that speaks. */
  readonly component: string;
  /** Least severe level written; info when left out. */
  readonly level?: LogLevel | "silent";
  /** Takes each line with its line break; standard output when left out. */
  readonly write?: (line: string) => void;
  readonly clock?: Clock;
}

/** What waits while standard output takes nothing, bytes; more is dropped. */
const WAITING_BYTES = 1024 * 1024;

/** Standard output. A disk that is full costs lines of the log, not the call that spoke. */
function standardOutput(): pino.DestinationStream {
  const out = pino.destination({ fd: 1, sync: true, maxLength: WAITING_BYTES });
  out.on("error", () => undefined);
  return out;
}

/** A log on standard output, written at once: the last words before a crash get out. */
export function createLogger({ component, level = "info", write, clock = systemClock }: LogOptions): Logger {
  if (level === "silent") return silentLogger;
  const options: pino.LoggerOptions = {
    level: "debug",
    base: null,
    messageKey: "message",
    timestamp: () => `,"timestamp":"${isoMicros(clock.micros())}"`,
    formatters: { level: (label) => ({ level: label.toUpperCase() }) },
  };
  const sink = pino(options, write ? { write } : standardOutput());
  return new JsonLogger(sink, LOG_LEVELS.indexOf(level), { component });
}

const ID_KEYS = ["trace_id", "tenant_id", "run_id", "flow_id", "step_id"] as const;

class JsonLogger implements Logger {
  readonly #sink: pino.Logger;
  readonly #least: number;
  readonly #fixed: LogIds & { readonly component: string };

  constructor(sink: pino.Logger, least: number, fixed: LogIds & { readonly component: string }) {
    this.#sink = sink;
    this.#least = least;
    this.#fixed = fixed;
  }

  debug(message: string, context?: LogContext): void {
    if (this.#least <= 0) this.#sink.debug(this.#line(context), redactText(message));
  }

  info(message: string, context?: LogContext): void {
    if (this.#least <= 1) this.#sink.info(this.#line(context), redactText(message));
  }

  warn(message: string, context?: LogContext): void {
    if (this.#least <= 2) this.#sink.warn(this.#line(context), redactText(message));
  }

  error(message: string, context?: LogContext): void {
    this.#sink.error(this.#line(context), redactText(message));
  }

  enabled(level: LogLevel): boolean {
    return this.#least <= LOG_LEVELS.indexOf(level);
  }

  child(fixed: LogIds & { readonly component?: string }): Logger {
    return new JsonLogger(this.#sink, this.#least, { ...this.#fixed, ...fixed });
  }

  #line(context: LogContext = {}): object {
    const fields = redactFields(context);
    const line: Record<string, unknown> = { ...this.#fixed };
    for (const key of ID_KEYS) {
      if (typeof fields[key] !== "string") continue;
      line[key] = fields[key];
      delete fields[key];
    }
    line.trace_id ??= trace.getActiveSpan()?.spanContext().traceId;
    line.context = fields;
    return line;
  }
}

/** Writes nothing. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  enabled: () => false,
  child: () => silentLogger,
};
