/**
 * OpenWOP over HTTP. REST calls are forwarded to the runs worker, events are read from the log here.
 *
 * H1 The credential comes first: 401 before anything is looked up, then the rate, then the capacity, then the rest.
 * H2 Every answer that is not a success is an error envelope and nothing else.
 * H3 A client that leaves takes its stream with it, never the run.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Caller } from "../../bus/call.ts";
import { BeamlineError, meaning } from "../../contracts/errors.ts";
import { codeIn, errorBody } from "../../contracts/errorbody.ts";
import { header, type Headers } from "../../contracts/headers.ts";
import { isDeeper, MAX_NESTING } from "../../contracts/openwop/json.ts";
import type { RestOperation, RestReply, RestRequest } from "../../contracts/openwop/rest.ts";
import { MAX_BODY_BYTES, restSubject } from "../../contracts/openwop/rest.ts";
import { parseBufferMs, parseCursor, parseModes } from "../../contracts/openwop/modes.ts";
import { acceptTraceparent, traceIdOf } from "../../runtime/trace.ts";
import { authenticate, type AuthPolicy } from "../auth.ts";
import { onDeparture } from "../departure.ts";
import type { Admission } from "./admission.ts";
import { eventsOf } from "./events.ts";
import { permitRead } from "./grpc.ts";
import { poll } from "./poll.ts";
import { restRoutes, runVerbs, splitVerb } from "./routes.ts";
import { primed, sendEvents } from "./sse.ts";

export interface HttpOptions {
  readonly caller: Caller;
  readonly auth: AuthPolicy;
  readonly admission: Admission;
  /** Largest request body, bytes; at most what the contract's side says, which is the default. */
  readonly maxBodyBytes?: number;
  readonly onError?: (error: BeamlineError, what: string, traceparent: string) => void;
}

const TIMEOUT_MS = 30_000;
/** Roots that must be asked for with their version; without it 400 (OpenWOP, shape of the system). */
const UNVERSIONED = [
  "runs",
  "runs::bulk-cancel",
  "workflows",
  "interrupts",
  "webhooks",
  "audit",
  "openapi.json",
] as const;
const FORWARDED = ["x-dedup", "x-force-engine-version", "accept-language"] as const;

/** Adds the routes. */
export function openwopHttp(app: FastifyInstance, options: HttpOptions): void {
  const edge = new OpenwopHttp(options);
  void app.register(async (scope) => edge.register(scope, Math.min(options.maxBodyBytes ?? Infinity, MAX_BODY_BYTES)));
}

class OpenwopHttp {
  readonly #options: HttpOptions;
  readonly #traces = new WeakMap<FastifyRequest, string>();

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  register(app: FastifyInstance, bodyLimit: number): void {
    app.removeAllContentTypeParsers();
    app.addContentTypeParser("*", { parseAs: "string", bodyLimit }, (_request, text, done) => {
      done(null, text);
    });
    app.setErrorHandler((thrown, request, reply) => this.#refuse(request, reply, thrown));
    for (const { method, path, operation, open, exempt } of restRoutes) {
      app.route({
        method,
        url: path,
        handler: (request, reply) =>
          this.#rest(request, reply, operation, { open: open === true, exempt: exempt === true }),
      });
    }
    for (const [method, verbs] of Object.entries(runVerbs)) {
      app.route({
        method,
        url: "/v1/runs/:target",
        handler: async (request, reply) => {
          const { runId, operation } = splitVerb(paramsOf(request)["target"] ?? "", verbs);
          this.#headers(request, false);
          if (operation === undefined)
            throw new BeamlineError("not_found", `no route ${method} ${request.url.split("?")[0] ?? ""}`);
          return this.#rest(request, reply, operation, { open: false, exempt: false }, { runId });
        },
      });
    }
    app.get("/v1/runs/:runId/events", (request, reply) => this.#events(request, reply));
    app.get("/v1/runs/:runId/events/poll", async (request, reply) => {
      const headers = this.#headers(request, false);
      return this.#admitted(headers, () => this.#poll(request, reply, headers));
    });
    for (const method of ["GET", "POST"] as const) {
      app.route({
        method,
        url: "/v1/runs/:runId/annotations",
        handler: async (request) => {
          this.#headers(request, false);
          const details = { capability: "feedback" };
          throw new BeamlineError("capability_not_provided", "annotations of runs are not provided", { details });
        },
      });
    }
    for (const root of UNVERSIONED) {
      for (const path of [`/${root}`, `/${root}/*`]) {
        app.all(path, (request) => {
          const asked = request.url.split("?")[0] ?? "";
          throw new BeamlineError("validation_error", `paths begin with their version: /v1${asked}`, { field: "path" });
        });
      }
    }
    app.all("/v1/*", async (request) => {
      this.#headers(request, false);
      throw new BeamlineError("not_found", `no route ${request.method} ${request.url.split("?")[0] ?? ""}`);
    });
  }

  async #rest(
    request: FastifyRequest,
    reply: FastifyReply,
    operation: RestOperation,
    { open, exempt }: { open: boolean; exempt: boolean },
    params = paramsOf(request),
  ): Promise<unknown> {
    const headers = this.#headers(request, open);
    return this.#admitted(exempt ? undefined : headers, async () => {
      const asked: RestRequest = {
        params,
        query: request.query as Record<string, unknown>,
        headers: forwarded(request),
        ...(hasBody(request) && { body: bodyOf(request) }),
        base: baseOf(request),
      };
      const answer = (await this.#options.caller.request(restSubject(operation), asked, {
        headers,
        timeoutMs: TIMEOUT_MS,
        worker: "runs",
      })) as RestReply;
      for (const [name, value] of Object.entries(answer.headers)) void reply.header(name, value);
      const { etag } = answer.headers;
      if (etag !== undefined && names(request.headers["if-none-match"], etag)) return reply.code(304).send();
      if (answer.status === 204) return reply.code(204).send();
      return reply.code(answer.status).type("application/json; charset=utf-8").send(JSON.stringify(answer.body));
    });
  }

  async #events(request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const headers = this.#headers(request, false);
    return this.#admitted(headers, () => this.#stream(request, reply, headers));
  }

  async #stream(request: FastifyRequest, reply: FastifyReply, headers: Headers): Promise<unknown> {
    permitRead(headers);
    const query = request.query as Record<string, string | string[] | undefined>;
    const modes = parseModes([query["streamMode"] ?? []].flat().flatMap((text) => text.split(",")));
    const bufferMs = parseBufferMs(query["bufferMs"]);
    const cursor = request.headers["last-event-id"] ?? query["lastEventId"];
    const after = parseCursor(cursor ?? query["lastSequence"], "Last-Event-ID");
    if (
      request.headers.accept?.includes("application/json") === true &&
      !request.headers.accept.includes("text/event-stream")
    )
      return this.#poll(request, reply, headers, cursor === undefined ? undefined : after);
    const gone = new AbortController();
    onDeparture(request, reply, () => gone.abort());
    const wanted = {
      tenant: headers[header.tenantId] ?? "default",
      runId: paramsOf(request)["runId"] ?? "",
      after,
      modes,
    };
    const source = eventsOf(this.#options.caller.bus, wanted, gone.signal);
    const first = await firstOrQuiet(source);
    if (request.method === "HEAD") {
      gone.abort();
      return reply.type("text/event-stream; charset=utf-8").send("");
    }
    void reply.hijack();
    reply.raw.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      connection: "keep-alive",
      "x-accel-buffering": "no",
    });
    reply.raw.flushHeaders();
    try {
      await sendEvents(reply.raw, first, bufferMs, gone.signal);
    } catch (thrown) {
      this.#report(BeamlineError.from(thrown), request);
    }
    return reply;
  }

  /** `after` is the cursor of a stream that is read as a poll. */
  async #poll(request: FastifyRequest, reply: FastifyReply, headers: Headers, after?: number): Promise<unknown> {
    permitRead(headers);
    const asked = request.query as Record<string, string | undefined>;
    const query = after === undefined ? asked : { ...asked, lastSequence: String(after) };
    const gone = new AbortController();
    onDeparture(request, reply, () => gone.abort());
    const answer = await poll(
      this.#options.caller.bus,
      headers[header.tenantId] ?? "default",
      paramsOf(request)["runId"] ?? "",
      query,
      gone.signal,
    );
    return reply.code(200).send(answer);
  }

  /** H1. Undefined for discovery, which is never held up. */
  async #admitted<T>(headers: Headers | undefined, run: () => Promise<T>): Promise<T> {
    const leave = headers === undefined ? undefined : this.#options.admission.enter(headers);
    try {
      return await run();
    } finally {
      leave?.();
    }
  }

  /** Who calls, as headers on the bus. Throws `unauthenticated` and its kin. */
  #headers(request: FastifyRequest, open: boolean): Headers {
    const own: Record<string, string> = {
      [header.traceparent]: this.#traceOf(request),
      [header.deadline]: String(Date.now() + TIMEOUT_MS),
    };
    const tracestate = single(request.headers["tracestate"]);
    if (tracestate !== undefined) own[header.tracestate] = tracestate;
    const key = single(request.headers["idempotency-key"]);
    if (key !== undefined && request.method !== "GET") own[header.idempotencyKey] = encodeKey(key);
    if (open) return own;
    const principal = authenticate(this.#options.auth, request.headers.authorization, { ownKey: false, always: true });
    const named = single(request.headers["x-tenant-id"]);
    if (principal.tenant !== undefined && named !== undefined && named !== principal.tenant) {
      throw new BeamlineError("forbidden", "x-tenant-id is not the tenant of the credential", { field: "x-tenant-id" });
    }
    own[header.tenantId] = principal.tenant ?? named ?? "default";
    own[header.principal] = principal.id;
    own[header.scopes] = principal.scopes.join(" ");
    return own;
  }

  /** H2. */
  #refuse(request: FastifyRequest, reply: FastifyReply, thrown: unknown): FastifyReply {
    const error = translated(thrown);
    const { http } = meaning(codeIn("openwop", error.code));
    this.#report(error, request);
    if (error.retryAfterSeconds !== undefined)
      void reply.header("retry-after", String(Math.ceil(error.retryAfterSeconds)));
    const body = errorBody(error, "openwop");
    if (http >= 500)
      body["details"] = {
        ...(body["details"] as object | undefined),
        correlationId: traceIdOf(this.#traceOf(request)),
      };
    return reply
      .code(error.code === "message_too_large" ? 413 : http)
      .type("application/json; charset=utf-8")
      .send(JSON.stringify(body));
  }

  #report(error: BeamlineError, request: FastifyRequest): void {
    if (meaning(error.code).http >= 500)
      this.#options.onError?.(error, `${request.method} ${request.routeOptions.url ?? ""}`, this.#traceOf(request));
  }

  /** The caller's traceparent, or one made for this request: the same on the bus, in the answer and in the log. */
  #traceOf(request: FastifyRequest): string {
    let traceparent = this.#traces.get(request);
    if (traceparent === undefined) {
      traceparent = acceptTraceparent(single(request.headers["traceparent"]));
      this.#traces.set(request, traceparent);
    }
    return traceparent;
  }
}

function translated(thrown: unknown): BeamlineError {
  if (thrown instanceof BeamlineError) return thrown;
  const status = (thrown as { statusCode?: unknown } | null)?.statusCode;
  if (status === 413) return new BeamlineError("message_too_large", "the request body is too large");
  if (typeof status === "number" && status >= 400 && status < 500)
    return new BeamlineError("validation_error", "the request cannot be read");
  return BeamlineError.from(thrown);
}

/** The first event if there is one soon; a run that is quiet must not hold back the headers. Failures of the first look are thrown. */
async function firstOrQuiet<T>(events: AsyncGenerator<T>): Promise<AsyncIterable<T>> {
  const first = primed(events);
  first.catch(() => undefined);
  let timer: NodeJS.Timeout | undefined;
  const quiet = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), 250)));
  const ready = await Promise.race([first, quiet]).finally(() => clearTimeout(timer));
  if (ready !== undefined) return ready;
  return {
    async *[Symbol.asyncIterator]() {
      yield* await first;
    },
  };
}

function paramsOf(request: FastifyRequest): Record<string, string> {
  return request.params as Record<string, string>;
}

/** Whether an `If-None-Match` names the entity tag: a list, weak ones alike, or any. */
function names(ifNoneMatch: string | undefined, etag: string): boolean {
  const listed = ifNoneMatch?.split(",").map((one) => one.trim().replace(/^W\//, "")) ?? [];
  return listed.includes("*") || listed.includes(etag);
}

function hasBody(request: FastifyRequest): boolean {
  return typeof request.body === "string" && request.body.trim() !== "";
}

function bodyOf(request: FastifyRequest): unknown {
  let body: unknown;
  try {
    body = JSON.parse(String(request.body));
  } catch {
    throw new BeamlineError("validation_error", "body is not valid JSON", { field: "body" });
  }
  // What nests deeper cannot even be sent on.
  if (isDeeper(body))
    throw new BeamlineError("validation_error", `body is nested deeper than ${MAX_NESTING} levels`, { field: "body" });
  return body;
}

function forwarded(request: FastifyRequest): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name of FORWARDED) {
    const value = single(request.headers[name]);
    if (value !== undefined) kept[name] = value;
  }
  return kept;
}

function single(value: string | string[] | undefined): string | undefined {
  const text = Array.isArray(value) ? value[0] : value;
  return text === undefined || text === "" ? undefined : text;
}

/** A key as one header line, whatever is in it. */
function encodeKey(key: string): string {
  return key.replaceAll(/[\r\n]+/g, " ");
}

function baseOf(request: FastifyRequest): string {
  const { host } = request.headers;
  return host === undefined || !/^[\w.:[\]-]{1,255}$/.test(host) ? "" : `${request.protocol}://${host}`;
}
