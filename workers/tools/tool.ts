/** What a tool is, to the pipeline and to whoever writes one. */
import type { NamesOf } from "./catalogue/facts.ts";
import type { Host } from "./host.ts";
import type { Step } from "./undo.ts";

export type Json = Record<string, unknown>;

/** JSON Schema 2020-12, as data. */
export type Schema = Readonly<Record<string, unknown>>;

/** One execution, as a handler sees it. */
export interface Call {
  readonly tool: string;
  readonly tenant: string;
  readonly agent: string;
  readonly task: string;
  readonly reason: string;
  readonly executionId: string;
  /** W3C trace context to send on to whatever the tool calls. */
  readonly traceparent: string;
  /** Aborts at the tool's timeout and when the caller gives up. */
  readonly signal: AbortSignal;
  readonly host: Host;
  /** How to undo it so far: what `prepare` said, and what was added since. */
  readonly steps: readonly Step[];
  /** Adds how to undo something that is known only now that it has been done. Steps added later are undone earlier. */
  undo(...steps: Step[]): void;
  /** Runs another tool's opposite on behalf of a rollback; gates are not passed again. */
  readonly depth: number;
}

/** How one tool is offered and done. */
export interface Handler<I = Json> {
  /** One or two sentences for people and models. */
  readonly about: string;
  readonly input: Schema;
  readonly output: Schema;
  /** Changes something outside: recorded before it runs, so that a crash leaves a trace. Default false. */
  readonly changes?: boolean;
  /** Input fields that hold paths, for capabilities granted below a path only. */
  readonly paths?: readonly string[];
  /** Other names callers use for a field: `{host: "hostname"}` (aiOS tools, field-name mismatches). */
  readonly aliases?: Readonly<Record<string, string>>;
  /** Takes backups and says how to undo what is about to be done, before anything is done. */
  prepare?(input: I, call: Call): Promise<readonly Step[]>;
  /**
   * How what this input is about looks now, in a line: for a tool that is the opposite of another, so that a rollback notices what has
   * happened since. Throws when it cannot be looked at.
   */
  seen?(input: I, call: Call): Promise<string>;
  /** Does it. Throws `ToolFailure` with a text for the caller. */
  run(input: I, call: Call): Promise<Json>;
}

/** Keeps a handler's input type to itself: its input has passed the schema when it is called. */
export function tool<I>(handler: Handler<I>): Handler {
  return handler as unknown as Handler;
}

/** A namespace: one handler per tool of the catalogue's facts, no more and no fewer. */
export type Namespace<N extends string> = { readonly [K in NamesOf<N>]: Handler };
