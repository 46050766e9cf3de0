/** The context of one call as a worker sees it, read from the message on demand. */
import type { Msg } from "@nats-io/transport-node";
import { BeamlineError } from "../contracts/errors.ts";
import type { CallContext } from "../contracts/handlers.ts";
import { header, type Headers } from "../contracts/headers.ts";
import { fromNats } from "./headers.ts";

/** Tenant of callers that name none: existing aiOS clients have no word for it. */
export const DEFAULT_TENANT = "default";

export class IncomingCall implements CallContext {
  readonly #message: Msg;
  readonly #timeoutMs: number;
  readonly #arrived = Date.now();
  #headers: Headers | undefined;
  #traceparent: string | undefined;
  #controller: AbortController | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ended: BeamlineError | undefined;

  constructor(message: Msg, timeoutMs: number) {
    this.#message = message;
    this.#timeoutMs = timeoutMs;
  }

  get headers(): Headers {
    return (this.#headers ??= fromNats(this.#message));
  }
  get subject(): string {
    return this.#message.subject;
  }
  /** Where the caller waits; undefined when it named no reply subject. */
  get reply(): string | undefined {
    return this.#message.reply;
  }
  get tenant(): string {
    return this.headers[header.tenantId] ?? DEFAULT_TENANT;
  }
  get principal(): string {
    return this.headers[header.principal] ?? "";
  }
  get scopes(): readonly string[] {
    return this.headers[header.scopes]?.split(" ") ?? [];
  }
  get traceparent(): string {
    return this.#traceparent ?? this.headers[header.traceparent] ?? "";
  }
  /** Set by tracing, once the call has a span of its own. */
  set traceparent(own: string) {
    this.#traceparent = own;
  }
  get deadline(): number {
    const named = Number(this.headers[header.deadline]);
    return named > 0 ? named : this.#arrived + this.#timeoutMs;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#ended !== undefined) this.#controller.abort(this.#ended);
      else {
        const left = Math.max(0, this.deadline - Date.now());
        this.#timer = setTimeout(() => this.end(expired(this.subject)), Math.min(left, 2 ** 31 - 1));
        this.#timer.unref();
      }
    }
    return this.#controller.signal;
  }

  /** Tells the handler to stop, with the reason. */
  end(reason: BeamlineError): void {
    clearTimeout(this.#timer);
    this.#ended ??= reason;
    this.#controller?.abort(reason);
  }

  /** The call is answered: nothing may abort it any more. */
  settle(): void {
    clearTimeout(this.#timer);
  }
}

export function expired(subject: string): BeamlineError {
  return new BeamlineError("deadline_exceeded", `the deadline of the call to ${subject} passed`);
}
