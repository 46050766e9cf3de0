/** What a worker must offer for a service: one handler per RPC, no more and no fewer. A missing one does not compile. */
import type { Headers } from "./headers.ts";
import type { MethodDefinition, ServiceDefinition } from "./routes.ts";

/** Who calls, for how long, and as part of what; arrives with the call, never from a global. */
export interface CallContext {
  /** Tenant of the call: header, else the request's own field, else `default`. */
  readonly tenant: string;
  /** `local` for the loopback dev principal, otherwise the subject of the key or token; empty for plain NATS callers. */
  readonly principal: string;
  readonly scopes: readonly string[];
  /** W3C trace context of the call. */
  readonly traceparent: string;
  /** Absolute deadline, epoch milliseconds. */
  readonly deadline: number;
  /** Aborts when the deadline passes or the caller cancels. Made on first use. */
  readonly signal: AbortSignal;
  readonly headers: Headers;
  /** Subject the call arrived on. */
  readonly subject: string;
}

type Request<M extends MethodDefinition> = ReturnType<M["requestType"]["decode"]>;
/** A reply is plain data; the seam makes the message. */
type Response<M extends MethodDefinition> = Parameters<M["responseType"]["fromPartial"]>[0];

/** A method with one reply. Throws `BeamlineError`; anything else becomes `internal`. */
export type UnaryHandler<M extends MethodDefinition> = (
  request: Request<M>,
  context: CallContext,
) => Promise<Response<M>>;

/** A method with a streamed reply. Each yielded message is sent when the caller has room for it. */
export type StreamHandler<M extends MethodDefinition> = (
  request: Request<M>,
  context: CallContext,
) => AsyncIterable<Response<M>>;

export type Handlers<S extends ServiceDefinition> = {
  readonly [K in keyof S["methods"]]: S["methods"][K]["responseStream"] extends true
    ? StreamHandler<S["methods"][K]>
    : UnaryHandler<S["methods"][K]>;
};
