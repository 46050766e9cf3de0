/**
 * Serving: endpoints on queue groups, with a concurrency limit, cancellation, drain and service discovery.
 *
 * S1 At most `concurrency` calls run; as many again as `queue` wait; beyond that the caller hears `resource_exhausted` at once.
 * S2 A call whose deadline has passed is answered without running it.
 * S3 Every accepted call is answered: with its reply, its error, or `unavailable` when a drain ran out of time.
 * S4 Nothing a handler throws takes the process down, and a stranger's text stays here.
 * S5 A reply never goes to a subject of the system's own: the server does not check reply subjects, and a worker may write logs.
 * S6 A process that may not hear its calls does not start.
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import { BeamlineError, type Code } from "../contracts/errors.ts";
import { forbidden } from "./apierror.ts";
import { errorBody, errorHeaders, inBrief } from "../contracts/errorbody.ts";
import { header } from "../contracts/headers.ts";
import type { Bus } from "./connect.ts";
import { CANCEL_SUBJECT } from "./call.ts";
import { expired, IncomingCall } from "./context.ts";
import { answerDiscovery, EndpointStats } from "./discovery.ts";
import type { Endpoint } from "./endpoint.ts";
import { isReplyAddress } from "./replyaddress.ts";
import { isNoResponders, requestTextOf, textOf } from "./headers.ts";
import { sendStream } from "./stream.ts";
import { Inbox } from "./inbox.ts";
import { Places } from "./places.ts";

export interface ServeOptions {
  /** Worker name: queue group, service name in discovery. */
  readonly name: string;
  readonly version: string;
  /** Calls that run at once. Default 256. */
  readonly concurrency?: number;
  /** Calls that may wait for a place. Default 4096. */
  readonly queue?: number;
  /** Runs around each call: tracing and metrics come in here. */
  readonly around?: Around;
  /** Told of errors whose cause the caller does not see. */
  readonly onError?: (error: BeamlineError, subject: string, traceparent: string) => void;
}

export type Around = <T>(endpoint: Endpoint, call: IncomingCall, run: () => T) => T;

/** A message that waits for a place. */
interface Job {
  readonly stats: EndpointStats;
  readonly message: Msg;
}

/** A call that runs. One object for all that is to be known of it: closures in its place cost more than the rest of serving. */
interface Running extends Job {
  readonly call: IncomingCall;
  /** `performance.now()`. */
  readonly started: number;
  place: number;
}

export class Server {
  readonly stats: readonly EndpointStats[];
  readonly #bus: Bus;
  readonly #options: ServeOptions;
  readonly #concurrency: number;
  readonly #queueLimit: number;
  readonly #subscriptions: Subscription[];
  readonly #running = new Places<Running>();
  readonly #waiting: Job[] = [];
  readonly #control: Inbox;
  #active = 0;
  #starting = false;
  #idle: (() => void) | undefined;

  constructor(bus: Bus, endpoints: readonly Endpoint[], options: ServeOptions) {
    this.#bus = bus;
    this.#options = options;
    this.#concurrency = options.concurrency ?? 256;
    this.#queueLimit = options.queue ?? 4096;
    this.#control = new Inbox(bus);
    this.stats = endpoints.map((endpoint) => new EndpointStats(endpoint, options.name));
    this.#subscriptions = this.stats.map((stats) =>
      bus.subscribe(stats.endpoint.subject, (message) => this.#arrive(stats, message), { queue: options.name }),
    );
    this.#subscriptions.push(
      bus.subscribe(CANCEL_SUBJECT, (message) => this.#cancel(textOf(message))),
      ...answerDiscovery(bus, this.stats, options),
    );
  }

  /** Calls running and waiting. */
  get load(): { readonly active: number; readonly waiting: number } {
    return { active: this.#active, waiting: this.#waiting.length };
  }

  /** The server knows the subscriptions: calls arrive from now on. Throws `permission_denied` when the bus user may not hear one of them. */
  async ready(): Promise<void> {
    await this.#bus.flush();
    const refused = this.#subscriptions.find((subscription) => subscription.isClosed());
    if (refused !== undefined) throw forbidden(`listen on ${refused.getSubject()}`, undefined);
  }

  /** Intake stops first (S3), then what was accepted is answered, at the latest when the deadline (epoch milliseconds) passes. */
  async stop(deadline: number): Promise<void> {
    await Promise.allSettled(this.#subscriptions.map((subscription) => subscription.drain()));
    if (this.#active > 0) {
      const finished = new Promise<void>((resolve) => (this.#idle = resolve));
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, Math.max(0, deadline - Date.now()))));
      await Promise.race([finished, late]);
      clearTimeout(timer);
    }
    const reason = new BeamlineError("unavailable", `the ${this.#options.name} worker is shutting down`);
    for (const { stats, message } of this.#waiting.splice(0)) this.#reject(stats.endpoint, message, reason);
    for (const { call } of this.#running) call.end(reason);
    this.#control.stop();
    if (this.#bus.connected) await this.#bus.flush();
  }

  #arrive(stats: EndpointStats, message: Msg): void {
    if (isNoResponders(message)) return;
    if (this.#active < this.#concurrency) return this.#start(stats, message);
    if (this.#waiting.length < this.#queueLimit) {
      this.#waiting.push({ stats, message });
      return;
    }
    stats.failed("resource_exhausted");
    const text = `the ${this.#options.name} worker has ${this.#concurrency} calls running and ${this.#queueLimit} waiting`;
    this.#reject(stats.endpoint, message, new BeamlineError("resource_exhausted", text, { retryAfterSeconds: 1 }));
  }

  #start(stats: EndpointStats, message: Msg): void {
    this.#active++;
    const { endpoint } = stats;
    const call = new IncomingCall(message, endpoint.timeoutMs);
    const running: Running = { stats, message, call, started: performance.now(), place: -1 };
    try {
      if (call.deadline <= Date.now()) throw expired(endpoint.subject);
      running.place = this.#running.add(running);
      const around = this.#options.around ?? plain;
      const done = around(endpoint, call, () =>
        endpoint.kind === "stream"
          ? this.#stream(endpoint, endpoint.stream(requestTextOf(message), call), call, message)
          : endpoint.answer(requestTextOf(message), call),
      );
      if (typeof done === "string") this.#answered(running, done);
      else {
        const answered = (text: string | void): void => this.#answered(running, text);
        done.then(answered, (thrown: unknown) => this.#fail(running, thrown));
      }
    } catch (thrown) {
      this.#fail(running, thrown);
    }
  }

  /** Sends the reply, if there is one; a stream has said all it had to. */
  #answered(running: Running, text: string | void): void {
    try {
      if (typeof text === "string") this.#reply(running.stats.endpoint, running.message, text);
    } catch (thrown) {
      return this.#fail(running, thrown);
    }
    this.#finish(running, undefined);
  }

  #fail(running: Running, thrown: unknown): void {
    const { stats, message, call } = running;
    const error = BeamlineError.from(thrown);
    if (error.cause !== undefined) this.#options.onError?.(error, stats.endpoint.subject, call.traceparent);
    this.#reject(stats.endpoint, message, error);
    this.#finish(running, error.code);
  }

  #finish(running: Running, code: Code | undefined): void {
    running.call.settle();
    this.#running.remove(running.place, running);
    running.stats.finished(performance.now() - running.started, code);
    this.#active--;
    this.#next();
  }

  #stream(endpoint: Endpoint, chunks: AsyncIterable<string>, call: IncomingCall, message: Msg): Promise<void> {
    return sendStream(this.#bus, this.#control, endpoint.subject, chunks, call, repliesOf(endpoint, message)[0] ?? "");
  }

  /** Starts who waits. A call that ends at once comes back here: whoever is here already goes on, so that thousands of them nest no deeper than one. */
  #next(): void {
    if (this.#starting) return;
    this.#starting = true;
    for (let job; this.#active < this.#concurrency && (job = this.#waiting.shift()) !== undefined;)
      this.#start(job.stats, job.message);
    this.#starting = false;
    if (this.#active === 0) this.#idle?.();
  }

  #cancel(reply: string): void {
    if (reply === "") return;
    for (const { call } of this.#running)
      if (call.reply === reply) call.end(new BeamlineError("cancelled", "the caller gave up"));
  }

  #reply(endpoint: Endpoint, message: Msg, text: string): void {
    const { reply } = message;
    if (reply !== undefined && isReplyAddress(reply)) this.#bus.answer(endpoint.subject, reply, text);
    else for (const subject of repliesOf(endpoint, message)) this.#bus.answer(endpoint.subject, subject, text);
  }

  #reject(endpoint: Endpoint, message: Msg, error: BeamlineError): void {
    const marked = endpoint.kind === "stream" && { [header.stream]: "error" };
    const text = JSON.stringify(error.body ?? errorBody(error, endpoint.dialect));
    for (const subject of repliesOf(endpoint, message)) {
      try {
        this.#bus.send(subject, text, { ...errorHeaders(error), ...marked });
      } catch (thrown) {
        // When the connection is closed, the caller's own deadline or disconnect tells it.
        if (BeamlineError.from(thrown).code === "message_too_large") this.#reject(endpoint, message, inBrief(error));
      }
    }
  }
}

const plain: Around = (_endpoint, _call, run) => run();

/** Where the reply goes. A subject of the system's own is not a reply address (S5): it is as if none had been named. */
function repliesOf(endpoint: Endpoint, message: Msg): readonly string[] {
  const { reply } = message;
  const fixed = endpoint.fallbackReplies ?? [];
  return reply !== undefined && isReplyAddress(reply, fixed) ? [reply] : fixed;
}
