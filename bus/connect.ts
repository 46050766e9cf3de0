/**
 * The connection of a process to the bus.
 *
 * B1 A process holds one connection, named after itself, with its own inbox prefix.
 * B2 It reconnects for ever; while it is away calls fail at once with `unavailable` instead of piling up.
 * B3 Publishes of one tick leave in one socket write.
 * B4 What a listener throws stays here: in the client library it would end the reading, and a connection that nobody reads looks alive.
 * B5 A server that has fallen silent, its host gone or its network cut, is given up after three `pingIntervalMs`, as it gives up a silent client.
 */
import { readFileSync } from "node:fs";
import {
  connect as dial,
  credsAuthenticator,
  nkeyAuthenticator,
  PermissionViolationError,
  usernamePasswordAuthenticator,
  type Authenticator,
  type ConnectionOptions,
  type Msg,
  type NatsConnection,
  type Subscription,
} from "@nats-io/transport-node";
import { jetstream, jetstreamManager, type JetStreamClient, type JetStreamManager } from "@nats-io/jetstream";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";
import { fromJetStream } from "./apierror.ts";
import { encodeHeaders } from "./headers.ts";
import { publishAll, type Outgoing } from "./outbox.ts";

export interface BusOptions {
  /** `nats://host:port`, several separated by commas. */
  readonly url: string;
  /** Process name, shown by the server's monitoring: `edge`, `worker-routing`. */
  readonly name: string;
  /** Every reply inbox of this process starts with it; must match the user's permissions. Default `_INBOX`. */
  readonly inboxPrefix?: string;
  readonly user?: string;
  readonly password?: string;
  /** Path of a NATS credentials file. */
  readonly credsFile?: string;
  /** NKey seed. */
  readonly nkeySeed?: string;
  readonly tls?: { readonly caFile?: string; readonly certFile?: string; readonly keyFile?: string };
  /** How long the first connection may take, milliseconds. Default 10 000. */
  readonly connectTimeoutMs?: number;
  /** How often the server is asked for a sign of life, milliseconds. Default 10 000, as nats.conf has it for the other direction. */
  readonly pingIntervalMs?: number;
}

/** Oldest server whose JetStream has schedules, atomic batches and per-message TTL. */
export const MIN_SERVER = { major: 2, minor: 12 };

/** A subject with white space would say something else to the server. */
const sendable = /^[^\s]+$/;

export class Bus {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  readonly name: string;
  readonly inboxPrefix: string;
  #outbox: Outgoing[] = [];
  #scheduled = false;
  #connected = true;
  readonly #onDisconnect = new Set<(error: BeamlineError) => void>();
  readonly #onReconnect = new Set<() => void>();
  readonly #onDenied = new Set<(subject: string) => void>();
  readonly #onFault = new Set<(error: BeamlineError, subject: string) => void>();

  private constructor(nc: NatsConnection, jsm: JetStreamManager, name: string, inboxPrefix: string) {
    this.nc = nc;
    this.js = jetstream(nc, { timeout: 5_000 });
    this.jsm = jsm;
    this.name = name;
    this.inboxPrefix = inboxPrefix;
    void this.#watch();
  }

  /** Connects and checks the server. Throws `unavailable` when it cannot be reached, `failed_precondition` when it is too old. */
  static async connect(options: BusOptions): Promise<Bus> {
    const inboxPrefix = options.inboxPrefix ?? "_INBOX";
    let nc: NatsConnection;
    try {
      nc = await dial({ ...connection(options), name: options.name, inboxPrefix });
    } catch (cause) {
      throw new BeamlineError("unavailable", `cannot connect to NATS at ${options.url}: ${textOfError(cause)}`, {
        cause,
      });
    }
    const version = nc.info?.version ?? "0.0.0";
    const [major = 0, minor = 0] = version.split(".").map(Number);
    if (major < MIN_SERVER.major || (major === MIN_SERVER.major && minor < MIN_SERVER.minor)) {
      await nc.close();
      throw new BeamlineError(
        "failed_precondition",
        `NATS server ${version} at ${options.url} is too old: ${MIN_SERVER.major}.${MIN_SERVER.minor} or later is needed for message schedules and atomic batches`,
      );
    }
    if (nc.info?.jetstream !== true) {
      await nc.close();
      throw new BeamlineError("failed_precondition", `NATS server at ${options.url} has JetStream switched off`);
    }
    const jsm = await jetstreamManager(nc, { timeout: 5_000, checkAPI: false });
    return new Bus(nc, jsm, options.name, inboxPrefix);
  }

  /** False from the moment the connection is lost until it is back. */
  get connected(): boolean {
    return this.#connected && !this.nc.isClosed();
  }

  /** Whether the server is one of a cluster. */
  get clustered(): boolean {
    return this.nc.info?.cluster !== undefined;
  }

  /** Largest message the server takes, bytes. */
  get maxPayload(): number {
    return this.nc.info?.max_payload ?? 1_048_576;
  }

  /**
   * Sends one message with the others of this tick (B3). Throws `message_too_large` beyond the server's limit and `unavailable`
   * when the connection is closed.
   */
  send(subject: string, data: string | Uint8Array, headers?: Headers, reply?: string): void {
    if (this.nc.isClosed()) throw new BeamlineError("unavailable", "the bus connection is closed");
    if (!sendable.test(subject) || (reply !== undefined && !sendable.test(reply)))
      throw invalidArgument("subject", "must not be empty or contain white space");
    if (data.length * 3 > this.maxPayload - 4096) this.#checkSize(`a message for ${subject}`, data, headers);
    this.#outbox.push({ subject, data, headers, reply });
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#flush);
    }
  }

  /** Sends what a call is answered with, as `send`: one that is too large is told by what was called, which its caller knows, and not by the inbox. */
  answer(called: string, inbox: string, data: string, headers?: Headers): void {
    if (data.length * 3 > this.maxPayload - 4096) this.#checkSize(`the reply of ${called}`, data, headers);
    this.send(inbox, data, headers);
  }

  #checkSize(what: string, data: string | Uint8Array, headers: Headers | undefined): void {
    const size = Buffer.byteLength(data) + (headers === undefined ? 0 : encodeHeaders(headers).length);
    if (size <= this.maxPayload) return;
    const limit = `the ${this.maxPayload} the bus takes in one message`;
    throw new BeamlineError("message_too_large", `${what} has ${size} bytes, more than ${limit}`);
  }

  readonly #flush = (): void => {
    this.#scheduled = false;
    const batch = this.#outbox;
    this.#outbox = [];
    if (batch.length > 0 && !this.nc.isClosed()) publishAll(this.nc, batch);
  };

  /**
   * Hears what is published on a subject, wildcards allowed; of the members of a queue group one hears each message. A subject the user may not
   * hear is a fault, `permission_denied`.
   */
  subscribe(
    subject: string,
    listener: (message: Msg) => void,
    options: { readonly queue?: string } = {},
  ): Subscription {
    return this.nc.subscribe(subject, {
      ...options,
      callback: (error, message) => {
        if (error !== null) return this.#fault(fromJetStream(error, `listen on ${subject}`), subject);
        try {
          listener(message);
        } catch (thrown) {
          this.#fault(thrown, subject);
        }
      },
    });
  }

  /** Called with what a listener threw, or was refused, and its subject (B4). Nobody listening, it is an uncaught error. Returns how to stop. */
  onFault(listener: (error: BeamlineError, subject: string) => void): () => void {
    this.#onFault.add(listener);
    return () => this.#onFault.delete(listener);
  }

  #fault(thrown: unknown, subject: string): void {
    const error = BeamlineError.from(thrown);
    if (this.#onFault.size === 0)
      setImmediate(() => {
        throw error;
      });
    for (const listener of this.#onFault) listener(error, subject);
  }

  /** B4. */
  #tell<T>(listeners: ReadonlySet<(what: T) => void>, what: T, status: string): void {
    for (const listener of listeners) {
      try {
        listener(what);
      } catch (thrown) {
        this.#fault(thrown, status);
      }
    }
  }

  /** Called with `unavailable` whenever the connection is lost or closed. Returns how to stop. */
  onDisconnect(listener: (error: BeamlineError) => void): () => void {
    this.#onDisconnect.add(listener);
    return () => this.#onDisconnect.delete(listener);
  }

  /** Called with the subject whenever the server refuses a publish for want of rights. Returns how to stop. */
  onDenied(listener: (subject: string) => void): () => void {
    this.#onDenied.add(listener);
    return () => this.#onDenied.delete(listener);
  }

  onReconnect(listener: () => void): () => void {
    this.#onReconnect.add(listener);
    return () => this.#onReconnect.delete(listener);
  }

  /** Everything sent so far has reached the server. */
  async flush(): Promise<void> {
    this.#flush();
    await this.nc.flush();
  }

  /** Stops subscriptions, lets what is in flight finish, sends what is left, closes. */
  async drain(): Promise<void> {
    if (this.nc.isClosed()) return;
    this.#flush();
    try {
      await this.nc.drain();
    } catch {
      await this.nc.close();
    }
  }

  async close(): Promise<void> {
    await this.nc.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain();
  }

  async #watch(): Promise<void> {
    for await (const status of this.nc.status()) {
      if (status.type === "disconnect" || status.type === "staleConnection") this.#lost("the bus connection was lost");
      if (
        status.type === "error" &&
        status.error instanceof PermissionViolationError &&
        status.error.operation === "publish"
      ) {
        this.#tell(this.#onDenied, status.error.subject, status.type);
      }
      if (status.type === "reconnect") {
        this.#connected = true;
        this.#tell(this.#onReconnect, undefined, status.type);
      }
    }
    this.#lost("the bus connection is closed");
  }

  #lost(text: string): void {
    this.#connected = false;
    const error = new BeamlineError("unavailable", text);
    this.#tell(this.#onDisconnect, error, "disconnect");
  }
}

function connection(options: BusOptions): ConnectionOptions {
  const authenticator = authenticatorOf(options);
  const { tls } = options;
  return {
    servers: options.url.split(",").map((server) => server.trim()),
    timeout: options.connectTimeoutMs ?? 10_000,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    reconnectJitter: 100,
    pingInterval: options.pingIntervalMs ?? 10_000,
    maxPingOut: 2,
    // A worker's own subscriptions must not see its own broadcasts twice, but it may call itself: leave echo on.
    noAsyncTraces: true,
    ignoreAuthErrorAbort: true,
    ...(authenticator !== undefined && { authenticator }),
    ...(tls !== undefined && {
      tls: {
        ...(tls.caFile !== undefined && { caFile: tls.caFile }),
        ...(tls.certFile !== undefined && { certFile: tls.certFile }),
        ...(tls.keyFile !== undefined && { keyFile: tls.keyFile }),
      },
    }),
  };
}

function authenticatorOf(options: BusOptions): Authenticator | undefined {
  if (options.credsFile !== undefined) return credsAuthenticator(readFileSync(options.credsFile));
  if (options.nkeySeed !== undefined) return nkeyAuthenticator(new TextEncoder().encode(options.nkeySeed));
  if (options.user !== undefined) return usernamePasswordAuthenticator(options.user, options.password ?? "");
  return undefined;
}

function textOfError(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
