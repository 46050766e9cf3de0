/** The edge's three ways to serve a method: one reply, a streamed reply, events read from a log. It knows the kinds, never an RPC. */
import type {
  handleServerStreamingCall,
  handleUnaryCall,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
} from "@grpc/grpc-js";
import { errorOfReply, isError, type Caller, type Reply } from "../bus/call.ts";
import { openStream } from "../bus/stream.ts";
import { opaque } from "../contracts/codec.ts";
import { BeamlineError } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import type { Route } from "../contracts/routes.ts";
import { transcoderOf } from "../contracts/transcode.ts";
import { sampledParent, SpanKind, withSpan } from "../runtime/trace.ts";
import type { AuthPolicy } from "./auth.ts";
import { headersOf, rulesOf } from "./metadata.ts";
import { statusOf } from "./status.ts";

/** Reads events of a log for a route of kind `events`. Takes the request and yields replies as the contract's JSON text. */
export type EventSource = (request: string, headers: Headers, signal: AbortSignal) => AsyncIterable<string>;

export interface Forwarding {
  readonly caller: Caller;
  readonly auth: AuthPolicy;
  /** Event sources by gRPC path, for routes of kind `events`. */
  readonly events: ReadonlyMap<string, EventSource>;
  /** Lets an authenticated call in and gives back what to call when it is over; throws what it is refused with. */
  readonly admit?: (route: Route, headers: Headers) => (() => void) | undefined;
  /** Told of each finished call, for metrics; `ms` is wall time. */
  readonly finished?: (route: Route, code: BeamlineError | undefined, ms: number) => void;
  readonly onError?: (error: BeamlineError, route: Route, headers: Headers) => void;
}

type UnaryCall = ServerUnaryCall<Buffer, Buffer>;
type StreamCall = ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

/** Milliseconds a call may take: what the caller said, at most the route's own limit. */
function budget(call: { getDeadline(): Date | number }, route: Route, now: number): number {
  const deadline = call.getDeadline();
  const at = typeof deadline === "number" ? deadline : deadline.getTime();
  return Math.max(0, Math.min(at - now, route.timeoutMs));
}

export function unary(route: Route, forwarding: Forwarding): handleUnaryCall<Buffer, Buffer> {
  const { caller, auth, finished, onError, admit } = forwarding;
  const request = transcoderOf(opaque(route.method.requestType));
  const response = responder(route);
  const rules = rulesOf(route);
  return (call: UnaryCall, callback) => {
    const now = Date.now();
    let headers: Headers = {};
    let ended: Ended = ignore;
    let leave: (() => void) | undefined;
    const fail = (thrown: unknown): void => {
      const error = BeamlineError.from(thrown);
      if (error.code === "internal") onError?.(error, route, headers);
      finished?.(route, error, Date.now() - now);
      ended(error);
      leave?.();
      callback(statusOf(error, route.dialect));
    };
    const answer = (error: BeamlineError | undefined, reply: Reply | undefined): void => {
      if (reply === undefined) return fail(error);
      let bytes: Buffer;
      try {
        if (isError(reply.headers)) return fail(errorOfReply(reply));
        bytes = response(reply.text);
      } catch (thrown) {
        return fail(thrown);
      }
      finished?.(route, undefined, Date.now() - now);
      ended(undefined);
      leave?.();
      callback(null, bytes);
    };
    try {
      const timeoutMs = budget(call, route, now);
      const text = request.toText(call.request);
      headers = headersOf(call.metadata, route, rules, auth, now + timeoutMs);
      leave = admit?.(route, headers);
      traced(route, headers, (onward, end) => {
        ended = end;
        call.once(
          "cancelled",
          caller.start(route.subject, text, { headers: onward, timeoutMs, worker: route.worker }, answer),
        );
      });
    } catch (thrown) {
      fail(thrown);
    }
  };
}

type Ended = (error: BeamlineError | undefined) => void;

const ignore = (): void => undefined;

/** A span around a call that is sampled; nothing at all around one that is not. `start` is told how to end it. */
function traced(route: Route, headers: Headers, start: (onward: Headers, ended: Ended) => void): void {
  const traceparent = headers[header.traceparent];
  if (!sampledParent(traceparent)) return start(headers, ignore);
  const attributes = { "rpc.system": "grpc", "rpc.service": route.service.fullName, "rpc.method": route.method.name };
  const run = (onward: string): Promise<void> =>
    new Promise((resolve, reject) => {
      start({ ...headers, [header.traceparent]: onward }, (error) => (error === undefined ? resolve() : reject(error)));
    });
  withSpan(route.path.slice(1), traceparent, attributes, run, SpanKind.SERVER).catch(ignore); // the span has it
}

export function streamed(route: Route, forwarding: Forwarding): handleServerStreamingCall<Buffer, Buffer> {
  const request = transcoderOf(opaque(route.method.requestType));
  const response = responder(route);
  return pump(route, forwarding, async function* (call, headers, timeoutMs, signal) {
    const options = { headers, timeoutMs, signal, worker: route.worker };
    for await (const text of openStream(forwarding.caller, route.subject, request.toText(call.request), options))
      yield response(text);
  });
}

/**
 * Events of a log have no end of their own, so an edge that closes does not wait for them: `closing` ends them with `unavailable`, and the
 * client goes on elsewhere from what it has.
 */
export function events(
  route: Route,
  forwarding: Forwarding,
  closing: AbortSignal,
): handleServerStreamingCall<Buffer, Buffer> {
  const request = transcoderOf(opaque(route.method.requestType));
  const response = responder(route);
  return pump(route, forwarding, async function* (call, headers, _timeoutMs, signal) {
    const source = forwarding.events.get(route.path);
    if (source === undefined)
      throw new BeamlineError("unavailable", `no ${route.worker} worker is serving ${route.subject}`);
    const until = AbortSignal.any([signal, closing]);
    for await (const text of source(request.toText(call.request), headers, until)) yield response(text);
    if (closing.aborted) throw new BeamlineError("unavailable", "this edge is closing: go on from the last event");
  });
}

/** A worker's JSON as response bytes. What is not its contract is the worker's fault, never the caller's. */
function responder(route: Route): (text: string) => Buffer {
  const transcoder = transcoderOf(opaque(route.method.responseType));
  return (text) => {
    try {
      return transcoder.toBytes(text);
    } catch (cause) {
      throw new BeamlineError(
        "internal",
        `the ${route.worker} worker answered ${route.subject} with something else than its contract`,
        { cause },
      );
    }
  };
}

type Produce = (
  call: StreamCall & { request: Buffer },
  headers: Headers,
  timeoutMs: number,
  signal: AbortSignal,
) => AsyncIterable<Buffer>;

/** Writes what is produced, no faster than the client reads; a client that leaves ends the production. */
function pump(route: Route, forwarding: Forwarding, produce: Produce): handleServerStreamingCall<Buffer, Buffer> {
  const rules = rulesOf(route);
  const run = async (call: ServerWritableStream<Buffer, Buffer>): Promise<void> => {
    const now = Date.now();
    const gone = new AbortController();
    let headers: Headers = {};
    let leave: (() => void) | undefined;
    call.once("cancelled", () => gone.abort());
    try {
      const timeoutMs = budget(call, route, now);
      headers = headersOf(call.metadata, route, rules, forwarding.auth, now + timeoutMs);
      leave = forwarding.admit?.(route, headers);
      await spanned(route, headers, async (onward) => {
        for await (const bytes of produce(call, onward, timeoutMs, gone.signal)) {
          if (!call.write(bytes)) await drained(call, gone.signal);
        }
      });
      forwarding.finished?.(route, undefined, Date.now() - now);
      call.end();
    } catch (thrown) {
      const error = BeamlineError.from(thrown);
      if (error.code === "internal") forwarding.onError?.(error, route, headers);
      forwarding.finished?.(route, error, Date.now() - now);
      call.emit("error", statusOf(error, route.dialect));
    } finally {
      leave?.();
    }
  };
  return (call) => void run(call);
}

function spanned(route: Route, headers: Headers, run: (onward: Headers) => Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    traced(route, headers, (onward, ended) => {
      run(onward).then(
        () => {
          ended(undefined);
          resolve();
        },
        (error: unknown) => {
          ended(BeamlineError.from(error));
          reject(error);
        },
      );
    });
  });
}

function drained(call: ServerWritableStream<Buffer, Buffer>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      call.removeListener("drain", go);
      reject(new BeamlineError("cancelled", "the client left"));
    };
    const go = (): void => {
      signal.removeEventListener("abort", stop);
      resolve();
    };
    if (signal.aborted) return stop();
    call.once("drain", go);
    signal.addEventListener("abort", stop, { once: true });
  });
}
