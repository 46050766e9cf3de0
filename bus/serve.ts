/**
 * Serving: endpoints on queue groups, with a concurrency limit, cancellation, drain and service discovery.
 *
 * S1 At most `concurrency` calls run; as many again as `queue` wait; beyond that the caller hears `resource_exhausted` at once.
 * S2 A call whose deadline has passed is answered without running it.
 * S3 Every accepted call is answered: with its reply, its error, or `unavailable` when a drain ran out of time.
 * S5 A reply never goes to a subject of the system's own: the server does not check reply subjects, and a worker may write logs.
 * S4 Nothing a handler throws takes the process down, and a stranger's text stays here.
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import { BeamlineError } from "../contracts/errors.ts";
import { errorBody, errorHeaders } from "../contracts/errorbody.ts";
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

interface Job {
  readonly endpoint: Endpoint;
  readonly stats: EndpointStats;
  readonly message: Msg;
}

export class Server {
  readonly stats: readonly EndpointStats[];
  readonly #bus: Bus;
  readonly #options: ServeOptions;
  readonly #concurrency: number;
  readonly #queueLimit: number;
  readonly #subscriptions: Subscription[];
  readonly #running = new Places<IncomingCall>();
  readonly #waiting: Job[] = [];
  readonly #control: Inbox;
  #active = 0;
  #idle: (() => void) | undefined;

  constructor(bus: Bus, endpoints: readonly Endpoint[], options: ServeOptions) {
    this.#bus = bus;
    this.#options = options;
    this.#concurrency = options.concurrency ?? 256;
    this.#queueLimit = options.queue ?? 4096;
    this.#control = new Inbox(bus);
    this.stats = endpoints.map((endpoint) => new EndpointStats(endpoint, options.name));
    this.#subscriptions = this.stats.map((stats) =>
      bus.nc.subscribe(stats.endpoint.subject, {
        queue: options.name,
        callback: (_error, message) => this.#arrive({ endpoint: stats.endpoint, stats, message }),
      }),
    );
    this.#subscriptions.push(
      bus.nc.subscribe(CANCEL_SUBJECT, { callback: (_error, message) => this.#cancel(textOf(message)) }),
      ...answerDiscovery(bus, this.stats, options),
    );
  }

  /** Calls running and waiting. */
  get load(): { readonly active: number; readonly waiting: number } {
    return { active: this.#active, waiting: this.#waiting.length };
  }

  /** The server knows the subscriptions: calls arrive from now on. */
  async ready(): Promise<void> {
    await this.#bus.flush();
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
    for (const { endpoint, message } of this.#waiting.splice(0)) this.#reject(endpoint, message, reason);
    for (const call of this.#running) call.end(reason);
    this.#control.stop();
    if (this.#bus.connected) await this.#bus.flush();
  }

  #arrive(job: Job): void {
    if (isNoResponders(job.message)) return;
    if (this.#active < this.#concurrency) return this.#start(job);
    if (this.#waiting.length < this.#queueLimit) {
      this.#waiting.push(job);
      return;
    }
    job.stats.failed("resource_exhausted");
    this.#reject(
      job.endpoint,
      job.message,
      new BeamlineError(
        "resource_exhausted",
        `the ${this.#options.name} worker has ${this.#concurrency} calls running and ${this.#queueLimit} waiting`,
        {
          retryAfterSeconds: 1,
        },
      ),
    );
  }

  #start(job: Job): void {
    this.#active++;
    const { endpoint, stats, message } = job;
    const call = new IncomingCall(message, endpoint.timeoutMs);
    const started = performance.now();
    let place = -1;
    const finish = (error?: BeamlineError): void => {
      call.settle();
      this.#running.remove(place, call);
      stats.finished(performance.now() - started, error?.code);
      this.#active--;
      this.#next();
    };
    const fail = (thrown: unknown): void => {
      const error = BeamlineError.from(thrown);
      if (error.cause !== undefined) this.#options.onError?.(error, endpoint.subject, call.traceparent);
      this.#reject(endpoint, message, error);
      finish(error);
    };
    try {
      if (call.deadline <= Date.now()) throw expired(endpoint.subject);
      place = this.#running.add(call);
      const around = this.#options.around ?? plain;
      const done = around(endpoint, call, () =>
        endpoint.kind === "stream"
          ? this.#stream(endpoint, endpoint.stream(requestTextOf(message), call), call, message)
          : endpoint.answer(requestTextOf(message), call),
      );
      if (typeof done === "string") {
        this.#reply(endpoint, message, done);
        finish();
      } else {
        const answered = (text: string | void): void => {
          try {
            if (typeof text === "string") this.#reply(endpoint, message, text);
          } catch (thrown) {
            return fail(thrown);
          }
          finish();
        };
        done.then(answered, fail);
      }
    } catch (thrown) {
      fail(thrown);
    }
  }

  #stream(endpoint: Endpoint, chunks: AsyncIterable<string>, call: IncomingCall, message: Msg): Promise<void> {
    return sendStream(this.#bus, this.#control, chunks, call, repliesOf(endpoint, message)[0] ?? "");
  }

  #next(): void {
    const job = this.#waiting.shift();
    if (job !== undefined) this.#start(job);
    else if (this.#active === 0) this.#idle?.();
  }

  #cancel(reply: string): void {
    if (reply === "") return;
    for (const call of this.#running)
      if (call.reply === reply) call.end(new BeamlineError("cancelled", "the caller gave up"));
  }

  #reply(endpoint: Endpoint, message: Msg, text: string): void {
    const { reply } = message;
    if (reply !== undefined && isReplyAddress(reply)) this.#bus.send(reply, text);
    else for (const subject of repliesOf(endpoint, message)) this.#bus.send(subject, text);
  }

  #reject(endpoint: Endpoint, message: Msg, error: BeamlineError): void {
    const headers = { ...errorHeaders(error), ...(endpoint.kind === "stream" && { [header.stream]: "error" }) };
    const text = JSON.stringify(error.body ?? errorBody(error, endpoint.dialect));
    for (const subject of repliesOf(endpoint, message)) {
      try {
        this.#bus.send(subject, text, headers);
      } catch {
        // The connection is closed: the caller's own deadline or disconnect tells it.
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
