/** What a worker offers on one subject, and how a service's handlers become such endpoints. */
import { codecOf, opaque } from "../contracts/codec.ts";
import type { CallContext, Handlers } from "../contracts/handlers.ts";
import { routeOf, type Dialect, type Route, type ServiceDefinition } from "../contracts/routes.ts";
import { parseRequest } from "./call.ts";

/** A request as it arrived: its text and the context of the call. */
export type Answer = (text: string, context: CallContext) => string | Promise<string>;
export type Stream = (text: string, context: CallContext) => AsyncIterable<string>;

interface Common {
  readonly subject: string;
  /** Name in service discovery and metrics: letters, digits, dash, underscore. */
  readonly name: string;
  readonly dialect: Dialect;
  readonly timeoutMs: number;
  /** Where replies go when the request names no reply subject. */
  readonly fallbackReplies?: readonly string[];
}

export interface UnaryEndpoint extends Common {
  readonly kind: "request";
  readonly answer: Answer;
}

export interface StreamEndpoint extends Common {
  readonly kind: "stream";
  readonly stream: Stream;
}

export type Endpoint = UnaryEndpoint | StreamEndpoint;

/** An endpoint that answers each request once. */
export function requestEndpoint(
  { subject, dialect, timeoutMs }: Pick<Common, "subject" | "dialect" | "timeoutMs">,
  answer: Answer,
): UnaryEndpoint {
  return { kind: "request", subject, name: nameOf(subject), dialect, timeoutMs, answer };
}

function nameOf(subject: string): string {
  return subject.replaceAll(".", "-");
}

/** The endpoints of a service: its handlers behind the JSON codec of the contract. */
export function endpointsOf<S extends ServiceDefinition>(service: S, handlers: Handlers<S>): Endpoint[] {
  return Object.entries(service.methods)
    .map(([key, method]) => endpoint(routeOf(service, method), handlers[key as keyof S["methods"]] as unknown))
    .filter((made) => made !== undefined);
}

function endpoint(route: Route, handler: unknown): Endpoint | undefined {
  if (route.kind === "events") return undefined; // the edge reads the log itself
  const request = codecOf(opaque(route.method.requestType));
  const responseType = opaque(route.method.responseType);
  const response = codecOf(responseType);
  const read = (text: string): unknown => request.fromJson(parseRequest(text));
  const write = (reply: unknown): string => JSON.stringify(response.toJson(responseType.fromPartial(reply as object)));
  if (route.kind === "stream") {
    const run = handler as (message: unknown, context: CallContext) => AsyncIterable<object>;
    const { subject, dialect, timeoutMs } = route;
    return {
      kind: "stream",
      subject,
      name: nameOf(subject),
      dialect,
      timeoutMs,
      async *stream(text, context) {
        for await (const reply of run(read(text), context)) yield write(reply);
      },
    };
  }
  const run = handler as (message: unknown, context: CallContext) => Promise<object>;
  return requestEndpoint(route, async (text, context) => write(await run(read(text), context)));
}
